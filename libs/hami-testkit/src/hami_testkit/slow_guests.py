"""Who may share a MetaX card with whom, and which cards such pods get, by a scheduler without columns.

One rule: the other pods on a card decide, whatever this pod's own containers have there.
"""

from collections.abc import Callable, Mapping, Sequence

from hami_model.device import Device
from hami_model.reason import Reason
from hami_model.request import Demand

from hami_testkit.slow_forms import pairs_of
from hami_testkit.slow_world import Guest, SlowNode, Use

SHARED = "Metax-SGPU"
WORTH = 10000.0


def guest(annotations: Mapping[str, str], cores: int) -> Guest:
    """Return what a pod is on a card of which it has so many percent: its class, and its QoS where it has one."""
    kind = annotations.get("metax-tech.com/sgpu-app-class", "")
    qos = annotations.get("metax-tech.com/sgpu-qos-policy", "best-effort")
    return Guest(kind, "" if kind == "online" or cores == 100 else qos)


def refusal(others: Sequence[Guest], me: Guest, used: Use) -> Reason | None:
    """Return why the pods on a card will not have this one; ``used``: by others alone."""
    if not used.slots:
        return None
    kinds = {other.kind for other in others} - {""}
    if bool(kinds) != bool(me.kind) or (me.kind == "offline" and "online" in kinds):
        return Reason.CLASS_MISMATCH
    if me.qos and {other.qos for other in others} - {"", me.qos}:
        return Reason.QOS_MISMATCH
    return None


def picker(demand: Demand, node: SlowNode, kind: str) -> Callable[[list[Device]], list[Device]] | None:
    """Return how several cards are chosen: quiet ones, linked ones, or the first ones (None)."""
    if kind == "online":
        return lambda passed: sorted(passed, key=lambda card: _noise(node, card))[: demand.count]
    if demand.cores == 100 and kind != "offline":
        return lambda passed: _linked(passed, demand.count)
    return None


def _counts(node: SlowNode, card: Device) -> tuple[int, int]:
    kinds = [other.kind for other in node.guests.get(card.id, ())]
    return kinds.count("online"), kinds.count("offline")


def _noise(node: SlowNode, card: Device) -> tuple[bool, int, int]:
    online, offline = _counts(node, card)
    return not online and offline > 0, online, offline


def _linked(passed: list[Device], count: int) -> list[Device]:
    """Take the smallest zone that has enough cards; else zone after zone, the smallest first, and cards of none."""
    if len(passed) <= count:
        return passed
    zones: dict[object, list[Device]] = {}
    for card in passed:
        zones.setdefault(zone(card), []).append(card)
    loose = zones.pop(None, [])
    by_size = sorted(zones.values(), key=len)
    for cards in by_size:
        if len(cards) >= count:
            return cards[:count]
    return [card for cards in (*by_size, loose) for card in cards][:count]


def zone(card: Device) -> object:
    """Return the zone of linked cards that a card is in; None = of none."""
    number = card.custom.get("LinkZone", 0)
    return number if isinstance(number, int) and number > 0 else None


def bonus(node: SlowNode, kind: str, is_scored: bool, given: Sequence[tuple[Device, int]]) -> float:  # noqa: FBT001
    """Return what a node is worth to a pod for cards given with so many percent each."""
    if kind == "online":
        points = 0
        for card, _ in given:
            online, offline = _counts(node, card)
            points += -100 * offline if offline and not online else -20 * online - 2 * offline
        return WORTH * points
    whole = {card.id: card for card, cores in given if cores == 100}
    if not is_scored or not whole:
        return 0.0
    idle = [card for card in node.devices if card.vendor == SHARED and not node.use.get(card.id, Use()).slots]
    taken = {card.id for card, _ in given}
    alloc = 10 * pairs_of([zone(card) for card in whole.values()])
    rest = 10 * pairs_of([zone(card) for card in idle if card.id not in taken])
    return WORTH * (10 * alloc - (10 * pairs_of([zone(card) for card in idle]) - alloc - rest))
