"""All cards of all nodes and what is booked on them, kept ready for deciding over the whole fleet at once.

One rule: what is booked (``use``) is remembered by node, vendor and uuid, whether or not the card is there; the columns
follow it. So a booking outlives its card and counts again when the card returns. Knows no pod, and decides nothing.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence

import numpy as np
from msgspec import Struct, structs

from hami_model.catalog import Catalog
from hami_model.charge import Card, Charge, Charges
from hami_model.columns import NOBODY, Cards
from hami_model.cutting import EVERYWHERE, slices
from hami_model.device import Device
from hami_model.objects import Node
from hami_model.rows import Ints
from hami_model.selectors import listed
from hami_model.vendor import NodeMarks, Vendor

_FIRST_NODES = 64
_SUMS = 3
"""Slots, cores, memory: the order in which a node's score adds them."""


class Standing(Struct, frozen=True, kw_only=True):
    """What is known of a node beside its cards."""

    marks: dict[str, NodeMarks] = {}
    """By vendor word; absent = nothing marked."""
    unready: frozenset[str] = frozenset()
    """Vendors whose agent or plugin is gone: their cards take no pods."""
    unhealthy: frozenset[str] = frozenset()
    """Uuids that the node called unhealthy since it listed its cards."""


UNKNOWN = Standing()
UNMARKED = NodeMarks()


