"""What one sight of a pod means for the books.

One rule: it answers with events and notices and changes nothing. Annotations count only once a pod is bound, and only
for a pod that is not in the books yet: whoever may edit a pod cannot edit what it holds.
"""

from collections.abc import Callable, Iterable, Sequence, Set

from msgspec import Struct

from hami_model.allocation import Allocation, State
from hami_model.annotations import is_served
from hami_model.catalog import Catalog
from hami_model.device import Device
from hami_model.holding import HeldUnknown, Holding, NotHeld, holding, names_of_started, spread
from hami_model.life import Bound, Confirmed, Entry, Event, Extended, FoundBound, FoundConfirmed, Released, Seen
from hami_model.objects import Pod, PodRef

DevicesOf = Callable[[str], Sequence[Device]]
"""The cards of a node, by its name."""


class Malformed(Struct, frozen=True, kw_only=True):
    """Something that a pod says of its devices was not believed as it stands. ``why`` is a sentence for people."""

    pod: PodRef
    node: str
    why: str


class Unaccounted(Struct, frozen=True, kw_only=True):
    """A pod that asks for devices of these vendors is on the node, and nothing says which it holds.

    Where its containers have started it holds some: then it is charged on every card of them there.
    """

    pod: PodRef
    node: str
    vendors: tuple[str, ...]


class Doubtful(Struct, frozen=True, kw_only=True):
    """A list lacks the pod, and no watch ever had it: it may be newer than the list. Only a fresh read can tell."""

    pod: PodRef


Notice = Malformed | Unaccounted | Doubtful


class Sight(Struct, frozen=True):
    """What follows from what was seen: events to apply, in order, and what people should hear."""

    events: tuple[Event, ...] = ()
    notices: tuple[Notice, ...] = ()


NOTHING_NEW = Sight()


def observe(entry: Entry | None, pod: Pod, catalog: Catalog, devices_of: DevicesOf, *, at: float = 0.0) -> Sight:
    """Say what it means that a watch or a list shows the pod so."""
    if has_ended(pod):
        return _ended(entry, pod)
    if entry is None:
        return _found(pod, catalog, devices_of, at=at) if pod.spec.node_name else NOTHING_NEW
    if not pod.spec.node_name:
        # nodeName is never unset: an event that shows a bound pod unbound is older than what we know.
        return NOTHING_NEW if entry.is_bound else Sight((Seen(uid=entry.uid, pod=pod),))
    if entry.is_bound:
        return Sight(_seen_bound(entry, pod, catalog, at=at))
    found = _found(pod, catalog, devices_of, at=at)
    if entry.state is State.BINDING and pod.spec.node_name == entry.node and not _are_others(entry, found):
        return Sight((Bound(uid=entry.uid, at=at), *_seen_bound(entry, pod, catalog, at=at)))
    gone = Released(uid=entry.uid, why=f"the pod was bound to {pod.spec.node_name} by somebody else")
    return Sight((gone, *found.events), found.notices)


def gone(entry: Entry | None) -> Sight:
    """Say what it means that a watch shows the pod deleted, or that a fresh read finds it no more."""
    return Sight((Released(uid=entry.uid, why="the pod is gone"),)) if entry else NOTHING_NEW


def missing(entries: Iterable[Entry], there: Set[str]) -> Sight:
    """Say what it means that a list has these uids only. Whatever no watch has shown yet may be newer than the list."""
    lacking = [e for e in entries if e.uid not in there]
    return Sight(
        tuple(Released(uid=e.uid, why="the pod is gone") for e in lacking if e.is_watched),
        tuple(Doubtful(pod=e.allocation.pod) for e in lacking if not e.is_watched),
    )


def recount(entries: Iterable[Entry], devices: Sequence[Device]) -> tuple[Extended, ...]:
    """Extend, among one node's entries, those charged on every card to the cards that came since."""
    spreads = ((e, spread(e.allocation, e.everywhere, devices)) for e in entries if e.everywhere)
    return tuple(Extended(uid=e.uid, allocation=wider) for e, wider in spreads if wider != e.allocation)


def has_ended(pod: Pod) -> bool:
    """Say whether the pod is over for good. Being deleted, CrashLoop or a lost node end nothing."""
    return pod.status.phase in ("Succeeded", "Failed")


def is_given(pod: Pod, allocation: Allocation, catalog: Catalog) -> bool:
    """Say whether the pod has been given its devices: somebody marked it so, or a container with devices started."""
    if is_served(pod):
        return True
    vendors = [catalog.find(word) for word in allocation.vendors]
    if vendors and all(vendor is not None and vendor.confirmed(pod) for vendor in vendors):
        return True
    started = names_of_started(pod)
    return any(c.grants and c.name in started for c in allocation.containers)


def _are_others(entry: Entry, found: Sight) -> bool:
    """Say whether a pod was bound with other cards than we sent: a new leader's Binding to the same node came first."""
    written = [event for event in found.events if isinstance(event, FoundBound) and not event.everywhere]
    return any(_cards(event.allocation) != _cards(entry.allocation) for event in written)


def _cards(allocation: Allocation) -> list[tuple[str, list[str]]]:
    return [(c.name, sorted(grant.uuid for grant in c.grants)) for c in allocation.containers]


def _ended(entry: Entry | None, pod: Pod) -> Sight:
    return Sight((Released(uid=entry.uid, why=f"the pod {pod.status.phase}"),)) if entry else NOTHING_NEW


def _seen_bound(entry: Entry, pod: Pod, catalog: Catalog, *, at: float) -> tuple[Event, ...]:
    seen = Seen(uid=entry.uid, pod=pod)
    is_news = entry.state is not State.ACTIVE and is_given(pod, entry.allocation, catalog)
    return (seen, Confirmed(uid=entry.uid, at=at)) if is_news else (seen,)


def _found(pod: Pod, catalog: Catalog, devices_of: DevicesOf, *, at: float) -> Sight:
    """Read a bound pod that is not in the books."""
    uid, node, ref = pod.metadata.uid, pod.spec.node_name or "", PodRef.of(pod)
    match holding(pod, catalog, devices_of(node)):
        case None:
            return NOTHING_NEW
        case NotHeld(vendors=vendors, complaint=""):
            return Sight((), (Unaccounted(pod=ref, node=node, vendors=vendors),))
        case HeldUnknown(vendors=vendors, allocation=allocation, everywhere=everywhere):
            found = FoundConfirmed(uid=uid, pod=pod, allocation=allocation, everywhere=everywhere, at=at)
            return Sight((found,), (Unaccounted(pod=ref, node=node, vendors=vendors),))
        case NotHeld(complaint=why):
            return Sight((), (Malformed(pod=ref, node=node, why=why),))
        case Holding(allocation=allocation, everywhere=everywhere, complaints=complaints):
            served = is_given(pod, allocation, catalog)
            event = (FoundConfirmed if served else FoundBound)(
                uid=uid, pod=pod, allocation=allocation, everywhere=everywhere, at=at
            )
            return Sight((event,), tuple(Malformed(pod=ref, node=node, why=why) for why in complaints))
