"""What the driver shows of the cards, by nvidia-ml-py: plain calls that may block, or never return.

One rule: an error of the driver itself leaves here as ``DriverTrouble``, that of one card makes the card absent.
Nothing here changes a card; what does is in ``instances.py``.
"""

import ctypes
import logging
from collections.abc import Iterator
from contextlib import suppress
from itertools import combinations
from pathlib import Path
from typing import Any

import pynvml as nv
from msgspec import Struct, structs

from hami_node_agent.probes.nvml.calls import bus_id, or_none
from hami_node_agent.probes.nvml.links import End, Link
from hami_node_agent.probes.nvml.profiles import Profile, profiles

log = logging.getLogger(__name__)

LIBRARY = "libnvidia-ml.so.1"
FOLDERS = ("usr/lib64", "usr/lib/x86_64-linux-gnu", "usr/lib/aarch64-linux-gnu", "lib64", "lib/x86_64-linux-gnu",
    "lib/aarch64-linux-gnu")  # fmt: skip
"""Where distributions keep the library, below the driver's root."""

NOTHING_TO_DO, DRAIN_P2P = nv.NVML_GPU_RECOVERY_ACTION_NONE, nv.NVML_GPU_RECOVERY_ACTION_DRAIN_P2P

_GONE = (nv.NVML_ERROR_UNINITIALIZED, nv.NVML_ERROR_DRIVER_NOT_LOADED, nv.NVML_ERROR_LIB_RM_VERSION_MISMATCH)
"""The driver was taken away or replaced: NVML must be opened anew."""


class DriverTrouble(Exception):
    """The driver cannot be asked; the sentence says why and what to do."""


class Unfinished(DriverTrouble):
    """Likewise, and what was begun may be there all the same."""


class DriverVersions(Struct, frozen=True):
    """Of the driver and of its CUDA; empty = not told."""

    driver: str = ""
    cuda: str = ""


class Process(Struct, frozen=True, kw_only=True):
    """One process that has opened a card, by its number on the host; ``memory`` in bytes, None = not told."""

    pid: int
    memory: int | None = None


class CardFacts(Struct, frozen=True, kw_only=True):
    """What the driver says of a card beside what is registered; None where it does not tell.

    ``memory``: bytes in use; ``busy``, ``memory_busy``: percent of time that it computes, and that its memory is
    accessed; ``minor``: the number of its device node; ``processes``: those that compute or draw on it.
    """

    minor: int | None = None
    memory: int | None = None
    busy: int | None = None
    memory_busy: int | None = None
    processes: tuple[Process, ...] | None = None


class Card(Struct, frozen=True, kw_only=True):
    """One card as the driver shows it; ``memory`` in bytes, None where it does not tell."""

    uuid: str
    index: int
    name: str
    memory: int | None
    bus: str
    """PCI bus id, as ``00000000:3b:00.0``."""
    can_be_cut: bool = False
    """It is of a kind that has MIG."""
    is_partitioned: bool = False
    """MIG is on."""
    profiles: tuple[Profile, ...] = ()
    recovery: int | None = NOTHING_TO_DO
    """What the driver says must be done to the card; None where it cannot say."""
    facts: CardFacts = CardFacts()


class Seen(Struct, frozen=True, kw_only=True):
    """One look: every card that answers, and what connects them."""

    cards: tuple[Card, ...]
    links: dict[tuple[str, str], Link]


class Event(Struct, frozen=True):
    """An error that the driver reported; ``uuid`` None where it does not say of which card."""

    uuid: str | None
    xid: int


class Driver:
    """Asks NVML. ``look`` and ``wait_event`` may be called from two threads, each from one."""

    def __init__(self, root: Path | None = None) -> None:
        self._root = root
        self._is_open = False
        self.versions = DriverVersions()
        """As of the last opening."""
        self._events: Any = None
        self._followed: dict[str, Any] = {}
        self._links: dict[tuple[str, str], Link] = {}
        self._linked: frozenset[str] = frozenset()
        self._profiles: dict[tuple[str, bool], tuple[Profile, ...]] = {}
        """By card and whether MIG is on: they do not change, and are many calls."""

    def look(self) -> Seen:
        """Ask for everything; raise ``DriverTrouble``."""
        try:
            self._open()
            cards = dict(self._cards())
        except nv.NVMLError as e:
            if e.value in _GONE:
                self.close()
            raise trouble_of(e) from e
        self._follow({card.uuid: handle for card, handle in cards.items()})
        if (uuids := frozenset(card.uuid for card in cards)) != self._linked:
            self._links, self._linked = _links(cards), uuids
        return Seen(cards=tuple(cards), links=self._links)

    def wait_event(self, milliseconds: int) -> Event | None:
        """Wait for an error of some card; None when there was none. Raise ``DriverTrouble``."""
        events = self._events
        if events is None:
            return None
        try:
            found = nv.nvmlEventSetWait_v2(events, milliseconds)
        except nv.NVMLError as e:
            if e.value == nv.NVML_ERROR_TIMEOUT:
                return None
            raise trouble_of(e) from e
        if found.eventType != nv.nvmlEventTypeXidCriticalError:
            return None
        return Event(or_none(nv.nvmlDeviceGetUUID, found.device), int(found.eventData))

    def close(self) -> None:
        """Let go of the driver; the next look opens it anew."""
        if self._is_open:
            self._is_open, self._events, self._followed, self._profiles = False, None, {}, {}
            with suppress(nv.NVMLError):
                nv.nvmlShutdown()

    @property
    def follows_events(self) -> bool:
        """Say whether errors can be waited for."""
        return self._events is not None

    def _open(self) -> None:
        if self._is_open:
            return
        _load(self._root)
        nv.nvmlInitWithFlags(0)
        self._is_open = True
        self.versions = DriverVersions(*(or_none(ask) or "" for ask in (nv.nvmlSystemGetDriverVersion, _cuda)))
        log.info("NVIDIA driver %s, CUDA %s", self.versions.driver, self.versions.cuda)

    def _cards(self) -> Iterator[tuple[Card, Any]]:
        for index in range(nv.nvmlDeviceGetCount()):
            try:
                handle = nv.nvmlDeviceGetHandleByIndex(index)
                yield self._with_profiles(_card(handle, index), handle), handle
            except nv.NVMLError as e:
                if e.value in _GONE:
                    raise
                log.debug("card %d does not answer: %s", index, e)

    def _with_profiles(self, card: Card, handle: Any) -> Card:
        if not card.can_be_cut:
            return card
        key = card.uuid, card.is_partitioned
        if key not in self._profiles:
            self._profiles[key] = tuple(profiles(handle))
        return structs.replace(card, profiles=self._profiles[key])

    def _follow(self, handles: dict[str, Any]) -> None:
        """Have errors of these cards reported; a card that came back is registered anew."""
        try:
            if self._events is None:
                self._events = nv.nvmlEventSetCreate()
            for uuid in handles.keys() - self._followed.keys():
                wanted = nv.nvmlEventTypeXidCriticalError & nv.nvmlDeviceGetSupportedEventTypes(handles[uuid])
                if wanted:
                    nv.nvmlDeviceRegisterEvents(handles[uuid], wanted, self._events)
        except nv.NVMLError as e:
            log.warning("errors of cards are not reported by the driver: %s", e)
        self._followed = handles