class Fleet:
    """Columns of cards by vendor, sums by node, and the bookings they are made of."""

    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog
        self.cards: dict[str, Cards] = {word: Cards() for word in catalog.words}
        self.ids: dict[str, int] = {}
        self.total: Ints = np.zeros((_FIRST_NODES, _SUMS), dtype=np.int64)
        self.used: Ints = np.zeros((_FIRST_NODES, _SUMS), dtype=np.int64)
        self._names: list[str] = [""]
        self._free_ids: list[int] = []
        self._standing: dict[str, Standing] = {}
        self._booked: dict[str, dict[Card, Charge]] = {}
        self._indexes: dict[tuple[str, Card], int] = {}
        """Of cards that their nodes list in two forms; kept, like bookings, while a node does not list them."""

    # What is there

    @property
    def nodes(self) -> tuple[str, ...]:
        """Return the names of the nodes that have cards."""
        return tuple(self.ids)

    @property
    def capacity(self) -> int:
        """Return one more than the largest node id: the length of anything indexed by node id."""
        return len(self._names)

    def name(self, node_id: int) -> str:
        """Return the node's name."""
        return self._names[node_id]

    def devices(self, node: str) -> tuple[Device, ...]:
        """Return a node's devices, vendor by vendor in the catalog's order, each in the order of the node's list."""
        node_id = self.ids.get(node, NOBODY)
        return tuple(device for cards in self.cards.values() for device in cards.of(node_id).devices)

    def use(self, node: str) -> Mapping[Card, Charge]:
        """Return what is booked on the node, on cards that are not there at present too."""
        return self._booked.get(node, {})

    @property
    def uses(self) -> Mapping[str, Mapping[Card, Charge]]:
        """Return what is booked on every node, as ``use`` does on one."""
        return self._booked

    def drift(self, node: str) -> Mapping[Card, Charge]:
        """Return what is booked on cards that the node does not list, or lists with less memory or fewer slots."""
        here = {(d.vendor, d.id): Charge(slots=d.slots, memory=d.memory) for d in self.devices(node)}
        return {card: booked for card, booked in self.use(node).items() if _exceeds(booked, here.get(card, Charge()))}

    def standing(self, node: str) -> Standing:
        """Return what is known of the node beside its cards."""
        return self._standing.get(node, UNKNOWN)

    def marks(self, node: str, word: str) -> NodeMarks:
        """Return what the node's annotations say of one vendor."""
        return self.standing(node).marks.get(word, UNMARKED)

    def is_ready(self, node: str, word: str) -> bool:
        """Say whether somebody alive serves the vendor's cards on the node."""
        return word not in self.standing(node).unready

    # What changes

    def set_devices(self, node: str, word: str, devices: Sequence[Device]) -> None:
        """Replace the cards of one vendor on a node by those that it lists now; none = the vendor is gone from it."""
        if not devices:
            self.drop(node, word)
            return
        node_id, vendor = self._id(node), self.catalog.by_word(word)
        groups = [vendor.group and vendor.group(device) for device in devices]
        cuts = [vendor.parts and vendor.parts(device) for device in devices]
        self.cards[word].put(node_id, devices, groups, cuts)
        if vendor.other_form:
            self._indexes |= {(node, (word, device.id)): device.index for device in devices}
            self._refresh(node, vendor.other_form)
        self._refresh(node, word)
        self._add_up(node_id)

    def drop(self, node: str, word: str | None = None) -> None:
        """Forget a node's cards of one vendor, or the whole node; bookings stay."""
        node_id = self.ids.get(node, NOBODY)
        if word is None:
            self._standing.pop(node, None)
        left = [cards for cards in (self.cards.values() if word is None else (self.cards[word],)) if cards.has(node_id)]
        if not left:
            return
        for cards in left:
            cards.remove(node_id)
        self._add_up(node_id)
        if not any(cards.has(node_id) for cards in self.cards.values()):
            self._free(node, node_id)

    def set_node(self, node: Node) -> None:
        """Take note of what the node's annotations say beside the inventory, such as cordoned cards."""
        name = node.metadata.name
        read = {vendor.word: _marks(vendor, node) for vendor in self.catalog.vendors}
        self._note(name, marks={word: marks for word, marks in read.items() if marks != UNMARKED})

    def set_ready(self, node: str, word: str, *, ready: bool) -> None:
        """Take note that nobody serves a vendor's cards on the node any more, or that somebody does again."""
        unready = self.standing(node).unready
        self._note(node, unready=unready - {word} if ready else unready | {word})

    def set_unhealthy(self, node: str, uuids: Collection[str]) -> None:
        """Take note of the cards that the node calls unhealthy now; all others are as its list of cards says."""
        self._note(node, unhealthy=frozenset(uuids))

    def charge(self, node: str, charges: Charges) -> None:
        """Add to what is booked on the node's cards."""
        booked = self._booked.setdefault(node, {})
        for card, more in charges.items():
            booked[card] = booked.get(card, Charge()) + more
            self._count(node, card, more, sign=1)
        self._tell_other_forms(node, charges)

    def discharge(self, node: str, charges: Charges) -> None:
        """Take back what ``charge`` added."""
        booked = self._booked.get(node, {})
        for card, less in charges.items():
            rest = booked.get(card, Charge()) - less
            booked[card] = rest
            if rest == Charge():
                del booked[card]
            self._count(node, card, less, sign=-1)
        if not booked:
            self._booked.pop(node, None)
        self._tell_other_forms(node, charges)

    def snapshot(self) -> "Fleet":
        """Return a copy for what-ifs that changes on its own."""
        twin = Fleet.__new__(Fleet)
        twin.catalog = self.catalog
        twin.cards = {word: cards.copy() for word, cards in self.cards.items()}
        twin.ids, twin._names, twin._free_ids = self.ids.copy(), self._names.copy(), self._free_ids.copy()
        twin.total, twin.used = self.total.copy(), self.used.copy()
        twin._standing = self._standing.copy()
        twin._booked = {node: booked.copy() for node, booked in self._booked.items()}
        twin._indexes = self._indexes.copy()
        return twin

    # How the columns follow

    def _note(self, node: str, **known: object) -> None:
        before = self.standing(node)
        after = structs.replace(before, **known)
        if after == before:
            return
        self._standing[node] = after
        for word in self.cards:
            self._refresh(node, word)

    def _refresh(self, node: str, word: str) -> None:
        """Write what changes without a new list of cards: health, cordon, use."""
        node_id, cards = self.ids.get(node, NOBODY), self.cards[word]
        standing, booked = self.standing(node), self.use(node)
        marks, ready = self.marks(node, word), self.is_ready(node, word)
        elsewhere = self._used_elsewhere(node, word)
        for row in range(*cards.span(node_id)):
            device = cards.devices[row]
            if device is None:
                continue
            used = booked.get((word, device.id), Charge())
            cards.healthy[row] = ready and device.healthy and device.id not in standing.unhealthy
            cards.cordoned[row] = device.id in marks.cordoned
            cards.soft_split[row] = marks.soft_split
            cards.used_slots[row], cards.used_cores[row], cards.used_memory[row] = used.slots, used.cores, used.memory
            cards.taken[row], cards.guests[row] = _taken(used), used.guests
            cards.elsewhere[row] = elsewhere[device.index]

    def _used_elsewhere(self, node: str, word: str) -> Counter[int | None]:
        """Count the pods on the node's cards in their other form, by the cards' indexes."""
        other, found = self.catalog.by_word(word).other_form, Counter[int | None]()
        for card, booked in self.use(node).items() if other else ():
            if card[0] == other:
                found[self._indexes.get((node, card))] += booked.slots
        return found

    def _tell_other_forms(self, node: str, charges: Charges) -> None:
        for word in {word for word, _ in charges}:
            vendor = self.catalog.find(word)
            if vendor is not None and vendor.other_form in self.cards:
                self._refresh(node, vendor.other_form)

    def _count(self, node: str, card: Card, change: Charge, *, sign: int) -> None:
        word, uuid = card
        node_id, cards = self.ids.get(node, NOBODY), self.cards.get(word)
        row = cards.rows.get((node_id, uuid)) if cards is not None else None
        if cards is None or row is None:
            return
        cards.used_slots[row] += sign * change.slots
        cards.used_cores[row] += sign * change.cores
        cards.used_memory[row] += sign * change.memory
        cards.guests[row] += sign * change.guests
        if cards.cut[row]:
            cards.taken[row] = _taken(self.use(node).get(card, Charge()))
        self.used[node_id] += (sign * change.slots, sign * change.cores, sign * change.memory)

    def _add_up(self, node_id: int) -> None:
        rows = [cards.of(node_id) for cards in self.cards.values() if cards.has(node_id)]
        self.total[node_id] = [
            sum(int(getattr(r, column).sum()) for r in rows) for column in ("slots", "cores", "memory")
        ]
        self.used[node_id] = [
            sum(int(getattr(r, column).sum()) for r in rows) for column in ("used_slots", "used_cores", "used_memory")
        ]

    def _id(self, node: str) -> int:
        if node in self.ids:
            return self.ids[node]
        node_id = self._free_ids.pop() if self._free_ids else len(self._names)
        if node_id == len(self._names):
            self._names.append(node)
        self._names[node_id] = node
        self.ids[node] = node_id
        if node_id >= len(self.total):
            room = np.zeros_like(self.total)
            self.total, self.used = np.concatenate([self.total, room]), np.concatenate([self.used, room])
        return node_id

    def _free(self, node: str, node_id: int) -> None:
        del self.ids[node]
        self._names[node_id] = ""
        self._free_ids.append(node_id)


def _taken(used: Charge) -> int:
    """Return the slices of a card that is cut into parts: all of them, where somebody is on it and no part is known."""
    return slices([EVERYWHERE.placement] if used.slots and not used.placements else used.placements)


def _exceeds(booked: Charge, listed: Charge) -> bool:
    """Say whether more is booked than listed; cores are not asked, since not every vendor's pods count them."""
    return booked.slots > listed.slots or booked.memory > listed.memory


def _marks(vendor: Vendor, node: Node) -> NodeMarks:
    text = node.annotations.get(vendor.keys.cordon) if vendor.keys.cordon else None
    return NodeMarks(
        cordoned=frozenset(listed(text) or ()),
        soft_split=vendor.soft_split is not None and vendor.soft_split(vendor, node),
    )
