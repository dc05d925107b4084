"""What a sight of a pod means, and how far a pod is believed."""

import pytest
from hami_model import config, vendors
from hami_model.allocation import Allocation, State
from hami_model.annotations import allocation_annotations
from hami_model.charge import Charge
from hami_model.device import Device
from hami_model.fleet import Fleet
from hami_model.holding import Holding, holding
from hami_model.ledger import Ledger
from hami_model.life import BindSent, Bound, Confirmed, FoundBound, FoundConfirmed, Released, Seen
from hami_model.objects import (
    Container,
    ContainerState,
    ContainerStatus,
    Meta,
    Pod,
    PodRef,
    PodSpec,
    PodStatus,
    Resources,
)
from hami_model.observe import Doubtful, Malformed, Sight, Unaccounted, gone, observe, recount
from hami_model.quota import Quotas
from hami_model.rebuild import rebuild
from msgspec import structs

CATALOG = vendors.build(config.DEFAULTS, ascend=True, iluvatar=False)
ALLOCATED = "hami.io/vgpu-devices-allocated"
HELD = "GPU-0,NVIDIA,3000,30:;"


def card(number: int) -> Device:
    return Device(id=f"GPU-{number}", vendor="NVIDIA", slots=10, memory=24564, cores=100, model="NVIDIA A10")


CARDS = (card(0), card(1))


def cards_of(node: str) -> tuple[Device, ...]:
    return CARDS if node == "node-1" else ()


def a_pod(*, node: str | None = None) -> Pod:
    limits: dict[str, str | int | float] = {"nvidia.com/gpu": 1, "nvidia.com/gpumem": 3000, "nvidia.com/gpucores": 30}
    return Pod(
        metadata=Meta(name="train", namespace="team-a", uid="uid-1"),
        spec=PodSpec(node_name=node, containers=[Container(name="train", resources=Resources(limits=limits))]),
        status=PodStatus(phase="Pending"),
    )


def annotated(pod: Pod, **annotations: str) -> Pod:
    """Return the pod with more annotations."""
    return structs.replace(pod, metadata=structs.replace(pod.metadata, annotations={**pod.annotations, **annotations}))


def holding_pod(text: str = HELD) -> Pod:
    """Return a pod bound to node-1 whose annotations give it this."""
    return annotated(a_pod(node="node-1"), **{ALLOCATED: text, "hami.io/vgpu-node": "node-1"})


def started(pod: Pod) -> Pod:
    running = ContainerStatus(name="train", state=ContainerState(running={}))
    return structs.replace(pod, status=PodStatus(phase="Running", container_statuses=[running]))


def its_allocation() -> Allocation:
    read = holding(holding_pod(), CATALOG, CARDS)
    assert isinstance(read, Holding)
    return read.allocation


def books() -> tuple[Ledger, Fleet]:
    fleet = Fleet(CATALOG)
    fleet.set_devices("node-1", "NVIDIA", CARDS)
    return Ledger(fleet, Quotas(CATALOG)), fleet


def books_with(state: State) -> Ledger:
    ledger, _ = books()
    ledger.apply(BindSent(uid="uid-1", pod=a_pod(), allocation=its_allocation()))
    if state is not State.BINDING:
        ledger.apply(Bound(uid="uid-1"))
    if state is State.ACTIVE:
        ledger.apply(Confirmed(uid="uid-1"))
    return ledger


def sight(ledger: Ledger, pod: Pod) -> Sight:
    return observe(ledger.entry(pod.metadata.uid), pod, CATALOG, cards_of)


# Pods that the books do not know


def test_what_an_unbound_pod_says_of_itself_is_ignored() -> None:
    """Anybody may write annotations on a pending pod; they hold nothing."""
    unbound = annotated(a_pod(), **{ALLOCATED: HELD, "hami.io/vgpu-node": "node-1"})

    assert Sight() == observe(None, unbound, CATALOG, cards_of)


