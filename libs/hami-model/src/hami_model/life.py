"""What happens to allocations, as values, and what is known of one.

One rule: an event says what happened, never what to do; it carries all that the ledger needs to take note of it. Times
are seconds of the caller's monotonic clock.
"""

from typing import ClassVar

from msgspec import Struct

from hami_model.allocation import Allocation, MadeInstance, State, Step, is_bound, is_committed
from hami_model.charge import Charge
from hami_model.objects import Pod
from hami_model.request import PodDemand


class Reserved(Struct, frozen=True, gc=False, kw_only=True):
    """Filter chose devices for an unbound pod."""

    step: ClassVar[Step] = Step.RESERVED
    uid: str
    pod: Pod
    allocation: Allocation
    at: float = 0.0


class BindSent(Struct, frozen=True, gc=False, kw_only=True):
    """A Binding is about to be sent, its outcome unknown. Without a reservation it brings pod and allocation."""

    step: ClassVar[Step] = Step.BIND_SENT
    uid: str
    pod: Pod | None = None
    allocation: Allocation | None = None
    at: float = 0.0


class Bound(Struct, frozen=True, gc=False, kw_only=True):
    """The API server stored the Binding: it said so, or showed the pod bound here."""

    step: ClassVar[Step] = Step.BOUND
    uid: str
    at: float = 0.0


class Confirmed(Struct, frozen=True, gc=False, kw_only=True):
    """The node has given the devices to the pod."""

    step: ClassVar[Step] = Step.CONFIRMED
    uid: str
    at: float = 0.0


class FoundBound(Struct, frozen=True, gc=False, kw_only=True):
    """A bound pod, unknown so far, says in its annotations what it holds.

    ``everywhere``: demands whose devices could not be read, so they are charged on every card of their vendor there.
    """

    step: ClassVar[Step] = Step.FOUND_BOUND
    uid: str
    pod: Pod
    allocation: Allocation
    everywhere: PodDemand = ()
    at: float = 0.0


class FoundConfirmed(FoundBound, frozen=True, gc=False, kw_only=True):
    """A bound pod, unknown so far, that has already been given its devices."""

    step: ClassVar[Step] = Step.FOUND_CONFIRMED


class Released(Struct, frozen=True, gc=False, kw_only=True):
    """The pod holds nothing any more, or its Binding can no longer land. ``why`` is for people."""

    step: ClassVar[Step] = Step.RELEASED
    uid: str
    why: str = ""


class Seen(Struct, frozen=True, gc=False, kw_only=True):
    """A watch or a list showed the pod as it is now: its charge may change, its life does not."""

    uid: str
    pod: Pod


class Extended(Struct, frozen=True, gc=False, kw_only=True):
    """Cards came to the node of a pod that is charged everywhere: the allocation now names them too."""

    uid: str
    allocation: Allocation


class Made(Struct, frozen=True, gc=False, kw_only=True):
    """The node says what it has made of cards for the pod."""

    uid: str
    instances: tuple[MadeInstance, ...]


Event = Reserved | BindSent | Bound | Confirmed | FoundBound | FoundConfirmed | Released | Seen | Extended | Made
Transition = Reserved | BindSent | Bound | Confirmed | FoundBound | FoundConfirmed | Released
"""The events that move an allocation along its life."""


class Entry(Struct, frozen=True, gc=False, kw_only=True):
    """What is known of one allocation. ``since`` is when it came into its state."""

    allocation: Allocation
    pod: Pod
    state: State
    since: float
    charges: dict[tuple[str, str], Charge]
    is_watched: bool = False
    """The watch has shown this pod, so its absence from a later list means that it is gone."""
    everywhere: PodDemand = ()
    instances: tuple[MadeInstance, ...] = ()
    """What its node has made of cards for it, as far as it said so to this process."""

    @property
    def uid(self) -> str:
        """Return the pod's uid, the entry's key."""
        return self.allocation.pod.uid

    @property
    def node(self) -> str:
        """Return the name of the node."""
        return self.allocation.node

    @property
    def is_committed(self) -> bool:
        """Say whether a Binding may be on its way or has landed: filter refuses, and a second bind joins the first."""
        return is_committed(self.state)

    @property
    def is_bound(self) -> bool:
        """Say whether the API server holds this allocation."""
        return is_bound(self.state)
