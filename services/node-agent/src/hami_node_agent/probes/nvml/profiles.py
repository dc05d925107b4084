"""How a card can be cut with MIG: the driver's profiles, and which of them a name of HAMi's allowlist means.

One rule: a profile is what its name says, variants such as ``1g.20gb`` and ``1g.10gb+me`` included; the number of
slices alone means nothing. A name that the driver writes a little differently (``7g.79gb`` for ``7g.80gb``) means the
plain profile of as many slices whose memory is nearest.
"""

import ctypes
import re
from collections.abc import Iterable, Iterator
from math import ceil
from typing import Any

import pynvml as nv
from msgspec import Struct

from hami_node_agent.probes.nvml.calls import or_none

MB, GB = 1024**2, 1024**3

NEAR = 0.1
"""By how much of itself the memory in a name may be off."""

_VARIANTS = {
    nv.NVML_GPU_INSTANCE_PROFILE_1_SLICE_REV1: "+me", nv.NVML_GPU_INSTANCE_PROFILE_2_SLICE_REV1: "+me",
    nv.NVML_GPU_INSTANCE_PROFILE_1_SLICE_GFX: "+gfx", nv.NVML_GPU_INSTANCE_PROFILE_2_SLICE_GFX: "+gfx",
    nv.NVML_GPU_INSTANCE_PROFILE_3_SLICE_GFX: "+gfx", nv.NVML_GPU_INSTANCE_PROFILE_4_SLICE_GFX: "+gfx",
    nv.NVML_GPU_INSTANCE_PROFILE_1_SLICE_NO_ME: "-me", nv.NVML_GPU_INSTANCE_PROFILE_2_SLICE_NO_ME: "-me",
    nv.NVML_GPU_INSTANCE_PROFILE_1_SLICE_ALL_ME: "+me.all", nv.NVML_GPU_INSTANCE_PROFILE_2_SLICE_ALL_ME: "+me.all",
}  # fmt: skip
"""What the names of variants end in, for drivers that tell no names."""

_NAME = re.compile(r"(?P<slices>\d+)g\.(?P<memory>\d+)gb(?P<variant>.*)")


class Profile(Struct, frozen=True, kw_only=True):
    """A MIG profile of a card: slices, most instances, MB, multiprocessors, and (start, size) of each possible place.

    ``id`` is what the driver's calls name it by; the places are unknown while MIG is off.
    """

    id: int
    name: str
    slices: int
    instances: int
    memory: int
    sms: int
    placements: tuple[tuple[int, int], ...]


def profiles(handle: Any) -> Iterator[Profile]:
    """Ask for every profile of a card."""
    for number in range(nv.NVML_GPU_INSTANCE_PROFILE_COUNT):
        info = or_none(nv.nvmlDeviceGetGpuInstanceProfileInfo, handle, number, 1)
        if info is not None:
            yield Profile(
                id=info.id,
                name=_name(handle, number, info),
                slices=info.sliceCount,
                instances=info.instanceCount,
                memory=info.memorySizeMB,
                sms=info.multiprocessorCount,
                placements=tuple(or_none(_placements, handle, info.id) or ()),
            )


def named(name: str, known: Iterable[Profile]) -> Profile | None:
    """Return the profile that a name means; None where the card has none of that kind."""
    alike = (profile for profile in known if means(name, profile.name))
    return min(alike, key=lambda profile: _distance(name, profile.name), default=None)


def means(name: str, other: str) -> bool:
    """Say whether both are names of one profile."""
    return _distance(name, other) <= NEAR


def _distance(name: str, other: str) -> float:
    """Return by what share the memory of two plain profiles of as many slices differs; more than 1 for any others."""
    if name == other:
        return 0.0
    one, two = _NAME.fullmatch(name), _NAME.fullmatch(other)
    if one is None or two is None or one["variant"] or two["variant"] or one["slices"] != two["slices"]:
        return 2.0
    return abs(int(one["memory"]) - int(two["memory"])) / max(int(one["memory"]), 1)


def _name(handle: Any, number: int, info: Any) -> str:
    told = or_none(nv.nvmlDeviceGetGpuInstanceProfileInfo, handle, number, 2)
    if told is not None and told.name:
        text = told.name.decode() if isinstance(told.name, bytes) else str(told.name)
        return text.removeprefix("MIG ").strip()
    card = or_none(nv.nvmlDeviceGetMemoryInfo, handle)
    memory = _gb(info.memorySizeMB, int(card.total)) if card is not None else ceil(info.memorySizeMB * MB / GB)
    return f"{info.sliceCount}g.{memory}gb{_VARIANTS.get(number, '')}"


def _gb(mb: int, total: int) -> int:
    """Return the memory as NVIDIA's tools name it: eighths of the card, of its memory in whole GB."""
    return round(ceil(mb * MB / total * 8) / 8 * ceil(total / GB))


def _placements(handle: Any, profile: int) -> list[tuple[int, int]]:
    number = ctypes.c_uint()
    nv.nvmlDeviceGetGpuInstancePossiblePlacements(handle, profile, None, ctypes.byref(number))
    found = (nv.c_nvmlGpuInstancePlacement_t * number.value)()
    nv.nvmlDeviceGetGpuInstancePossiblePlacements(handle, profile, found, ctypes.byref(number))
    return [(place.start, place.size) for place in found[: number.value]]
