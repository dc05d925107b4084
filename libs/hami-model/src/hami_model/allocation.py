"""What was given to a pod, and the life of that gift.

One rule: a life is the table ``TRANSITIONS``; what is not in it cannot happen. One allocation per pod uid.
"""

from enum import StrEnum

from msgspec import Struct, field

from hami_model.device import Placement
from hami_model.errors import InvariantError
from hami_model.objects import PodRef
from hami_model.request import Role


class State(StrEnum):
    """Where an allocation is in its life (explained in docs/explanations/architecture.md)."""

    RESERVED = "RESERVED"
    BINDING = "BINDING"
    BOUND = "BOUND"
    ACTIVE = "ACTIVE"
    RELEASED = "RELEASED"


class Step(StrEnum):
    """What can happen to an allocation."""

    RESERVED = "Reserved"
    BIND_SENT = "BindSent"
    BOUND = "Bound"
    CONFIRMED = "Confirmed"
    FOUND_BOUND = "FoundBound"
    FOUND_CONFIRMED = "FoundConfirmed"
    RELEASED = "Released"


TRANSITIONS: dict[State | None, dict[Step, State]] = {
    None: {
        Step.RESERVED: State.RESERVED,
        Step.BIND_SENT: State.BINDING,
        Step.FOUND_BOUND: State.BOUND,
        Step.FOUND_CONFIRMED: State.ACTIVE,
    },
    State.RESERVED: {Step.BIND_SENT: State.BINDING, Step.RELEASED: State.RELEASED},
    State.BINDING: {Step.BOUND: State.BOUND, Step.RELEASED: State.RELEASED},
    State.BOUND: {Step.CONFIRMED: State.ACTIVE, Step.RELEASED: State.RELEASED},
    State.ACTIVE: {Step.RELEASED: State.RELEASED},
    State.RELEASED: {},
}

LEADS_TO: dict[Step, State] = {step: state for row in TRANSITIONS.values() for step, state in row.items()}
"""Where each step ends up; the table has one answer per step, whatever row it stands in."""


def advance(state: State | None, step: Step) -> State:
    """Return the state after a step; raise ``InvariantError`` for what the table does not have."""
    following = TRANSITIONS[state].get(step)
    if following is None:
        raise InvariantError(f"an allocation in state {state or 'none'} cannot take the step {step}")
    return following


def is_committed(state: State) -> bool:
    """Say whether a Binding may be on its way or has landed: no filter may touch this allocation any more."""
    return state in (State.BINDING, State.BOUND, State.ACTIVE)


def is_bound(state: State) -> bool:
    """Say whether the API server holds this allocation: what a restart finds again."""
    return state in (State.BOUND, State.ACTIVE)


class Cut(Struct, frozen=True, gc=False, kw_only=True):
    """A part cut out of a card: what its vendor calls the size, and which memory slices it takes."""

    profile: str
    placement: Placement


class Grant(Struct, frozen=True, gc=False, kw_only=True):
    """A slice of one card for one container: MiB, and cores in the vendor's unit. ``vendor`` is the common word."""

    uuid: str
    vendor: str
    memory: int
    cores: int
    index: int | None = None
    """The card's index on its node; not encoded in annotations, so unknown after a rebuild."""
    model: str = ""
    """The card's model, where device lists name it; empty = they name the vendor's word."""
    custom: dict[str, object] = field(default_factory=dict)
    guest: int = 0
    """What the pod counts as on the card, where its vendor tells pods apart."""
    cuts: tuple[Cut, ...] = ()
    """The part of a card that is cut into parts; after a rebuild also others that the pod's annotations name."""


class MadeInstance(Struct, frozen=True, gc=False, kw_only=True):
    """What a node made of a part of a card for a container: its name there, and NVIDIA's numbers of it on the card.

    ``place``: which of the container's devices of that vendor it is.
    """

    container: str
    place: int
    device: str
    uuid: str
    gpu_instance: int
    compute_instance: int


class ContainerGrants(Struct, frozen=True, gc=False, kw_only=True):
    """What one container got, in the order in which the cards were taken; empty for a container without devices."""

    name: str
    role: Role
    grants: tuple[Grant, ...] = ()


class Allocation(Struct, frozen=True, gc=False, kw_only=True):
    """Everything one pod holds on one node, one entry per container, init containers first."""

    pod: PodRef
    node: str
    containers: tuple[ContainerGrants, ...]

    @property
    def vendors(self) -> tuple[str, ...]:
        """Return the words of the vendors granted, in the order of first mention."""
        return tuple(dict.fromkeys(g.vendor for c in self.containers for g in c.grants))