def _card(handle: Any, index: int) -> Card:
    current, _pending = or_none(nv.nvmlDeviceGetMigMode, handle) or (None, None)
    memory = or_none(nv.nvmlDeviceGetMemoryInfo, handle)
    rates = or_none(nv.nvmlDeviceGetUtilizationRates, handle)
    return Card(
        uuid=nv.nvmlDeviceGetUUID(handle),
        index=index,
        name=nv.nvmlDeviceGetName(handle),
        memory=None if memory is None else int(memory.total),
        bus=bus_id(nv.nvmlDeviceGetPciInfo_v3(handle)),
        can_be_cut=current is not None,
        is_partitioned=current == nv.NVML_DEVICE_MIG_ENABLE,
        recovery=or_none(_recovery, handle),
        facts=CardFacts(
            minor=or_none(nv.nvmlDeviceGetMinorNumber, handle),
            memory=None if memory is None else int(memory.used),
            busy=None if rates is None else int(rates.gpu),
            memory_busy=None if rates is None else int(rates.memory),
            processes=_processes(handle),
        ),
    )


def _processes(handle: Any) -> tuple[Process, ...] | None:
    """Return who uses the card; None where that is not to be had, whatever the reason: the card is there."""
    try:  # by version: without one, nvidia-ml-py turns an older driver's "no such function" into an error of its own
        computing = or_none(nv.nvmlDeviceGetComputeRunningProcesses_v3, handle)
        drawing = or_none(nv.nvmlDeviceGetGraphicsRunningProcesses_v3, handle)
    except nv.NVMLError as e:
        log.debug("the driver does not tell the processes of a card: %s", e)
        return None
    if computing is None and drawing is None:
        return None
    found = {one.pid: Process(pid=one.pid, memory=one.usedGpuMemory) for one in (*(drawing or ()), *(computing or ()))}
    return tuple(found.values())


def _recovery(handle: Any) -> int | None:
    (value,) = nv.nvmlDeviceGetFieldValues(handle, [nv.NVML_FI_DEV_GET_GPU_RECOVERY_ACTION])
    return int(value.value.uiVal) if value.nvmlReturn == nv.NVML_SUCCESS else None


def _links(cards: dict[Card, Any]) -> dict[tuple[str, str], Link]:
    ends = {card.uuid: End.of(handle, card.bus) for card, handle in cards.items()}
    return {(one, other): ends[one].link(ends[other]) for one, other in combinations(ends, 2)}


def _cuda() -> str:
    version = nv.nvmlSystemGetCudaDriverVersion()
    return f"{version // 1000}.{version % 1000 // 10}"


def _load(root: Path | None) -> None:
    """Load the library from below the driver's root; nvidia-ml-py then finds it by its name."""
    found = next((path for folder in FOLDERS if root and (path := root / folder / LIBRARY).exists()), None)
    if found is not None:
        try:
            ctypes.CDLL(str(found), mode=ctypes.RTLD_GLOBAL)
        except OSError as e:
            raise DriverTrouble(f"{found} cannot be loaded ({e})") from e


def trouble_of(error: nv.NVMLError) -> DriverTrouble:
    """Say what an error of the driver means and what to do."""
    match error.value:
        case nv.NVML_ERROR_LIBRARY_NOT_FOUND:
            return DriverTrouble(
                f"{LIBRARY} is not here: give the container the driver (NVIDIA_VISIBLE_DEVICES=all and the nvidia "
                "runtime class, or HAMI_DRIVER_ROOT), or label only nodes with NVIDIA cards for this agent"
            )
        case nv.NVML_ERROR_DRIVER_NOT_LOADED:
            return DriverTrouble(
                "the NVIDIA driver is not loaded on this node: install it, or look at nvidia-smi there"
            )
        case nv.NVML_ERROR_LIB_RM_VERSION_MISMATCH:
            return DriverTrouble("the NVIDIA driver was updated under us: restart the node's agent once it is loaded")
        case _:
            return DriverTrouble(f"the NVIDIA driver says: {error}")
