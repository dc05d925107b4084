"""Who holds what: use is what the allocations add up to, and an event told twice changes nothing."""

import pytest
from hami_model import config, vendors
from hami_model.allocation import TRANSITIONS, Allocation, ContainerGrants, Grant, State
from hami_model.audit import Discrepancy
from hami_model.charge import Charge
from hami_model.errors import InvariantError
from hami_model.fleet import Fleet
from hami_model.ledger import Ledger
from hami_model.life import BindSent, Bound, Confirmed, Event, FoundBound, FoundConfirmed, Released, Reserved, Seen
from hami_model.objects import (
    Container,
    ContainerState,
    ContainerStatus,
    Meta,
    Pod,
    PodRef,
    PodSpec,
    PodStatus,
    Terminated,
)
from hami_model.quota import Quotas
from hami_model.request import Role
from hypothesis import given
from hypothesis import strategies as st

CATALOG = vendors.build(config.DEFAULTS, ascend=False, iluvatar=False)
CARD = ("NVIDIA", "GPU-a")
NODES = ("node-1", "node-2")


def empty_books() -> tuple[Ledger, Fleet, Quotas]:
    fleet, quotas = Fleet(CATALOG), Quotas(CATALOG)
    return Ledger(fleet, quotas), fleet, quotas


def a_pod(uid: str = "uid-1", *, initialised: bool = False) -> Pod:
    ended = ContainerStatus(name="warm-up", state=ContainerState(terminated=Terminated(exit_code=0)))
    return Pod(
        metadata=Meta(name=uid, namespace="team-a", uid=uid),
        spec=PodSpec(init_containers=[Container(name="warm-up")], containers=[Container(name="train")]),
        status=PodStatus(init_container_statuses=[ended] if initialised else []),
    )


def an_allocation(uid: str = "uid-1", *, node: str = "node-1", memory: int = 3000, start: int = 8000) -> Allocation:
    return Allocation(
        pod=PodRef.of(a_pod(uid)),
        node=node,
        containers=(
            ContainerGrants(name="warm-up", role=Role.INIT, grants=(on_card(memory=start, cores=0),)),
            ContainerGrants(name="train", role=Role.APP, grants=(on_card(memory=memory, cores=10),)),
        ),
    )


def on_card(*, memory: int, cores: int) -> Grant:
    return Grant(vendor=CARD[0], uuid=CARD[1], memory=memory, cores=cores)


def reserved(uid: str = "uid-1", *, at: float = 0.0, node: str = "node-1") -> Reserved:
    return Reserved(uid=uid, pod=a_pod(uid), allocation=an_allocation(uid, node=node), at=at)


def test_a_reservation_is_booked_on_its_card_and_its_namespace() -> None:
    """From the moment of the reservation nobody else may have what it holds."""
    ledger, fleet, quotas = empty_books()

    ledger.apply(reserved())

    assert {CARD: Charge(slots=1, memory=8000, cores=10)} == fleet.use("node-1")
    assert (8000, 10) == quotas.used("team-a", "NVIDIA")


def test_the_end_of_the_init_containers_gives_back_their_part() -> None:
    """A sight of the pod after its init containers lowers the booking to what its containers hold."""
    ledger, fleet, quotas = empty_books()
    ledger.apply(FoundBound(uid="uid-1", pod=a_pod(), allocation=an_allocation()))

    ledger.apply(Seen(uid="uid-1", pod=a_pod(initialised=True)))

    assert {CARD: Charge(slots=1, memory=3000, cores=10)} == fleet.use("node-1")
    assert (3000, 10) == quotas.used("team-a", "NVIDIA")


def test_a_release_gives_back_everything() -> None:
    """After the release nothing of the pod is left in any book."""
    ledger, fleet, quotas = empty_books()
    ledger.apply(reserved())

    ledger.apply(Released(uid="uid-1"))

    assert ({}, (0, 0), (), None) == (
        fleet.use("node-1"), quotas.used("team-a", "NVIDIA"), ledger.on_node("node-1"), ledger.entry("uid-1"),
    )  # fmt: skip


def test_entries_are_found_by_pod_and_by_node() -> None:
    """Two nodes, three pods: each node knows its own, oldest first."""
    ledger, _, _ = empty_books()
    for event in (reserved("uid-1"), reserved("uid-2", node="node-2"), reserved("uid-3")):
        ledger.apply(event)

    assert ["uid-1", "uid-3"] == [e.uid for e in ledger.on_node("node-1")]
    assert ["uid-2"] == [e.uid for e in ledger.on_node("node-2")]
    assert (entry := ledger.entry("uid-2"))
    assert "node-2" == entry.node


def test_only_reservations_expire() -> None:
    """A minute after the reservation its devices are free, a Binding under way keeps them for good."""
    ledger, _, _ = empty_books()
    ledger.apply(reserved("uid-1", at=10.0))
    ledger.apply(reserved("uid-2", at=10.0))
    ledger.apply(BindSent(uid="uid-2", at=11.0))
    ledger.apply(reserved("uid-3", at=11.0))

    assert ["uid-1"] == [e.uid for e in ledger.expired(70.0, 60.0)]


def test_a_committed_pod_is_told_from_a_reserved_one() -> None:
    """Filter asks this before it touches a pod, bind before it sends a second Binding."""
    ledger, _, _ = empty_books()

    assert (entry := ledger.apply(reserved()))
    assert not entry.is_committed
    assert (entry := ledger.apply(BindSent(uid="uid-1")))
    assert (True, False) == (entry.is_committed, entry.is_bound)
    assert (entry := ledger.apply(Bound(uid="uid-1")))
    assert (True, True) == (entry.is_committed, entry.is_bound)


