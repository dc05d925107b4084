"""What connects cards: the PCIe bus, and NVLinks between two of them or through switches.

One rule: what switches connect counts as many NVLinks as the lesser end has to switches.
"""

from collections.abc import Iterator
from typing import Any

import pynvml as nv
from msgspec import Struct

from hami_node_agent.probes.nvml.calls import bus_id, or_none

SWITCH = ""
"""Stands for a switch where another card's bus id could stand."""


class Link(Struct, frozen=True, kw_only=True):
    """What connects two cards: NVML's topology level, and NVLinks as either end counts them."""

    level: int | None
    there: int
    back: int


class End(Struct, frozen=True, kw_only=True):
    """One card with the other ends of its NVLinks that are up."""

    handle: Any
    bus: str
    ends: tuple[str, ...]

    @classmethod
    def of(cls, handle: Any, bus: str) -> "End":
        """Ask for the NVLinks of a card."""
        return cls(handle=handle, bus=bus, ends=tuple(_ends(handle)))

    def link(self, other: "End") -> Link:
        """Ask what connects this card with another."""
        level = or_none(nv.nvmlDeviceGetTopologyCommonAncestor, self.handle, other.handle)
        return Link(level=level, there=self._count(other), back=other._count(self))

    def _count(self, other: "End") -> int:
        return self.ends.count(other.bus) or min(self.ends.count(SWITCH), other.ends.count(SWITCH))


def _ends(handle: Any) -> Iterator[str]:
    for link in range(nv.NVML_NVLINK_MAX_LINKS):
        try:
            if not nv.nvmlDeviceGetNvLinkState(handle, link):
                continue
            kind = nv.nvmlDeviceGetNvLinkRemoteDeviceType(handle, link)
            if kind == nv.NVML_NVLINK_DEVICE_TYPE_SWITCH:
                yield SWITCH
            elif kind == nv.NVML_NVLINK_DEVICE_TYPE_GPU:
                yield bus_id(nv.nvmlDeviceGetNvLinkRemotePciInfo(handle, link))
        except nv.NVMLError:
            return  # the card has no link of this number
