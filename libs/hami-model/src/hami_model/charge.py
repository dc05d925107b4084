"""What a pod costs: per card, the slots, memory and cores that nobody else may have.

One rule: it reads the allocation and the Pod object alone, so a restart computes the same number. Containers run beside
each other and are added up; ordinary init containers run one after the other and the largest counts, together with the
sidecars started before it. Parts cut out of a card are held until the pod ends, an init container's too.
"""

from collections.abc import Iterable, Mapping

from msgspec import Struct

from hami_model.allocation import Allocation, ContainerGrants
from hami_model.device import Placement
from hami_model.objects import Container, ContainerStatus, Pod
from hami_model.request import Role

Card = tuple[str, str]
"""(vendor word, uuid): a card within its node."""


class Charge(Struct, frozen=True, gc=False, kw_only=True):
    """What is booked on one card: slots, memory in MiB, cores in percent."""

    slots: int = 0
    memory: int = 0
    cores: int = 0
    guests: int = 0
    """What its pods count as, where their vendor tells them apart: its counters, added up."""
    placements: tuple[Placement, ...] = ()
    """The parts of a card that is cut into parts, by start."""

    def __add__(self, other: "Charge") -> "Charge":
        return Charge(
            slots=self.slots + other.slots,
            memory=self.memory + other.memory,
            cores=self.cores + other.cores,
            guests=self.guests + other.guests,
            placements=_ordered(self.placements + other.placements),
        )

    def __sub__(self, other: "Charge") -> "Charge":
        return Charge(
            slots=self.slots - other.slots,
            memory=self.memory - other.memory,
            cores=self.cores - other.cores,
            guests=self.guests - other.guests,
            placements=_less(self.placements, other.placements) if other.placements else self.placements,
        )

    def __or__(self, other: "Charge") -> "Charge":
        """Return the larger of each number: what suffices for both, one after the other."""
        return Charge(
            slots=max(self.slots, other.slots),
            memory=max(self.memory, other.memory),
            cores=max(self.cores, other.cores),
        )


Charges = Mapping[Card, Charge]
NOTHING = Charge()


def charge(allocation: Allocation, pod: Pod) -> dict[Card, Charge]:
    """Return what the allocation costs on each card, given how far the pod's init containers are."""
    running = _together(c for c in allocation.containers if c.role is not Role.INIT)
    starting = {} if has_initialised(pod) else _largest_start(allocation.containers)
    cards = dict.fromkeys([*starting, *running])
    charges = {card: starting.get(card, NOTHING) | running.get(card, NOTHING) for card in cards}
    for card, parts in _parts(allocation).items():
        charges[card] = charges.get(card, NOTHING) + parts
    guests = {(g.vendor, g.uuid): g.guest for c in allocation.containers for g in c.grants if g.guest}
    for card, guest in guests.items():
        if card in charges:  # a pod is one guest of a card, whatever number of its containers have it
            charges[card] += Charge(guests=guest)
    return charges


def _parts(allocation: Allocation) -> dict[Card, Charge]:
    """Return the parts of each card that is cut: the node keeps each until the pod ends."""
    grants = (grant for container in allocation.containers for grant in container.grants if grant.cuts)
    total: dict[Card, Charge] = {}
    for grant in grants:
        card = grant.vendor, grant.uuid
        total[card] = total.get(card, NOTHING) + Charge(placements=tuple(cut.placement for cut in grant.cuts))
    return total


def _ordered(placements: tuple[Placement, ...]) -> tuple[Placement, ...]:
    return tuple(sorted(placements, key=lambda p: (p.start, p.size))) if placements else ()


def _less(placements: tuple[Placement, ...], gone: tuple[Placement, ...]) -> tuple[Placement, ...]:
    left = list(placements)
    for placement in gone:
        left.remove(placement)
    return tuple(left)


def has_initialised(pod: Pod) -> bool:
    """Say whether every ordinary init container has ended with 0; a sidecar never counts, it has no end to wait for."""
    statuses = {s.name: s for s in pod.status.init_container_statuses or ()}
    return all(_ended_well(c, statuses) for c in pod.init_containers if not c.is_sidecar)


def _ended_well(container: Container, statuses: Mapping[str, ContainerStatus]) -> bool:
    status = statuses.get(container.name)
    ended = status.state.terminated if status and status.state else None
    return ended is not None and ended.exit_code == 0


def _largest_start(containers: Iterable[ContainerGrants]) -> dict[Card, Charge]:
    """Return the largest of (ordinary init container i + sidecars started before i) for each card."""
    largest: dict[Card, Charge] = {}
    sidecars: list[ContainerGrants] = []
    for container in containers:
        if container.role is Role.SIDECAR:
            sidecars.append(container)
        elif container.role is Role.INIT:
            for card, cost in _together([container, *sidecars]).items():
                largest[card] = largest.get(card, NOTHING) | cost
    return largest


def _together(containers: Iterable[ContainerGrants]) -> dict[Card, Charge]:
    total: dict[Card, Charge] = {}
    for container in containers:
        for card, cost in _of_container(container).items():
            total[card] = total.get(card, NOTHING) + cost
    return total


def _of_container(container: ContainerGrants) -> dict[Card, Charge]:
    """Return one container's cost. HAMi compat: an init container takes one slot of a card it names twice."""
    total: dict[Card, Charge] = {}
    for grant in container.grants:
        before = total.get((grant.vendor, grant.uuid), NOTHING)
        slots = 1 if container.role is Role.INIT else before.slots + 1
        total[(grant.vendor, grant.uuid)] = Charge(
            slots=slots, memory=before.memory + grant.memory, cores=before.cores + grant.cores
        )
    return total
