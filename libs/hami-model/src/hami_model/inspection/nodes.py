"""What is wrong with what nodes publish, and with the locks on them.

One rule: what a node says is believed of that node alone; the same card on two nodes is one too many.
"""

from collections.abc import Iterator, Mapping, Sequence

from msgspec import Struct

from hami_model.catalog import Catalog
from hami_model.inspection import reading, rules
from hami_model.inspection.findings import Finding
from hami_model.inspection.pods import has_ended, is_unconfirmed, name_of, vendors_asked
from hami_model.inspection.reading import Card
from hami_model.keys import is_served
from hami_model.objects import Node, Pod
from hami_model.units import rounded_up
from hami_model.vendor import MUTEX_LOCK, Vendor

CardPlace = tuple[str, str, str]
"""(node, vendor word, card)."""


def registered(nodes: Sequence[Node], catalog: Catalog) -> tuple[dict[CardPlace, Card], list[Finding]]:
    """Return every card that any node registers, and what is wrong with what nodes register."""
    found: dict[CardPlace, Card] = {}
    findings: list[Finding] = []
    homes: dict[tuple[str, str], str] = {}
    for node in nodes:
        name = node.metadata.name
        for vendor in catalog.vendors:
            try:
                cards = reading.cards(vendor, node)
            except reading.Unreadable as error:
                key = vendor.keys.register or f"the capacity of {vendor.resources.cores}"
                says = f"{key} of node {name} cannot be read: {error}"
                findings.append(rules.REGISTER_UNREADABLE.broken(says, node=name))
                continue
            found |= {(name, vendor.word, card.id): card for card in cards}
            findings += [*_elsewhere(vendor, name, cards, homes), *_unserved(vendor, node, cards)]
    return found, findings


def _elsewhere(
    vendor: Vendor, node: str, cards: Sequence[Card], homes: dict[tuple[str, str], str]
) -> Iterator[Finding]:
    for card in () if vendor.ids_are_local else cards:
        home = homes.setdefault((vendor.word, card.id), node)
        if home != node:
            says = f"nodes {home} and {node} both register {vendor.word} card {card.id}"
            yield rules.CARD_TWICE.broken(says, node=node, card=card.id)


def _unserved(vendor: Vendor, node: Node, cards: Sequence[Card]) -> Iterator[Finding]:
    if not cards:
        return
    name, count = node.metadata.name, vendor.resources.count
    handshake = node.annotations.get(vendor.keys.handshake, "") if vendor.keys.handshake else ""
    offered = rounded_up((node.status.allocatable or {}).get(count, 0)) or 0
    if handshake.startswith("Deleted"):
        says = f"{vendor.keys.handshake} of node {name} says {handshake}, yet {len(cards)} cards are registered"
        yield rules.PLUGIN_GONE.broken(says, node=name)
    elif not offered:
        says = f"node {name} registers {len(cards)} {vendor.word} cards and its kubelet offers no {count}"
        yield rules.PLUGIN_GONE.broken(says, node=name)


def lock_findings(
    nodes: Sequence[Node], pods: Mapping[tuple[str, str], Pod], catalog: Catalog, *, now: float
) -> Iterator[Finding]:
    """Yield what is wrong with the locks on the nodes; ``pods`` by namespace and name."""
    unserved = [p for p in pods.values() if not has_ended(p) and (not p.spec.node_name or is_unconfirmed(p))]
    keys = dict.fromkeys([MUTEX_LOCK.key, *(v.lock.key for v in catalog.vendors if v.lock)])
    for node in nodes:
        for key in keys:
            text = node.annotations.get(key)
            if text is not None:
                yield from _Lock(node.metadata.name, key, text, catalog).findings(pods, unserved, now)


class _Lock(Struct, frozen=True):
    """One lock annotation of one node."""

    node: str
    key: str
    text: str
    catalog: Catalog

    def findings(self, pods: Mapping[tuple[str, str], Pod], unserved: Sequence[Pod], now: float) -> Iterator[Finding]:
        """Yield what is wrong with this lock."""
        about = f"{self.key} of node {self.node}"
        try:
            since, owner = reading.lock(self.text)
        except reading.Unreadable as error:
            yield rules.LOCK_UNREADABLE.broken(f"{about} is {self.text!r}: {error}", node=self.node)
            return
        age = now - since
        if age < -rules.AHEAD:
            yield rules.AHEAD_OF_TIME.broken(f"{about} is {-age:.0f} s ahead", node=self.node)
        pod = pods.get((owner[0], owner[1])) if owner else None
        why = self._why_left(pod, age) if owner else self._why_unclaimed(unserved, age)
        holder = f"{owner[0]}/{owner[1]}" if owner else ""
        if why:
            yield rules.LOCK_LEFT.broken(f"{about} was left behind {age:.0f} s ago: {why}", node=self.node, pod=holder)
        elif age > rules.STUCK_AFTER:
            says = f"{about} stands for {age:.0f} s"
            yield rules.LOCK_OLD.broken(says, node=self.node, pod=holder)

    def _why_left(self, pod: Pod | None, age: float) -> str:
        if pod is None:
            return "its pod is gone"
        if has_ended(pod):
            return f"pod {name_of(pod)} is {pod.status.phase}"
        if pod.spec.node_name not in (None, "", self.node):
            return f"pod {name_of(pod)} runs on node {pod.spec.node_name}"
        if not pod.spec.node_name:
            return f"pod {name_of(pod)} is not bound yet" if age > rules.BINDING_TAKES else ""
        served = [v.confirmed(pod) for v in self._vendors(pod)]
        return f"pod {name_of(pod)} has been served" if is_served(pod) or (served and all(served)) else ""

    def _why_unclaimed(self, unserved: Sequence[Pod], age: float) -> str:
        ours = [pod for pod in unserved if pod.spec.node_name in (None, "", self.node) and self._vendors(pod)]
        is_bound = any(pod.spec.node_name for pod in ours)
        return "" if is_bound or (ours and age <= rules.BINDING_TAKES) else "no pod there waits for its devices"

    def _vendors(self, pod: Pod) -> list[Vendor]:
        return [v for v in vendors_asked(pod, self.catalog) if v.lock is not None and v.lock.key == self.key]