def test_a_bound_pod_holds_what_its_annotations_say() -> None:
    """A restart finds in the pod what was written with its Binding."""
    (event,) = observe(None, holding_pod(), CATALOG, cards_of).events

    assert isinstance(event, FoundBound)
    assert not isinstance(event, FoundConfirmed)
    assert ("node-1", HELD) == (event.allocation.node, _written(event.allocation, holding_pod()))


@pytest.mark.parametrize(
    "pod",
    [
        pytest.param(annotated(holding_pod(), **{"hami.io/bind-phase": "success"}), id="plugin-said-so"),
        pytest.param(started(holding_pod()), id="container-started"),
    ],
)
def test_a_bound_pod_that_was_served_is_found_active(pod: Pod) -> None:
    """Who has got its devices needs no confirmation any more."""
    (event,) = observe(None, pod, CATALOG, cards_of).events

    assert isinstance(event, FoundConfirmed)


def test_a_pod_without_demand_is_none_of_our_business() -> None:
    """Whatever such a pod writes about devices, it holds none."""
    plain = Pod(
        metadata=Meta(name="web", namespace="team-a", uid="uid-1", annotations={ALLOCATED: HELD}),
        spec=PodSpec(node_name="node-1", containers=[Container(name="web")]),
    )

    assert Sight() == observe(None, plain, CATALOG, cards_of)


@pytest.mark.parametrize(
    "pod",
    [
        pytest.param(a_pod(node="node-1"), id="nothing-written"),
        pytest.param(holding_pod(";;"), id="empty-groups"),
        pytest.param(annotated(holding_pod(), **{"hami.io/vgpu-node": "node-2"}), id="written-for-another-node"),
    ],
)
def test_a_bound_device_pod_without_allocation_is_unaccounted(pod: Pod) -> None:
    """Somebody bound it past the scheduler: nothing is booked, people are told."""
    told = Unaccounted(pod=PodRef.of(pod), node="node-1", vendors=("NVIDIA",))

    assert Sight((), (told,)) == observe(None, pod, CATALOG, cards_of)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("GPU-0,NVIDIA,lots,30:;", id="no-number"),
        pytest.param("GPU-0,NVIDIA,-3000,30:;", id="less-than-nothing"),
        pytest.param("GPU-0,NVIDIA:;", id="fields-missing"),
        pytest.param("rubbish;", id="rubbish"),
        pytest.param("GPU-0,NVIDIA,3000,30:GPU-1,NVIDIA,3000,30:;", id="more-cards-than-asked-for"),
        pytest.param(HELD + HELD, id="more-containers-than-there-are"),
    ],
)
def test_what_cannot_be_read_is_charged_on_every_card(text: str) -> None:
    """Too much is booked rather than a card given twice, and people are told."""
    ledger, fleet = books()
    seen = sight(ledger, holding_pod(text))
    for event in seen.events:
        ledger.apply(event)

    full = Charge(slots=1, memory=3000, cores=30)
    assert {("NVIDIA", "GPU-0"): full, ("NVIDIA", "GPU-1"): full} == fleet.use("node-1")
    (told,) = seen.notices
    assert isinstance(told, Malformed)
    assert told.why.startswith(f"annotation {ALLOCATED} of pod team-a/train cannot be believed: ")


def test_a_card_that_comes_later_is_charged_too() -> None:
    """A pod of which we cannot say what it holds may hold any card, also one that its node reports later."""
    ledger, fleet = books()
    for event in sight(ledger, holding_pod("rubbish;")).events:
        ledger.apply(event)

    for event in (*recount(ledger.on_node("node-1"), (*CARDS, card(2))), *recount(ledger.on_node("node-1"), CARDS)):
        ledger.apply(event)

    assert {"GPU-0", "GPU-1", "GPU-2"} == {uuid for _, uuid in fleet.use("node-1")}
    assert () == ledger.audit()


