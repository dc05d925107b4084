"""The cards of one vendor over the whole fleet, as columns: what the checks look at.

One rule: a node's cards are one unbroken range of rows, in the order in which the node lists them. A row whose node is
``NOBODY`` is free. Nothing here knows what a check is, or a vendor.
"""

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from hami_model.cutting import Parts
from hami_model.device import Device
from hami_model.rows import Floats, Ints, Mask, Rows
from hami_model.sizes import Sizes

NOBODY = 0
"""The node id that no node has."""

_NUMBERS = (
    "node", "memory", "cores", "slots", "used_memory", "used_cores", "used_slots", "numa", "index", "model", "mode",
    "group", "cut", "taken", "size", "guests", "elsewhere",
)  # fmt: skip
_KNOWN = ("spans", "devices", "ids", "links", "rows", "models", "modes", "cuts", "cut_nodes", "size_lists")
_FLAGS = ("healthy", "cordoned", "soft_split")
_FIRST_ROWS = 64
_MOST_SCORE = 2**31
"""A pair of cards that a node scores higher than this is scored so high."""
UNKNOWN_GROUP = -1


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
    group: Ints
    """Which of its node's groups of well-connected cards it belongs to, or ``UNKNOWN_GROUP``."""
    cut: Ints
    """Position in ``cuts``; 0 = the card is not cut into parts."""
    taken: Ints
    """Which slices of a card that is cut into parts are taken: a mask."""
    size: Ints
    """Position in ``size_lists``."""
    guests: Ints
    """What the pods on it are, where their vendor tells them apart: its counters, added up."""
    elsewhere: Ints
    """How many pods have the same card in its other form (``Vendor.other_form``)."""
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
        self.spans: Ints = np.zeros((_FIRST_ROWS, 2), dtype=np.int64)
        """By node id: its first row, and the one after its last."""
        self.links: dict[int, Floats] = {}
        """Pair scores of the nodes that know any: [card, other card]."""
        self.rows: dict[tuple[int, str], int] = {}
        self.models: dict[str, int] = {}
        self.modes: dict[str, int] = {}
        self.cuts: dict[Parts | None, int] = {None: 0}
        """Every different way in which cards are cut."""
        self.cut_nodes: Mask = np.zeros(_FIRST_ROWS, dtype=np.bool_)
        """By node id, as ``spans``: whether it has a card that is cut into parts."""
        self.size_lists: dict[Sizes, int] = {(): 0}
        """Every different list of sizes of shares that cards give."""
        self.dead = 0

    def __len__(self) -> int:
        return len(self.devices)

    @property
    def gives_parts(self) -> bool:
        """Say whether there may be cards that are cut into parts."""
        return len(self.cuts) > 1

    def copy(self) -> "Cards":
        """Return a copy that changes on its own."""
        twin = Cards.__new__(Cards)
        for name in (*_NUMBERS, *_FLAGS, *_KNOWN):
            setattr(twin, name, getattr(self, name).copy())
        twin.dead = self.dead
        return twin

    def all(self) -> Rows:
        """Return every row, free ones too: their node is ``NOBODY``."""
        return Rows(self, slice(0, len(self)))

    def of(self, node: int) -> Rows:
        """Return one node's rows."""
        return Rows(self, slice(*self.span(node)))

    def span(self, node: int) -> tuple[int, int]:
        """Return a node's first row, and the one after its last."""
        if node >= len(self.spans):
            return 0, 0
        start, stop = self.spans[node].tolist()
        return start, stop

    def among(self, nodes: Ints) -> Rows:
        """Return the rows of several nodes, node after node."""
        starts, sizes = self._starts(nodes), self.sizes(nodes)
        ends = np.cumsum(sizes)
        where: Ints = np.arange(int(sizes.sum())) + np.repeat(starts - ends + sizes, sizes)
        return Rows(self, where)

    def table(self, nodes: Ints) -> Rows:
        """Return the rows of several nodes that have equally many cards, as [node, card]."""
        size = int(self.sizes(nodes[:1]).sum())
        where: Ints = self._starts(nodes)[:, np.newaxis] + np.arange(size)
        return Rows(self, where)

    def are_cut(self, nodes: Ints) -> Mask:
        """Say which nodes have a card that is cut into parts."""
        found: Mask = self.cut_nodes[self._known(nodes)]
        return found

    def sizes(self, nodes: Ints) -> Ints:
        """Return how many cards each node has."""
        spans = self.spans[self._known(nodes)]
        sizes: Ints = spans[:, 1] - spans[:, 0]
        return sizes

    def has(self, node: int) -> bool:
        """Say whether the node lists any card."""
        start, stop = self.span(node)
        return stop > start

    def links_of(self, nodes: Ints) -> Floats:
        """Return pair scores as [node, card, other card], for nodes that have equally many cards."""
        size = int(self.sizes(nodes[:1]).sum())
        none = np.zeros((size, size), dtype=np.float64)
        found: Floats = np.concatenate([self.links.get(node, none) for node in nodes.tolist()])
        return found.reshape(len(nodes), size, size)

    def put(
        self,
        node: int,
        devices: Sequence[Device],
        groups: Sequence[Hashable],
        cuts: Sequence[Parts | None] = (),
    ) -> None:
        """Replace a node's cards. Uses start at 0: the caller charges what it remembers.

        ``groups``: for each card the name of its group, ``None`` where it is unknown. ``cuts``: for each card its
        parts, ``None`` where it is not cut; empty = no card is.
        """
        if not self._listed(node, devices):
            self.remove(node)
            self._append(node, devices)
        numbers: dict[Hashable, int] = {None: UNKNOWN_GROUP}
        for row, (device, group) in enumerate(zip(devices, groups, strict=True), self.span(node)[0]):
            self._write(row, device)
            self.group[row] = numbers.setdefault(group, len(numbers))
        for row, parts in enumerate(cuts, self.span(node)[0]):
            self.cut[row] = self.cuts.setdefault(parts, len(self.cuts))
        if node < len(self.cut_nodes):
            self.cut_nodes[node] = any(parts is not None for parts in cuts)
        self.links.pop(node, None)
        if any(device.links for device in devices):
            self.links[node] = _links(devices)

    def remove(self, node: int) -> None:
        """Forget a node's cards."""
        start, stop = self.span(node)
        if stop == start:
            return
        for row in range(start, stop):
            device = self.devices[row]
            if device is not None:
                self.rows.pop((node, device.id), None)
            self.devices[row], self.ids[row] = None, ""
        for name in (*_NUMBERS, *_FLAGS):
            getattr(self, name)[start:stop] = 0
        self.spans[node] = 0
        self.cut_nodes[node] = False
        self.links.pop(node, None)
        self.dead += stop - start
        if self.dead > max(_FIRST_ROWS, len(self) // 2):
            self._compact()

    def _known(self, nodes: Ints) -> Ints:
        """Return the same nodes, with ``NOBODY`` for those that never had a card of this vendor."""
        known: Ints = np.where(nodes < len(self.spans), nodes, NOBODY)
        return known

    def _starts(self, nodes: Ints) -> Ints:
        starts: Ints = self.spans[self._known(nodes), 0]
        return starts

    def _listed(self, node: int, devices: Sequence[Device]) -> bool:
        start, stop = self.span(node)
        return stop > start and self.ids[start:stop] == [device.id for device in devices]

    def _append(self, node: int, devices: Sequence[Device]) -> None:
        start = len(self)
        self._grow(start + len(devices))
        self.devices.extend(devices)
        self.ids.extend(device.id for device in devices)
        if node >= len(self.spans):
            self.spans = _longer(self.spans, node + 1)
            self.cut_nodes = _longer(self.cut_nodes, node + 1)
        self.spans[node] = start, len(self)
        self.node[start : len(self)] = node
        for row, device in enumerate(devices, start):
            self.rows.setdefault((node, device.id), row)

    def _write(self, row: int, device: Device) -> None:
        self.devices[row] = device
        self.memory[row], self.cores[row], self.slots[row] = device.memory, device.cores, device.slots
        self.used_memory[row] = self.used_cores[row] = self.used_slots[row] = self.taken[row] = self.cut[row] = 0
        self.guests[row] = self.elsewhere[row] = 0
        self.numa[row], self.index[row] = device.numa, device.index
        self.model[row] = self.models.setdefault(device.model, len(self.models))
        self.mode[row] = self.modes.setdefault(device.mode, len(self.modes))
        self.size[row] = self.size_lists.setdefault(device.sizes, len(self.size_lists))
        self.healthy[row], self.cordoned[row], self.soft_split[row] = device.healthy, False, False

    def _grow(self, rows: int) -> None:
        if rows > len(self.node):
            for name in (*_NUMBERS, *_FLAGS):
                setattr(self, name, _longer(getattr(self, name), rows))

    def _compact(self) -> None:
        """Close the gaps; the order of nodes and of their cards stays."""
        is_live = self.node[: len(self)] != NOBODY
        live = np.flatnonzero(is_live)
        for name in (*_NUMBERS, *_FLAGS):
            column = getattr(self, name)
            column[: len(live)] = column[live]
            column[len(live) :] = 0
        self.devices = [self.devices[row] for row in live]
        self.ids = [self.ids[row] for row in live]
        self.dead = 0
        moved = np.concatenate([[0], np.cumsum(is_live)])
        self.rows = {key: int(moved[row]) for key, row in self.rows.items()}
        self.spans = moved[self.spans]


def _longer(column: npt.NDArray[Any], rows: int) -> npt.NDArray[Any]:
    """Return the column with room for so many rows, and some to spare."""
    new = np.zeros((max(rows, 2 * len(column)), *column.shape[1:]), dtype=column.dtype)
    new[: len(column)] = column
    return new


def _links(devices: Sequence[Device]) -> Floats:
    """Return pair scores as [card, other card]; a missing one, and a card's with itself, is 0."""
    found: Floats = np.zeros((len(devices), len(devices)), dtype=np.float64)
    places = {device.id: at for at, device in enumerate(devices)}
    for at, device in enumerate(devices):
        for uuid, score in device.links.items():
            to = places.get(uuid, at)
            if to != at:
                found[at, to] = max(min(score, _MOST_SCORE), -_MOST_SCORE)
    return found
