"""What node-agents say, and what it changes: inventories, heartbeats, confirmations, refusals.

One rule: an agent speaks for its own node only, and nothing that it says lowers what is in use. Every method is one
letter's work.
"""

from collections.abc import Sequence

from hami_kit.clock import Clock
from hami_model.allocation import State
from hami_model.bus.messages import Confirm, Done, Heartbeat, Inventory, NodeAnswer, Refuse, Refused
from hami_model.errors import MalformedInventory
from hami_model.life import Bound, Confirmed, Entry, Made
from hami_model.observe import recount
from hami_model.register import check_devices

from hami_allocator.facts import Fact, about
from hami_allocator.nodes import Change
from hami_allocator.registration import Claim, Source
from hami_allocator.world import World


class Agents:
    """Takes note of agents' words and of what nodes show."""

    def __init__(self, world: World, clock: Clock) -> None:
        self._world = world
        self._clock = clock

    def inventory(self, told: Inventory) -> NodeAnswer:
        """Take an agent's word for its node's cards, except where a foreign plugin serves them."""
        unknown = [word for word in told.vendors if self._world.catalog.find(word) is None]
        if unknown:
            return Refused(error=f"vendor {unknown[0]} is not known here: check HAMI_DEVICE_CONFIG of node {told.node}")
        foreign = [device.id for device in told.devices if device.vendor not in told.vendors]
        if foreign:
            return Refused(error=f"device {foreign[0]} belongs to no vendor that the inventory of {told.node} names")
        try:
            for word in told.vendors:
                check_devices(device for device in told.devices if device.vendor == word)
        except MalformedInventory as error:
            return Refused(error=f"the inventory of node {told.node} cannot be believed: {error}")
        self.note(self._world.nodes.told(told, self._clock.monotonic()))
        self._world.duty.registered(told.node)
        for word in told.vendors:
            if self._world.nodes.source(told.node, word) is Source.PLUGIN:
                return Refused(
                    error=f"{word} on node {told.node} is registered by another device plugin: remove that plugin, "
                    f"then its annotation {self._world.catalog.by_word(word).keys.register}"
                )
        return Done()

    def heartbeat(self, beat: Heartbeat) -> bool:
        """Take note that an agent lives; say whether its inventory must be asked for."""
        nodes = self._world.nodes
        before = nodes.unhealthy(beat.node)
        self.note(nodes.heard(beat, self._clock.monotonic()))
        after = nodes.unhealthy(beat.node)
        if after != before:
            self._world.fleet.set_unhealthy(beat.node, after)
            data: dict[str, object] = {"unhealthy": sorted(after)}
            self._world.duty.tell(Fact(kind="health.changed", subject=beat.node, data=data))
            self._world.duty.registered(beat.node)
        return not nodes.is_inventory_current(beat)

    def confirm(self, word: Confirm) -> NodeAnswer:
        """Take note that an agent gave a container its cards; the last container makes the pod ACTIVE."""
        entry = self._world.ledger.entry(word.pod.uid)
        if entry is None or entry.node != word.node or entry.state is State.RESERVED:
            return Refused(error=f"pod {word.pod} holds nothing on node {word.node}")
        strange = _not_granted(entry, word.container, word.devices)
        if strange:
            self._world.duty.tell(about(entry.pod, "drift", node=word.node, container=word.container, devices=strange))
            return Refused(error=f"container {word.container} of pod {word.pod} was not given {', '.join(strange)}")
        if word.instances and tuple(word.instances) != entry.instances:
            self._world.apply(Made(uid=entry.uid, instances=tuple(word.instances)))
        if word.complete:
            at = self._clock.monotonic()
            if entry.state is State.BINDING:
                self._world.apply(Bound(uid=entry.uid, at=at))
            self._world.apply(Confirmed(uid=entry.uid, at=at))
        return Done()

    def refuse(self, word: Refuse) -> NodeAnswer:
        """Take note that an agent turned a container away; the kubelet ends the pod, and that frees its devices."""
        data: dict[str, object] = {"node": word.node, "container": word.container, "refused": word.why}
        entry = self._world.ledger.entry(word.pod.uid) if word.pod is not None else None
        if entry is not None and entry.node != word.node:
            return Refused(error=f"pod {word.pod} holds nothing on node {word.node}")
        if entry is not None:
            self._world.duty.tell(about(entry.pod, "rejected", **data))
            return Done()
        subject, uid = (str(word.pod), word.pod.uid) if word.pod is not None else (word.node, "")
        self._world.duty.tell(Fact(kind="rejected", subject=subject, uid=uid, data=data))
        return Done()

    def tick(self) -> None:
        """Judge again which agents and plugins are there."""
        self.note(self._world.nodes.tick(self._clock.monotonic()))

    def note(self, changes: Sequence[Change]) -> None:
        """Take changes of nodes' cards to the fleet, and tell them."""
        for change in changes:
            self._note(change)
        for node in dict.fromkeys(change.node for change in changes):
            self._world.fleet.set_unhealthy(node, self._world.nodes.unhealthy(node))
            at = self._world.nodes.devices(node)
            self._world.apply(*recount(self._world.ledger.on_node(node), at))
            drifting = self._world.fleet.drift(node)
            if drifting:
                data: dict[str, object] = {"devices": sorted(uuid for _, uuid in drifting)}
                self._world.duty.tell(Fact(kind="drift", subject=node, data=data))
            self._world.duty.registered(node)

    def _note(self, change: Change) -> None:
        fleet, claim = self._world.fleet, change.claim
        fleet.set_devices(change.node, change.word, claim.devices if claim is not None else ())
        if claim is not None and claim.devices:
            fleet.set_ready(change.node, change.word, ready=change.ready)
        for fact in _facts(change, claim):
            self._world.duty.tell(fact)


def _facts(change: Change, claim: Claim | None) -> tuple[Fact, ...]:
    data: dict[str, object] = {"vendor": change.word}
    if claim is None:
        return (Fact(kind="inventory.changed", subject=change.node, data={**data, "devices": 0}),)
    if claim.error:
        return (Fact(kind="inventory.malformed", subject=change.node, data={**data, "error": claim.error}),)
    data |= {"devices": len(claim.devices), "source": str(claim.source), "ready": change.ready}
    changed = Fact(kind="inventory.changed", subject=change.node, data=data)
    if claim.conflict:
        return (changed, Fact(kind="inventory.conflict", subject=change.node, data=data))
    return (changed,)


def _not_granted(entry: Entry, container: str, devices: Sequence[str]) -> list[str]:
    granted = {g.uuid for c in entry.allocation.containers if c.name == container for g in c.grants}
    return [device for device in devices if device not in granted]