def test_whoever_stops_leading_forgets_what_was_never_written() -> None:
    """Reservations and Bindings under way go, what the API server holds stays."""
    ledger, _, _ = empty_books()
    for event in (reserved("uid-1"), reserved("uid-2"), BindSent(uid="uid-2"), reserved("uid-3")):
        ledger.apply(event)
    ledger.apply(FoundBound(uid="uid-4", pod=a_pod("uid-4"), allocation=an_allocation("uid-4")))

    assert ["uid-1", "uid-2", "uid-3"] == [e.uid for e in ledger.unwritten("lost the lead")]


@pytest.mark.parametrize(
    "event",
    [
        pytest.param(Bound(uid="uid-1"), id="bound-without-a-binding"),
        pytest.param(Confirmed(uid="uid-1"), id="confirmed-while-reserved"),
        pytest.param(Reserved(uid="uid-1", pod=a_pod(), allocation=an_allocation(memory=1)), id="reserved-otherwise"),
        pytest.param(BindSent(uid="uid-1", pod=a_pod(), allocation=an_allocation(memory=1)), id="bound-otherwise"),
        pytest.param(BindSent(uid="uid-9"), id="binding-out-of-nothing"),
        pytest.param(Reserved(uid="uid-9", pod=a_pod(), allocation=an_allocation()), id="somebody-elses-allocation"),
    ],
)
def test_what_cannot_be_is_our_own_fault(event: Event) -> None:
    """An event that the books do not allow stops us, before anything is booked wrong."""
    ledger, fleet, _ = empty_books()
    ledger.apply(reserved())
    before = dict(fleet.use("node-1"))

    with pytest.raises(InvariantError):
        ledger.apply(event)
    assert before == fleet.use("node-1")


def test_the_audit_finds_a_booking_that_no_allocation_explains() -> None:
    """Somebody who books past the ledger is found out, card and namespace."""
    ledger, fleet, quotas = empty_books()
    ledger.apply(reserved())

    fleet.charge("node-1", {CARD: Charge(slots=1, memory=7)})
    quotas.charge("team-b", {CARD: Charge(memory=7)})

    right, wrong = Charge(slots=1, memory=8000, cores=10), Charge(slots=2, memory=8007, cores=10)
    assert (
        Discrepancy(where="node-1", vendor=CARD[0], uuid=CARD[1], counted=right, booked=wrong),
        Discrepancy(where="team-b", vendor=CARD[0], counted=Charge(), booked=Charge(memory=7)),
    ) == ledger.audit()
    assert "allocations add up to 1 slots, 8000 MiB, 10 %" in str(ledger.audit()[0])


UIDS = st.sampled_from(["uid-1", "uid-2", "uid-3"])
ALLOCATIONS = st.builds(
    lambda uid, node, memory, start: an_allocation(uid, node=node, memory=memory, start=start),
    UIDS, st.sampled_from(NODES), st.integers(0, 9000), st.integers(0, 9000),
)  # fmt: skip
BRINGING = st.builds(
    lambda kind, allocation: kind(uid=allocation.pod.uid, pod=a_pod(allocation.pod.uid), allocation=allocation),
    st.sampled_from([Reserved, BindSent, FoundBound, FoundConfirmed]), ALLOCATIONS,
)  # fmt: skip
MOVING = st.builds(lambda kind, uid: kind(uid=uid), st.sampled_from([BindSent, Bound, Confirmed, Released]), UIDS)
SEEN = st.builds(lambda uid, done: Seen(uid=uid, pod=a_pod(uid, initialised=done)), UIDS, st.booleans())
EVENTS: st.SearchStrategy[list[Event]] = st.lists(BRINGING | MOVING | SEEN, max_size=25)


def tell(ledger: Ledger, event: Event) -> None:
    """Tell an event that may be impossible; the books must then stay as they were."""
    try:
        ledger.apply(event)
    except InvariantError:
        return


@given(EVENTS)
def test_the_books_are_right_after_every_event(events: list[Event]) -> None:
    """Whatever is told in whatever order, bookings are what the allocations add up to."""
    ledger, _, _ = empty_books()
    for event in events:
        tell(ledger, event)

        assert () == ledger.audit()


@given(EVENTS)
def test_an_event_told_twice_is_told_once(events: list[Event]) -> None:
    """Repeating each event leaves the same entries and the same bookings."""
    once, fleet, quotas = empty_books()
    twice, repeated_fleet, repeated_quotas = empty_books()
    for event in events:
        tell(once, event)
        tell(twice, event)
        tell(twice, event)

        assert once.entries == twice.entries
        assert (fleet.uses, quotas.uses) == (repeated_fleet.uses, repeated_quotas.uses)


@given(EVENTS)
def test_every_life_stays_in_the_table(events: list[Event]) -> None:
    """A pod's entry only ever moves along the table, and is forgotten by its release alone."""
    ledger, _, _ = empty_books()
    for event in events:
        before = ledger.entry(event.uid)
        tell(ledger, event)
        after = ledger.entry(event.uid)

        was = before.state if before else None
        is_now = after.state if after else State.RELEASED
        assert (was or State.RELEASED) is is_now or is_now in TRANSITIONS[was].values()
        assert {e.uid for e in ledger.entries} == {e.uid for node in NODES for e in ledger.on_node(node)}
