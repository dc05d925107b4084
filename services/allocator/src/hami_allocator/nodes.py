"""The nodes as last seen, and what their cards are: from their annotations, or from our agent's word.

One rule: a node is judged again only when something that the judgement reads has changed. Plain code: the writer calls
it, and acts on the changes that it returns.
"""

from collections.abc import Iterable, Mapping

from hami_model.bus.messages import Drift, Heartbeat, Inventory
from hami_model.catalog import Catalog
from hami_model.device import Device
from hami_model.objects import Node
from msgspec import Struct

from hami_allocator.liveness import Handshake, Hearing, Heartbeats, counted, is_plugin_there, is_withdrawn, shake
from hami_allocator.registration import Claim, Memory, Source, agent_words, claims, is_selected, remember


class Change(Struct, frozen=True, kw_only=True):
    """One vendor's cards on one node, as they are from now on; ``claim`` None = gone."""

    node: str
    word: str
    claim: Claim | None
    ready: bool = True


class Known(Struct):
    """What is known of one node."""

    node: Node | None = None
    told: Inventory | None = None
    unhealthy: frozenset[str] = frozenset()
    holding: frozenset[str] = frozenset()
    drift: tuple[Drift, ...] = ()
    is_leaving: bool = False
    """Its agent has said that it is about to stop."""
    offered: frozenset[str] = frozenset()
    """Vendors whose devices the kubelet takes from the agent, by its own word."""
    memory: Memory = Memory()
    handshakes: dict[str, Handshake] = {}
    claims: dict[str, Claim] = {}
    ready: dict[str, bool] = {}