def test_no_more_is_counted_than_was_asked_for() -> None:
    """A pod that claims 20 GB and asks for 3 holds 3, and people are told."""
    ledger, fleet = books()
    seen = sight(ledger, holding_pod("GPU-0,NVIDIA,20000,100:;"))
    for event in seen.events:
        ledger.apply(event)

    assert {("NVIDIA", "GPU-0"): Charge(slots=1, memory=3000, cores=30)} == fleet.use("node-1")
    (told,) = seen.notices
    assert isinstance(told, Malformed)
    assert "gives 20000 MiB and 100 % of GPU-0 where the pod asks for 3000 MiB and 30 %" in told.why


def test_a_whole_card_counts_as_it_was_given() -> None:
    """A card that is registered with less memory for a while was whole when it was given, and will be again."""
    limits: dict[str, str | int | float] = {"nvidia.com/gpu": "1"}
    pod = holding_pod(f"GPU-0,NVIDIA,{CARDS[0].memory},0:;")
    spec = structs.replace(pod.spec, containers=[Container(name="main", resources=Resources(limits=limits))])
    shrunk = (structs.replace(CARDS[0], memory=1000), *CARDS[1:])

    held = holding(structs.replace(pod, spec=spec), CATALOG, shrunk)

    assert isinstance(held, Holding)
    assert [CARDS[0].memory] == [g.memory for c in held.allocation.containers for g in c.grants]
    assert () == held.complaints


def test_a_card_that_is_not_there_keeps_its_booking() -> None:
    """An allocation outlives its card; the card may come back."""
    ledger, fleet = books()
    for event in sight(ledger, holding_pod("GPU-7,NVIDIA,3000,30:;")).events:
        ledger.apply(event)

    assert {("NVIDIA", "GPU-7"): Charge(slots=1, memory=3000, cores=30)} == fleet.use("node-1")


@pytest.mark.parametrize(
    "pod",
    [
        pytest.param(a_pod(node="node-1"), id="annotations-deleted"),
        pytest.param(annotated(holding_pod(), **{"hami.io/vgpu-node": "node-2"}), id="another-node-written"),
    ],
)
def test_a_running_pod_that_does_not_say_what_it_holds_may_hold_any_card(pod: Pod) -> None:
    """The kubelet starts no container without its devices: whoever deletes its annotations frees nothing."""
    ledger, fleet = books()
    seen = sight(ledger, started(pod))
    for event in seen.events:
        ledger.apply(event)

    full = Charge(slots=1, memory=3000, cores=30)
    assert {("NVIDIA", "GPU-0"): full, ("NVIDIA", "GPU-1"): full} == fleet.use("node-1")
    assert (Unaccounted(pod=PodRef.of(pod), node="node-1", vendors=("NVIDIA",)),) == seen.notices


# Pods that the books know


def test_a_binding_seen_to_have_landed_is_bound() -> None:
    """The watch may be faster than the answer to the Binding."""
    pod = holding_pod()

    assert (Bound(uid="uid-1"), Seen(uid="uid-1", pod=pod)) == sight(books_with(State.BINDING), pod).events


def test_a_pod_that_a_new_leader_bound_here_holds_what_is_written_there() -> None:
    """Our Binding never landed; who slept through a take-over must not take another's for it."""
    ledger, fleet = books()
    ledger.apply(BindSent(uid="uid-1", pod=a_pod(), allocation=its_allocation()))

    for event in sight(ledger, holding_pod("GPU-1,NVIDIA,3000,30:;")).events:
        ledger.apply(event)

    assert {("NVIDIA", "GPU-1"): Charge(slots=1, memory=3000, cores=30)} == fleet.use("node-1")


def test_a_sight_of_the_served_pod_confirms_it() -> None:
    """A started device container proves that it got its devices."""
    pod = started(holding_pod())

    assert (Seen(uid="uid-1", pod=pod), Confirmed(uid="uid-1")) == sight(books_with(State.BOUND), pod).events
    assert (Seen(uid="uid-1", pod=pod),) == sight(books_with(State.ACTIVE), pod).events


