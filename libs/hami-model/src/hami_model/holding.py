"""What a bound pod holds, by its own annotations, and how far they are believed.

One rule: usage is read only for the node the pod runs on, is never negative and never more than the pod's own
containers ask for. What cannot be read is charged on every card of that vendor there: too much, rather than a card
given twice.
"""

from collections.abc import Iterator, Sequence
from typing import assert_never

from msgspec import Struct, structs

from hami_model.allocation import Allocation, ContainerGrants, Grant
from hami_model.annotations import NODE, as_guest, decode_pod, with_cuts
from hami_model.catalog import Catalog
from hami_model.cores import most, text
from hami_model.cutting import EVERYWHERE
from hami_model.demands import pod_demand
from hami_model.device import Device
from hami_model.errors import BadDemand, MalformedAllocation
from hami_model.objects import ContainerStatus, Pod, PodRef
from hami_model.request import (
    ContainerDemand,
    CoreUnit,
    Demand,
    Exactly,
    Percent,
    PodDemand,
    Whole,
    asks_for_devices,
    vendors_of,
)
from hami_model.sizes import chosen
from hami_model.vendor import Vendor

Positions = tuple[tuple[Grant, ...], ...]
"""The grants of one vendor, by position of the container, init containers first."""


class Holding(Struct, frozen=True, kw_only=True):
    """What a pod holds. ``complaints``: a sentence for each annotation that was not believed as it stands."""

    allocation: Allocation
    everywhere: PodDemand = ()
    complaints: tuple[str, ...] = ()


class NotHeld(Struct, frozen=True, kw_only=True):
    """A bound pod asks for devices, and nothing says which it got. ``complaint``: its demand itself cannot be read."""

    vendors: tuple[str, ...] = ()
    complaint: str = ""


class HeldUnknown(Struct, frozen=True, kw_only=True):
    """Nothing says which devices a pod got, and it runs with some of these vendors: it may be any card there."""

    vendors: tuple[str, ...]
    allocation: Allocation
    everywhere: PodDemand


def holding(pod: Pod, catalog: Catalog, devices: Sequence[Device]) -> Holding | HeldUnknown | NotHeld | None:
    """Read what a bound pod holds of its node's ``devices``; ``None`` when it asks for nothing.

    The kubelet starts no container without the devices that it asks for: one that has started holds some, whatever
    became of the pod's annotations.
    """
    try:
        demand = pod_demand(pod, catalog)
    except BadDemand as error:
        return NotHeld(complaint=str(error))
    if not asks_for_devices(demand):
        return None
    if not _is_allocated(pod, catalog, demand):
        return _unsaid(pod, demand, devices)
    return _believed(pod, catalog, demand, devices)


def _unsaid(pod: Pod, demand: PodDemand, devices: Sequence[Device]) -> HeldUnknown | NotHeld:
    started = names_of_started(pod)
    if not any(c.demands and c.name in started for c in demand):
        return NotHeld(vendors=vendors_of(demand))
    nothing = tuple(_merge(c, ()) for c in demand)
    bare = Allocation(pod=PodRef.of(pod), node=pod.spec.node_name or "", containers=nothing)
    return HeldUnknown(vendors=vendors_of(demand), allocation=spread(bare, demand, devices), everywhere=demand)


def names_of_started(pod: Pod) -> frozenset[str]:
    """Return the containers that have started, now or once, as the kubelet says."""
    statuses = [*(pod.status.init_container_statuses or ()), *(pod.status.container_statuses or ())]
    return frozenset(status.name for status in statuses if _has_started(status))


def _has_started(status: ContainerStatus) -> bool:
    now = status.state
    return bool(status.restart_count or status.started or (now and (now.running is not None or now.terminated)))


def _believed(pod: Pod, catalog: Catalog, demand: PodDemand, devices: Sequence[Device]) -> Holding:
    complaints: list[str] = []
    positions: list[Positions] = []
    unread: set[str] = set()
    for word in vendors_of(demand):
        vendor = catalog.by_word(word)
        claim = _Claim(word=word, key=vendor.keys.allocated, pod=PodRef.of(pod))
        try:
            read = as_guest(vendor.constraints(vendor, pod), _read(claim, pod, demand, devices, complaints))
            positions.append(_with_cuts(claim, vendor, pod, read, devices, complaints))
        except MalformedAllocation as error:
            complaints.append(
                f"{claim} cannot be believed: {error}; each {word} card of {pod.spec.node_name} is held until it ends"
            )
            unread.add(word)
    known = Allocation(
        pod=PodRef.of(pod),
        node=pod.spec.node_name or "",
        containers=tuple(_merge(c, [p[i] for p in positions]) for i, c in enumerate(demand)),
    )
    everywhere = tuple(structs.replace(c, demands=tuple(d for d in c.demands if d.vendor in unread)) for c in demand)
    return Holding(
        allocation=spread(known, everywhere, devices),
        everywhere=everywhere if unread else (),
        complaints=tuple(complaints),
    )


def spread(allocation: Allocation, everywhere: PodDemand, devices: Sequence[Device]) -> Allocation:
    """Add the full demand of ``everywhere`` on every card that the allocation does not name yet."""
    containers = tuple(
        structs.replace(had, grants=had.grants + tuple(_missing(had, wanted.demands, devices)))
        for had, wanted in zip(allocation.containers, everywhere, strict=True)
    )
    return structs.replace(allocation, containers=containers)


