"""Cards described in a file: what the register annotation would say of them (vendor added).

One rule: the file is read anew at each look, so a card turns unhealthy, vanishes, or has a process, by an edit.
"""

import asyncio
from pathlib import Path
from typing import Any

import msgspec
from hami_model.device import Device, MigProfile, Placement
from hami_model.errors import MalformedInventory
from hami_model.register import check_devices
from msgspec import Struct, field

from hami_node_agent.probes.nvml.driver import CardFacts, DriverVersions, Process

MIB = 1024 * 1024


class _MigProfile(Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    name: str
    memory: int = field(name="memoryMB")
    core: int
    slice_count: int = 0
    placements: tuple[Placement, ...] = ()


class _Process(Struct, frozen=True, forbid_unknown_fields=True):
    pid: int
    memory: int | None = None
    """MiB."""


class _Card(Struct, frozen=True, forbid_unknown_fields=True):
    id: str
    vendor: str
    type: str
    count: int
    devmem: int
    devcore: int = 100
    index: int = 0
    numa: int = 0
    mode: str = ""
    health: bool = True
    migProfiles: tuple[_MigProfile, ...] = ()  # noqa: N815  the annotation's own key
    custominfo: dict[str, Any] = {}
    processes: tuple[_Process, ...] | None = None


class SimulatedProbe:
    """Reads ``cards.yaml``: a list of the register annotation's fields, plus ``vendor``, and ``processes``."""

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)
        self.facts: dict[str, CardFacts] = {}
        """Who runs on the cards of which the file says it, by id."""
        self.versions = DriverVersions()

    async def wait_news(self, seconds: float) -> None:
        """Return after so many seconds."""
        await asyncio.sleep(seconds)

    def close(self) -> None:
        """Hold nothing."""

    async def look(self) -> tuple[Device, ...]:
        """Return the cards that the file describes."""
        try:
            cards = msgspec.yaml.decode(self._path.read_bytes(), type=list[_Card])
        except OSError as e:
            raise ValueError(f"{self._path} cannot be read ({e.strerror}); name a file of cards") from e
        except (msgspec.DecodeError, ValueError) as e:
            raise ValueError(f"{self._path} is no list of cards: {' '.join(str(e).split())}") from e
        devices = tuple(_device(card) for card in cards)
        try:
            for vendor in {device.vendor for device in devices}:
                check_devices(device for device in devices if device.vendor == vendor)
        except MalformedInventory as e:
            raise ValueError(f"{self._path} describes cards that cannot be: {e}") from e
        self.facts = {
            card.id: CardFacts(processes=tuple(_process(one) for one in card.processes))
            for card in cards
            if card.processes is not None
        }
        return devices


def _process(process: _Process) -> Process:
    return Process(pid=process.pid, memory=None if process.memory is None else process.memory * MIB)


def _device(card: _Card) -> Device:
    return Device(
        id=card.id,
        vendor=card.vendor,
        index=card.index,
        slots=card.count,
        memory=card.devmem,
        cores=card.devcore,
        model=card.type,
        numa=card.numa,
        mode=card.mode,
        healthy=card.health,
        mig_profiles=tuple(_profile(p) for p in card.migProfiles),
        custom=card.custominfo,
    )


def _profile(profile: _MigProfile) -> MigProfile:
    return MigProfile(
        name=profile.name,
        memory=profile.memory,
        cores=profile.core,
        slices=profile.slice_count,
        placements=profile.placements,
    )
