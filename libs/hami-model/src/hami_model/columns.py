"""The cards of one vendor over the whole fleet, as columns: what the checks look at.

One rule: a node's cards are one unbroken range of rows, in the order in which the node lists them. A row whose node is
``NOBODY`` is free. Nothing here knows what a check is, or a vendor.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from hami_model.device import Device

Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
Where = slice | Ints

NOBODY = 0
"""The node id that no node has."""

_NUMBERS = (
    "node", "memory", "cores", "slots", "used_memory", "used_cores", "used_slots", "numa", "index", "model", "mode",
)  # fmt: skip
_FLAGS = ("healthy", "cordoned", "soft_split")
_FIRST_ROWS = 64


class Cards:
    """All cards of one vendor. Columns are public to read; only ``Fleet`` writes."""

    node: Ints
    memory: Ints
    cores: Ints
    slots: Ints
    used_memory: Ints
    used_cores: Ints
    used_slots: Ints
    numa: Ints
    index: Ints
    model: Ints
    """Position in ``models``."""
    mode: Ints
    """Position in ``modes``."""
    healthy: Mask
    cordoned: Mask
    soft_split: Mask

    def __init__(self) -> None:
        for name in _NUMBERS:
            setattr(self, name, np.zeros(_FIRST_ROWS, dtype=np.int64))
        for name in _FLAGS:
            setattr(self, name, np.zeros(_FIRST_ROWS, dtype=np.bool_))
        self.devices: list[Device | None] = []
        self.ids: list[str] = []
        self.ranges: dict[int, tuple[int, int]] = {}
        self.rows: dict[tuple[int, str], int] = {}
        self.models: dict[str, int] = {}
        self.modes: dict[str, int] = {}
        self.dead = 0

    def __len__(self) -> int:
        return len(self.devices)

    def copy(self) -> "Cards":
        """Return a copy that changes on its own."""
        twin = Cards.__new__(Cards)
        for name in (*_NUMBERS, *_FLAGS):
            setattr(twin, name, getattr(self, name).copy())
        for name in ("devices", "ids", "ranges", "rows", "models", "modes"):
            setattr(twin, name, getattr(self, name).copy())
        twin.dead = self.dead
        return twin

    def all(self) -> "Rows":
        """Return every row, free ones too: their node is ``NOBODY``."""
        return Rows(self, slice(0, len(self)))

    def of(self, node: int) -> "Rows":
        """Return one node's rows."""
        return Rows(self, slice(*self.ranges.get(node, (0, 0))))

    def among(self, nodes: Sequence[int]) -> "Rows":
        """Return the rows of several nodes, node after node."""
        spans = [np.arange(*self.ranges[node]) for node in nodes if node in self.ranges]
        return Rows(self, np.concatenate(spans) if spans else np.zeros(0, dtype=np.int64))

    def put(self, node: int, devices: Sequence[Device]) -> None:
        """Replace a node's cards. Uses start at 0: the caller charges what it remembers."""
        if not self._listed(node, devices):
            self.remove(node)
            self._append(node, devices)
        start, _ = self.ranges[node]
        for row, device in enumerate(devices, start):
            self._write(row, device)

    def remove(self, node: int) -> None:
        """Forget a node's cards."""
        start, stop = self.ranges.pop(node, (0, 0))
        for row in range(start, stop):
            device = self.devices[row]
            if device is not None:
                self.rows.pop((node, device.id), None)
            self.devices[row], self.ids[row] = None, ""
        for name in (*_NUMBERS, *_FLAGS):
            getattr(self, name)[start:stop] = 0
        self.dead += stop - start
        if self.dead > max(_FIRST_ROWS, len(self) // 2):
            self._compact()

    def _listed(self, node: int, devices: Sequence[Device]) -> bool:
        start, stop = self.ranges.get(node, (0, 0))
        return node in self.ranges and self.ids[start:stop] == [device.id for device in devices]

    def _append(self, node: int, devices: Sequence[Device]) -> None:
        start = len(self)
        self._grow(start + len(devices))
        self.devices.extend(devices)
        self.ids.extend(device.id for device in devices)
        self.ranges[node] = (start, len(self))
        self.node[start : len(self)] = node
        for row, device in enumerate(devices, start):
            self.rows.setdefault((node, device.id), row)

    def _write(self, row: int, device: Device) -> None:
        self.devices[row] = device
        self.memory[row], self.cores[row], self.slots[row] = device.memory, device.cores, device.slots
        self.used_memory[row] = self.used_cores[row] = self.used_slots[row] = 0
        self.numa[row], self.index[row] = device.numa, device.index
        self.model[row] = self.models.setdefault(device.model, len(self.models))
        self.mode[row] = self.modes.setdefault(device.mode, len(self.modes))
        self.healthy[row], self.cordoned[row], self.soft_split[row] = device.healthy, False, False

    def _grow(self, rows: int) -> None:
        room = len(self.node)
        if rows <= room:
            return
        for name in (*_NUMBERS, *_FLAGS):
            old = getattr(self, name)
            new = np.zeros(max(rows, 2 * room), dtype=old.dtype)
            new[:room] = old
            setattr(self, name, new)

    def _compact(self) -> None:
        """Close the gaps; the order of nodes and of their cards stays."""
        live = np.flatnonzero(self.node[: len(self)] != NOBODY)
        for name in (*_NUMBERS, *_FLAGS):
            column = getattr(self, name)
            column[: len(live)] = column[live]
            column[len(live) :] = 0
        self.devices = [self.devices[row] for row in live]
        self.ids = [self.ids[row] for row in live]
        self.dead = 0
        moved = {int(old): new for new, old in enumerate(live)}
        self.rows = {key: moved[row] for key, row in self.rows.items()}
        starts = {node: moved[start] if stop > start else 0 for node, (start, stop) in self.ranges.items()}
        self.ranges = {n: (starts[n], starts[n] + stop - start) for n, (start, stop) in self.ranges.items()}


class Rows:
    """Some rows of ``Cards``: one node, a few, or all. ``scratch`` gives uses that may be changed freely."""

    __slots__ = ("cards", "paid_cores", "paid_memory", "used_cores", "used_memory", "used_slots", "where")

    def __init__(self, cards: Cards, where: Where) -> None:
        self.cards = cards
        self.where = where
        self.used_memory = cards.used_memory[where]
        self.used_cores = cards.used_cores[where]
        self.used_slots = cards.used_slots[where]
        self.paid_memory: Ints | int = 0
        """What the pod's quota already pays for on each card and nobody uses now: room left by an init container."""
        self.paid_cores: Ints | int = 0

    def __len__(self) -> int:
        return len(self.used_slots)

    def scratch(self) -> "Rows":
        """Return the same rows with uses of their own."""
        twin = Rows(self.cards, self.where)
        twin.used_memory, twin.used_cores = twin.used_memory.copy(), twin.used_cores.copy()
        twin.used_slots = twin.used_slots.copy()
        return twin

    def paid_on(self, position: int) -> tuple[int, int]:
        """Return what the pod's quota already pays for on one card: memory and cores."""
        memory, cores = self.paid_memory, self.paid_cores
        return (
            memory if isinstance(memory, int) else int(memory[position]),
            cores if isinstance(cores, int) else int(cores[position]),
        )

    @property
    def node(self) -> Ints:
        """Node ids."""
        return self.cards.node[self.where]

    @property
    def memory(self) -> Ints:
        """MiB."""
        return self.cards.memory[self.where]

    @property
    def cores(self) -> Ints:
        """Percent of a card."""
        return self.cards.cores[self.where]

    @property
    def slots(self) -> Ints:
        """How many pods may share the card."""
        return self.cards.slots[self.where]

    @property
    def numa(self) -> Ints:
        """NUMA nodes."""
        return self.cards.numa[self.where]

    @property
    def index(self) -> Ints:
        """Positions on the node, as the driver counts."""
        return self.cards.index[self.where]

    @property
    def healthy(self) -> Mask:
        """Usable, and reported by somebody alive."""
        return self.cards.healthy[self.where]

    @property
    def cordoned(self) -> Mask:
        """Closed to new pods."""
        return self.cards.cordoned[self.where]

    @property
    def soft_split(self) -> Mask:
        """The node splits cards in software."""
        return self.cards.soft_split[self.where]

    @property
    def model(self) -> Ints:
        """Positions in ``cards.models``."""
        return self.cards.model[self.where]

    @property
    def mode(self) -> Ints:
        """Positions in ``cards.modes``."""
        return self.cards.mode[self.where]

    @property
    def free_memory(self) -> Ints:
        """MiB not booked; 0 where more is booked than the card has (now)."""
        free: Ints = np.maximum(self.memory - self.used_memory, 0)
        return free

    @property
    def entries(self) -> list[Device | None]:
        """The devices themselves, row by row; a free row has none."""
        devices = self.cards.devices
        return devices[self.where] if isinstance(self.where, slice) else [devices[row] for row in self.where]

    @property
    def ids(self) -> list[str]:
        """Uuids, row by row; a free row has none."""
        ids = self.cards.ids
        return ids[self.where] if isinstance(self.where, slice) else [ids[row] for row in self.where]

    @property
    def devices(self) -> list[Device]:
        """The devices themselves, free rows left out."""
        return [device for device in self.entries if device is not None]