def _is_allocated(pod: Pod, catalog: Catalog, demand: PodDemand) -> bool:
    """Say whether the annotations speak of this node and of any vendor that the pod asks for."""
    if pod.annotations.get(NODE, pod.spec.node_name) != pod.spec.node_name:
        return False
    texts = [pod.annotations.get(catalog.by_word(word).keys.allocated, "") for word in vendors_of(demand)]
    return any(text.strip(";: ") for text in texts)


class _Claim(Struct, frozen=True, kw_only=True):
    """Which annotation of which pod is read for which vendor."""

    word: str
    key: str
    pod: PodRef

    def __str__(self) -> str:
        return f"annotation {self.key} of pod {self.pod}"


def _read(claim: _Claim, pod: Pod, demand: PodDemand, devices: Sequence[Device], complaints: list[str]) -> Positions:
    """Read one vendor's grants by position; raise ``MalformedAllocation`` unless they are as many as asked for."""
    asks = [next((d for d in c.demands if d.vendor == claim.word), None) for c in demand]
    read = decode_pod(pod.annotations.get(claim.key, ""), claim.word, pod, asking=[ask is not None for ask in asks])
    cards = {d.id: d for d in devices if d.vendor == claim.word}
    believed: list[tuple[Grant, ...]] = []
    for container, ask, grants in zip(demand, asks, read, strict=True):
        count = ask.count if ask else 0
        if len(grants) != count:
            raise MalformedAllocation(f"it gives container {container.name} {len(grants)} cards, {count} are asked for")
        believed.append(tuple(_within(claim, g, ask, cards.get(g.uuid), complaints) for g in grants if ask))
    return tuple(believed)


def _with_cuts(
    claim: _Claim, vendor: Vendor, pod: Pod, read: Positions, devices: Sequence[Device], complaints: list[str]
) -> Positions:
    """Add the parts of cards that are cut; of one whose part the pod does not say it holds all.

    A pod that holds none of those may write into that annotation what it likes; of a card that is not there nobody
    knows whether it is cut.
    """
    if vendor.parts is None:
        return read
    cards = {d.id: vendor.parts(d) is not None for d in devices if d.vendor == vendor.word}
    if not any(cards.get(grant.uuid, True) for grants in read for grant in grants):
        return read

    def accounted(grant: Grant) -> Grant:
        if grant.cuts or not cards.get(grant.uuid):
            return grant
        complaints.append(f"{claim} gives {grant.uuid}, and {vendor.keys.parts} does not say which part: all is held")
        return structs.replace(grant, cuts=(EVERYWHERE,))

    return tuple(tuple(accounted(grant) for grant in grants) for grants in with_cuts(vendor, pod, read))


def _within(claim: _Claim, grant: Grant, ask: Demand, card: Device | None, complaints: list[str]) -> Grant:
    """Return the grant, cut to what was asked for."""
    memory, cores = _most(ask, card, grant)
    if grant.memory <= memory and grant.cores <= cores:
        return grant
    complaints.append(
        f"{claim} gives {grant.memory} MiB and {text(ask.core_unit, grant.cores)} of {grant.uuid} where the pod asks "
        f"for {memory} MiB and {text(ask.core_unit, cores)}: no more than that is counted"
    )
    return structs.replace(grant, memory=min(grant.memory, memory), cores=min(grant.cores, cores))


def _most(ask: Demand, card: Device | None, grant: Grant) -> tuple[int, int]:
    """Return the memory and cores that the ask can have led to; a partition may be larger than the ask."""
    whole = card.memory if card else grant.memory
    if ask.slices is not None:  # one of the card's own sizes, or of those that it had when it was given
        size = chosen(card.sizes, ask) if card else None
        return (size.memory, size.cores) if size else (whole, card.cores if card else grant.cores)
    is_known = card is not None or ask.core_unit is CoreUnit.PERCENT
    cores = most(ask, card.cores if card else 0) if is_known else grant.cores
    if card and card.mig_profiles:
        return whole, max(card.cores, 100)
    match ask.memory:
        case Exactly(mib):
            return mib, cores
        case Percent(percent):
            return whole * percent // 100 if card else whole, cores
        case Whole():  # a card that is registered smaller now was whole when it was given, and may be again
            return max(whole, grant.memory), cores
        case _:
            assert_never(ask.memory)


def _merge(container: ContainerDemand, vendors: Sequence[tuple[Grant, ...]]) -> ContainerGrants:
    return ContainerGrants(name=container.name, role=container.role, grants=tuple(g for gs in vendors for g in gs))


def _missing(had: ContainerGrants, demands: Sequence[Demand], devices: Sequence[Device]) -> Iterator[Grant]:
    named = {(g.vendor, g.uuid) for g in had.grants}
    for ask in demands:
        for card in devices:
            if card.vendor == ask.vendor and (card.vendor, card.id) not in named:
                bare = Grant(uuid=card.id, vendor=card.vendor, memory=card.memory, cores=card.cores)
                memory, cores = _most(ask, card, bare)
                cuts = (EVERYWHERE,) if card.mig_profiles else ()
                yield structs.replace(bare, memory=memory, cores=cores, cuts=cuts)