class Nodes:
    """All nodes by name."""

    def __init__(self, catalog: Catalog, selector: Mapping[str, str], hearing: Hearing) -> None:
        self._catalog = catalog
        self._selector = selector
        self._known: dict[str, Known] = {}
        self._timed: set[str] = set()
        """Nodes where time alone may change who is there: an agent's silence, a plugin without devices."""
        self._lock_keys = frozenset(v.lock.key for v in catalog.vendors if v.lock is not None)
        self.locked: set[str] = set()
        """Nodes whose annotations show a lock."""
        self.hearing = hearing
        self.heartbeats = Heartbeats(hearing)

    @property
    def names(self) -> tuple[str, ...]:
        """Return every node that the API server shows."""
        return tuple(name for name, known in self._known.items() if known.node is not None)

    def node(self, name: str) -> Node | None:
        """Return the node as last seen."""
        known = self._known.get(name)
        return known.node if known else None

    def known(self, name: str) -> Known | None:
        """Return all that is known of a node."""
        return self._known.get(name)

    def source(self, name: str, word: str) -> Source | None:
        """Return who serves the vendor's cards on the node."""
        known = self._known.get(name)
        claim = known.claims.get(word) if known else None
        return claim.source if claim else None

    def needs_lock(self, name: str, word: str) -> bool:
        """Say whether whoever serves the vendor there finds its pod by the lock; our agent says when it does not."""
        known = self._known.get(name)
        if known is None or self.source(name, word) is not Source.AGENT:
            return True
        return known.told is None or not known.told.identifies_pods

    def is_held(self, name: str, uid: str) -> bool:
        """Say whether a living agent says that the pod's containers still hold devices of its node."""
        known = self._known.get(name)
        return known is not None and uid in known.holding and self.heartbeats.is_alive(name)

    def drift(self, name: str) -> tuple[Drift, ...]:
        """Return what a living agent sees on its node and should not."""
        known = self._known.get(name)
        return known.drift if known is not None and self.heartbeats.is_alive(name) else ()

    def devices(self, name: str) -> tuple[Device, ...]:
        """Return all cards of a node."""
        known = self._known.get(name)
        return tuple(d for claim in known.claims.values() for d in claim.devices) if known else ()

    def unhealthy(self, name: str) -> frozenset[str]:
        """Return the cards that the node's agent calls unhealthy, of those that it serves."""
        known = self._known.get(name)
        if known is None or not known.unhealthy:
            return frozenset()
        served = (claim for claim in known.claims.values() if claim.source is Source.AGENT)
        return known.unhealthy & {device.id for claim in served for device in claim.devices}

    def saw(self, node: Node, now: float) -> tuple[Change, ...]:
        """Take note of a node; return what changed about its cards."""
        name = node.metadata.name
        before = self.node(name)
        forgotten: tuple[Change, ...] = ()
        if before is not None and before.metadata.uid != node.metadata.uid:
            forgotten, before = self.gone(name), None  # a namesake: what was told of the other is not true of it
        known = self._known.setdefault(name, Known())
        known.node = node
        (self.locked.discard if self._lock_keys.isdisjoint(node.annotations) else self.locked.add)(name)
        if before is not None and _reads_alike(before, node):
            return ()
        known.memory = remember(node, known.memory, self._catalog)
        if agent_words(node):
            self.heartbeats.expect(name)
        return (*forgotten, *self._judge(name, known, now))

    def take_up(self, now: float) -> tuple[Change, ...]:
        """Judge anew, as who leads from now on, the registrations that seemed to be written over; return what changed.

        A follower sees each registration of the leader's as one that is not its own. What a foreign plugin has written
        over, the leader before us has taken off the node's list of what our agent serves.
        """
        changes: list[Change] = []
        for name, known in self._known.items():
            if known.node is not None and known.memory.overruled:
                known.memory = remember(known.node, Memory(), self._catalog)
                changes += self._judge(name, known, now)
        return tuple(changes)

    def gone(self, name: str) -> tuple[Change, ...]:
        """Forget a node; return what changed about its cards."""
        known = self._known.pop(name, None)
        self._timed.discard(name)
        self.locked.discard(name)
        self.heartbeats.forget(name)
        return tuple(Change(node=name, word=word, claim=None) for word in known.claims) if known else ()

    def told(self, inventory: Inventory, now: float) -> tuple[Change, ...]:
        """Take note of an agent's inventory; return what changed about its node's cards."""
        known = self._known.setdefault(inventory.node, Known())
        known.told, known.is_leaving = inventory, False
        self.heartbeats.heard(inventory.node)
        return self._judge(inventory.node, known, now)

    def heard(self, beat: Heartbeat, now: float) -> tuple[Change, ...]:
        """Take note of a heartbeat; return what changed about who serves its node."""
        known = self._known.get(beat.node)
        if known is None:
            return ()
        was_there = self._is_agent_there(beat.node, known)
        self.heartbeats.heard(beat.node)
        known.unhealthy = frozenset(beat.unhealthy)
        known.holding = frozenset(beat.holding)
        known.drift = tuple(beat.drift)
        known.is_leaving = beat.leaving
        known.offered, before = frozenset(beat.offered), known.offered
        is_alike = was_there is not beat.leaving and known.offered == before
        return () if is_alike else self._judge(beat.node, known, now)

    def is_inventory_current(self, beat: Heartbeat) -> bool:
        """Say whether we have the inventory that the heartbeat names."""
        known = self._known.get(beat.node)
        return known is not None and known.told is not None and known.told.digest == beat.digest

    def tick(self, now: float) -> tuple[Change, ...]:
        """Judge again who is still there; return what changed."""
        return tuple(
            change
            for name in tuple(self._timed)
            if self._has_turned(name, known := self._known[name], now)
            for change in self._judge(name, known, now)
        )

    def _has_turned(self, name: str, known: Known, now: float) -> bool:
        """Say whether somebody came or went in silence; then who serves what there is judged anew."""
        return any(
            self._is_ready(name, known, claim, now) is not known.ready.get(word) for word, claim in known.claims.items()
        )

    def _judge(self, name: str, known: Known, now: float) -> tuple[Change, ...]:
        found = {c.word: c for c in self._claims(known, now)}
        changes = []
        for word in dict.fromkeys([*known.claims, *found]):
            claim = found.get(word)
            ready = claim is not None and self._is_ready(name, known, claim, now)
            if claim != known.claims.get(word) or ready is not known.ready.get(word):
                changes.append(Change(node=name, word=word, claim=claim, ready=ready))
            known.ready[word] = ready
        known.claims = found
        (self._timed.add if self._is_timed(known) else self._timed.discard)(name)
        return tuple(changes)

    def _is_timed(self, known: Known) -> bool:
        return any(
            claim.source is Source.AGENT
            or known.node is None
            or not counted(self._catalog.by_word(claim.word), known.node)
            for claim in known.claims.values()
        )

    def _is_agents(self, node: Node, known: Known, word: str) -> bool:
        """Say whether what the node offers of a vendor is our agent's: the kubelet takes it from one plugin at a time.

        A plugin that was there before has left its registration; one that still writes it is believed, and overrules.
        """
        is_told = word in known.offered and word not in known.memory.overruled
        return is_told and self._is_agent_there(node.metadata.name, known)

    def _is_agent_there(self, name: str, known: Known) -> bool:
        return self.heartbeats.is_alive(name) and not known.is_leaving

    def _claims(self, known: Known, now: float) -> Iterable[Claim]:
        if known.node is None or not is_selected(known.node, self._selector):
            return ()
        node = known.node
        known.handshakes = {v.word: shake(v, node, known.handshakes.get(v.word), now) for v in self._catalog.vendors}
        there = {
            v.word: is_plugin_there(v, node, known.handshakes[v.word], now) and not self._is_agents(node, known, v.word)
            for v in self._catalog.vendors
        }
        return claims(node, known.told, known.memory, self._catalog, there)

    def _is_ready(self, name: str, known: Known, claim: Claim, now: float) -> bool:
        vendor = self._catalog.by_word(claim.word)
        if claim.source is Source.AGENT:
            is_withheld = known.node is not None and is_withdrawn(vendor, known.node)
            return self._is_agent_there(name, known) and not is_withheld
        handshake = known.handshakes.get(claim.word) or Handshake(None, now)
        return known.node is not None and is_plugin_there(vendor, known.node, handshake, now)


def _reads_alike(before: Node, after: Node) -> bool:
    return (
        before.metadata.annotations == after.metadata.annotations
        and before.metadata.labels == after.metadata.labels
        and before.status == after.status
    )