def test_what_a_pod_holds_does_not_change_with_its_annotations() -> None:
    """Whoever edits the annotations of a running pod changes nothing."""
    ledger = books_with(State.ACTIVE)
    before = ledger.entry("uid-1")
    for text in ("", "rubbish;", "GPU-1,NVIDIA,1,0:;"):
        for event in sight(ledger, started(holding_pod(text))).events:
            ledger.apply(event)

    after = ledger.entry("uid-1")
    assert before
    assert after
    assert (before.allocation, before.charges) == (after.allocation, after.charges)


@pytest.mark.parametrize("state", [State.BOUND, State.ACTIVE])
def test_an_event_that_shows_a_bound_pod_unbound_is_old(state: State) -> None:
    """nodeName is never unset."""
    assert Sight() == sight(books_with(state), a_pod())


def test_an_unbound_sight_proves_nothing_about_a_binding() -> None:
    """The Binding may still land."""
    assert (Seen(uid="uid-1", pod=a_pod()),) == sight(books_with(State.BINDING), a_pod()).events


def test_a_pod_bound_elsewhere_holds_what_is_written_there() -> None:
    """Our Binding can no longer land; the other's is booked as found."""
    other = annotated(a_pod(node="node-2"), **{ALLOCATED: HELD, "hami.io/vgpu-node": "node-2"})

    released, found = sight(books_with(State.BINDING), other).events
    assert isinstance(released, Released)
    assert isinstance(found, FoundBound)
    assert "node-2" == found.allocation.node


@pytest.mark.parametrize("phase", ["Succeeded", "Failed"])
@pytest.mark.parametrize("state", [State.BINDING, State.BOUND, State.ACTIVE])
def test_an_ended_pod_holds_nothing(state: State, phase: str) -> None:
    """Both ends of a pod release it, and an unknown ended pod is not booked."""
    pod = structs.replace(holding_pod(), status=PodStatus(phase=phase))

    assert (Released(uid="uid-1", why=f"the pod {phase}"),) == sight(books_with(state), pod).events
    assert Sight() == observe(None, pod, CATALOG, cards_of)


def test_being_deleted_ends_nothing() -> None:
    """A terminating pod keeps its devices until it is over."""
    pod = holding_pod()
    pod = structs.replace(pod, metadata=structs.replace(pod.metadata, deletion_timestamp="2026-01-01T00:00:00Z"))

    assert (Seen(uid="uid-1", pod=pod),) == sight(books_with(State.BOUND), pod).events
    assert isinstance(observe(None, pod, CATALOG, cards_of).events[0], FoundBound)


def test_a_deleted_pod_holds_nothing() -> None:
    """The object is gone, and so is what it held; of an unknown pod nothing follows."""
    assert (Released(uid="uid-1", why="the pod is gone"),) == gone(books_with(State.BOUND).entry("uid-1")).events
    assert Sight() == gone(None)


# Lists


def test_a_pod_missing_from_a_list_is_gone_if_it_was_ever_watched() -> None:
    """A pod that was bound while the list was on its way is only missing because it is younger."""
    ledger = books_with(State.BOUND)

    assert (Doubtful(pod=PodRef.of(a_pod())),) == rebuild(ledger, [], CATALOG, cards_of)
    assert ledger.entry("uid-1")

    rebuild(ledger, [holding_pod()], CATALOG, cards_of)
    assert () == rebuild(ledger, [], CATALOG, cards_of)
    assert ledger.entry("uid-1") is None


def test_a_list_told_twice_is_told_once() -> None:
    """Relisting the same pods changes nothing."""
    ledger, _ = books()
    pods = [started(holding_pod())]
    rebuild(ledger, pods, CATALOG, cards_of)
    before = ledger.entries

    assert () == rebuild(ledger, pods, CATALOG, cards_of)
    assert before == ledger.entries


def _written(allocation: Allocation, pod: Pod) -> str:
    return allocation_annotations(CATALOG, allocation, pod, now=0)[ALLOCATED]
