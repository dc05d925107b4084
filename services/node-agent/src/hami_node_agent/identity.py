"""Whose call is it? The kubelet names device IDs and no pod; these functions find the container, from data alone.

One rule: exactly one answer or none. Nothing here guesses, waits or asks anybody; ``desk.py`` gathers what the kubelet
shows and what the pods want, and refuses where nobody is found.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence

from hami_model.allocation import Allocation
from hami_model.objects import Container, Pod, PodRef
from hami_model.request import Role
from hami_model.units import rounded_up
from msgspec import Struct

from hami_node_agent.table import Entry, Table

Shown = Mapping[str, frozenset[str]]
"""Container -> IDs of the resource, as PodResources shows a pod. Ordinary init containers are never shown."""


class Wanting(Struct, frozen=True, kw_only=True):
    """One container that asks for the resource."""

    name: str
    position: int
    role: Role
    count: int


class PodView(Struct, frozen=True, kw_only=True):
    """What must be known of a pod to find out whether a call is for it."""

    pod: PodRef
    wanting: tuple[Wanting, ...]
    started: bool = False
    """The kubelet has reported a start time, which a pod in admission does not have."""
    ended: bool = False
    running: frozenset[str] = frozenset()
    """Containers that run, by the kubelet's last report."""


class Candidate(Struct, frozen=True, kw_only=True):
    """A container that the call may be for, and what the table has on it already."""

    view: PodView
    container: Wanting
    known: Entry | None = None


def view_of(pod: Pod, resource: str) -> PodView:
    """Return what identity needs of a pod as the API server shows it."""
    counted = [
        Wanting(name=c.name, position=i, role=_role(c, is_init=i < len(pod.init_containers)), count=_limit(c, resource))
        for i, c in enumerate(pod.all_containers)
    ]
    return PodView(
        pod=PodRef.of(pod),
        wanting=tuple(w for w in counted if w.count > 0),
        started=pod.status.start_time is not None,
        ended=pod.status.phase in {"Succeeded", "Failed"},
        running=_running(pod),
    )


def view_of_allocation(allocation: Allocation, vendor: str) -> PodView:
    """Return the same of a pod that we know only from the allocation pushed for it."""
    counted = [
        Wanting(name=c.name, position=i, role=c.role, count=sum(g.vendor == vendor for g in c.grants))
        for i, c in enumerate(allocation.containers)
    ]
    return PodView(pod=allocation.pod, wanting=tuple(w for w in counted if w.count > 0))


def candidate(view: PodView, shown: Shown, table: Table, *, resource: str, size: int) -> Candidate | None:
    """Return the pod's first container in order that wants ``size`` devices, shows none and has not been served.

    The kubelet asks in order: a container that was answered without an Allocate comes before those behind it. One that
    was served and yet shows nothing comes last: its Allocate may have been lost with the kubelet's checkpoint.
    """
    of_size = [w for w in view.wanting if w.count == size and not shown.get(w.name)]
    asking = [Candidate(view=view, container=w, known=table.find(view.pod.uid, w.name, resource)) for w in of_size]
    plausible = [c for c in asking if not _has_what_it_wants(c)]
    restarted = [c for c in plausible if is_restart(c)]
    if restarted and restarted == plausible:
        return restarted[0] if len(restarted) == 1 else None  # containers restart in no order
    return min(plausible, key=lambda c: rank(c) == 2, default=None)


def is_restart(found: Candidate) -> bool:
    """Say whether the container was served and its pod started: it may restart, and asks if the checkpoint was lost."""
    return rank(found) == 2 and found.view.started


def rank(found: Candidate) -> int:
    """Order candidates: never seen, then answered without an Allocate, then served and yet empty."""
    if found.known is None:
        return 0
    return 2 if found.known.served else 1


def pick(candidates: Sequence[Candidate]) -> Candidate | None:
    """Return the one candidate left, or None: best rank first; of several, those that started are no longer asking."""
    if not candidates:
        return None
    best = min(rank(c) for c in candidates)
    ranked = [c for c in candidates if rank(c) == best]
    if len(ranked) > 1:
        ranked = [c for c in ranked if not c.view.started]
    return ranked[0] if len(ranked) == 1 else None


def after_init(
    ids: Iterable[str], views: Callable[[str], PodView | None], table: Table, *, resource: str
) -> PodView | None:
    """Return the pod whose ordinary init container holds all these IDs: the kubelet gives them on within the pod."""
    asked = frozenset(ids)
    owners = {
        entry.pod.uid
        for entry in table.entries
        if entry.role is Role.INIT and entry.resource == resource and asked and asked <= frozenset(entry.ids)
    }
    return views(owners.pop()) if len(owners) == 1 else None


def next_container(view: PodView, table: Table, *, resource: str, size: int) -> Wanting | None:
    """Return the pod's first container in order that wants ``size`` devices and has not been served."""
    unserved = (w for w in view.wanting if not _served(table.find(view.pod.uid, w.name, resource)))
    return next((w for w in unserved if w.count == size), None)


def is_served(view: PodView, table: Table, resource: str) -> bool:
    """Say whether every container of the pod that wants the resource has it."""
    return all(_served(table.find(view.pod.uid, w.name, resource)) for w in view.wanting)


class Offer(Struct, frozen=True, kw_only=True):
    """What the kubelet offers in GetPreferredAllocation."""

    available: tuple[str, ...]
    must_include: tuple[str, ...]
    size: int


def choose_ids(
    offer: Offer, *, cards: Sequence[str], is_held: Callable[[str], bool], card_of: Callable[[str], str]
) -> tuple[str, ...] | None:
    """Choose exactly as many IDs as asked for, one of each allocated card where it has one, none held by another.

    Where a card has no free ID left, another card's stands in for it: the ID is only a number to the kubelet, the
    container gets the cards of its allocation. None = too few free IDs.
    """
    chosen = list(offer.must_include[: offer.size])
    missing = list(cards)
    for device_id in chosen:
        if card_of(device_id) in missing:
            missing.remove(card_of(device_id))
    free = sorted({i for i in offer.available if i not in chosen and not is_held(i)}, key=_by_number)
    for card in missing[: offer.size - len(chosen)]:
        fitting = next((i for i in free if card_of(i) == card), None)
        if fitting is not None:
            chosen.append(fitting)
            free.remove(fitting)
    chosen += free[: offer.size - len(chosen)]
    return tuple(chosen) if len(chosen) == offer.size else None


def held_by_another(ids: Iterable[str], uid: str, table: Table) -> tuple[str, Entry] | None:
    """Return the first ID that another pod still holds, and that pod's entry."""
    for device_id in ids:
        for entry in table.holders(device_id):
            if entry.pod.uid != uid:
                return device_id, entry
    return None


def _served(entry: Entry | None) -> bool:
    return entry is not None and entry.served


def _has_what_it_wants(found: Candidate) -> bool:
    """Say whether a container that was served, and shows nothing, has run or runs, so that it asks for nothing.

    Init containers are never shown; a lost checkpoint hides the others.
    """
    is_running = found.container.name in found.view.running
    return is_restart(found) and (found.container.role is Role.INIT or is_running)


def _running(pod: Pod) -> frozenset[str]:
    reported = (*(pod.status.init_container_statuses or ()), *(pod.status.container_statuses or ()))
    return frozenset(c.name for c in reported if c.state is not None and c.state.running is not None)


def _limit(container: Container, resource: str) -> int:
    limits = (container.resources.limits if container.resources else None) or {}
    return rounded_up(limits.get(resource, 0)) or 0


def _role(container: Container, *, is_init: bool) -> Role:
    if not is_init:
        return Role.APP
    return Role.SIDECAR if container.is_sidecar else Role.INIT


def _by_number(device_id: str) -> tuple[str, int, str]:
    card, _, number = device_id.rpartition("-")
    return (card, int(number), "") if number.isdigit() else (device_id, 0, device_id)
