"""Moore Threads GPUs: what a container's limits mean, what capacity says, and how a pod's containers share a card."""

from collections.abc import Mapping

import msgspec
import pytest
from hami_model import config, vendors
from hami_model.admission import Admit, Deny, Skip, admit
from hami_model.allocation import Allocation
from hami_model.annotations import allocation_annotations
from hami_model.demands import pod_demand
from hami_model.device import Device
from hami_model.errors import MalformedInventory
from hami_model.fleet import Fleet
from hami_model.objects import Meta, Node, Pod, PodRef
from hami_model.place import Placement, Unfit, place
from hami_model.policies import Policies, for_pod
from hami_model.request import Demand, Exactly, Whole
from hami_testkit.builders import PodBuilder, a_pod
from hami_testkit.deciding import cards

CATALOG = vendors.build(config.DEFAULTS, ascend=True, iluvatar=True)
MUSA = CATALOG.by_word("Mthreads")
VGPU, MEMORY, CORE = "mthreads.com/vgpu", "mthreads.com/sgpu-memory", "mthreads.com/sgpu-core"
A_SHARE = {VGPU: 1, MEMORY: 32, CORE: 8}


def a_musa_pod(limits: Mapping[str, object], requests: Mapping[str, object] | None = None) -> Pod:
    resources = {"limits": limits, "requests": limits if requests is None else requests}
    return msgspec.convert({"spec": {"containers": [{"name": "c0", "resources": resources}]}}, Pod)


def admitted(pod: Pod) -> Admit | Deny | Skip:
    return admit(pod, CATALOG, scheduler_name="hami-scheduler", force_overwrite=True)


def written(answer: Admit | Deny | Skip) -> list[tuple[str, str]]:
    """Return the limits that admission sets."""
    assert isinstance(answer, Admit)
    return [change.limit for change in answer.changes if change.limit is not None]


# Asking


@pytest.mark.parametrize(
    ("limits", "demand"),
    [
        ({VGPU: "1"}, (1, Whole(), 0)),
        ({VGPU: "1", MEMORY: "96", CORE: "16"}, (1, Exactly(49152), 16)),
        ({VGPU: "1", MEMORY: "32"}, (1, Exactly(16384), 0)),
        ({VGPU: "2", MEMORY: "192", CORE: "32"}, (2, Exactly(49152), 16)),
    ],
)
def test_memory_and_cores_are_those_of_all_cards_together(limits: dict[str, object], demand: tuple[int, ...]) -> None:
    """Memory in units of 512 MiB, cores in sixteenths of a card."""
    (container,) = pod_demand(a_musa_pod(limits), CATALOG)
    count, memory, cores = demand

    assert (Demand(vendor="Mthreads", count=count, memory=memory, cores=cores),) == container.demands


def test_whole_cards_are_written_out() -> None:
    """For several the pod says how many; shares of one card stay as they are."""
    two = admitted(a_musa_pod({VGPU: 2}))

    assert [(CORE, "16"), (MEMORY, "96")] == written(admitted(a_musa_pod({VGPU: 1})))
    assert [(CORE, "32"), (MEMORY, "192")] == written(two)
    assert ("mthreads.com/request-gpu-num", "2") in [c.annotation for c in two.changes]  # type: ignore[union-attr]
    assert [] == written(admitted(a_musa_pod(A_SHARE)))


def test_cores_without_memory_become_a_whole_card() -> None:
    """In the requests too, so that the API server takes the pod; the user is told."""
    answer = admitted(a_musa_pod({VGPU: 1, CORE: 8}))
    assert isinstance(answer, Admit)
    requests = [change.request for change in answer.changes if change.request is not None]

    assert [(CORE, "16")] == requests
    assert (
        f"container c0 asks for 8 of {CORE} and gets 16, all there is: for a share of one card name {MEMORY}",
    ) == answer.warnings


@pytest.mark.parametrize(
    ("limits", "answer"),
    [
        (
            {VGPU: "-1"},
            Deny(code=500, message=f"{VGPU} must be greater than 0: leave it out of container c0, or write 1"),
        ),
        (
            {VGPU: "342"},
            Deny(
                code=403,
                message=f"{VGPU} 342 in container c0 is more cards than a node can have: write at most 256",
            ),
        ),
        (
            {VGPU: "1", MEMORY: "3"},
            Deny(
                code=500,
                message="sGPU memory request value is invalid, valid values are [2, 4, 8, 16, 32, 64, 96], "
                f"in units of 512 MiB: {MEMORY} is 3 in container c0",
            ),
        ),
    ],
)
def test_what_no_card_can_give_is_refused(limits: dict[str, object], answer: Deny) -> None:
    """With what to write instead."""
    assert answer == admitted(a_musa_pod(limits))


def test_more_cores_than_a_card_has_are_warned_of() -> None:
    """The pod is taken as HAMi takes it, and waits for ever."""
    answer = admitted(a_musa_pod({VGPU: "1", MEMORY: "32", CORE: "17"}))

    assert isinstance(answer, Admit)
    assert (f"container c0 asks for 17 of {CORE}, more than a card has: write at most 16",) == answer.warnings


def test_memory_alone_is_left_to_others() -> None:
    """Without a count the pod asks for no card."""
    answer = admitted(a_musa_pod({MEMORY: "4"}))

    assert isinstance(answer, Admit)
    assert answer.scheduler_name is None


# What nodes say


def counted(cores: object, memory: object) -> tuple[Device, ...]:
    capacity = {name: n for name, n in ((CORE, cores), (MEMORY, memory)) if n is not None}
    return MUSA.discover(MUSA, a_node("n", capacity))


def a_node(name: str, capacity: Mapping[str, object]) -> Node:
    return msgspec.convert({"metadata": {"name": name}, "status": {"capacity": capacity}}, Node)


@pytest.mark.parametrize(
    ("cores", "memory", "number", "mib"),
    [("128", "768", 8, 49152), ("32", "192", 2, 49152), ("20", "96", 2, 24576), (None, "96", 0, 0)],
)
def test_cards_are_counted_from_the_capacity(cores: object, memory: object, number: int, mib: int) -> None:
    """One for each sixteen cores; together they never have more memory than the node."""
    found = counted(cores, memory)

    assert [f"n-mthreads-{at}" for at in range(number)] == [card.id for card in found]
    assert {(16, mib)} >= {(card.cores, card.memory) for card in found}


def test_a_capacity_that_is_no_number_is_named() -> None:
    """The node is left out, with the reason."""
    with pytest.raises(MalformedInventory) as refusal:
        counted("1500m", "96")

    assert f"capacity {CORE} of node n is 1500m, not a whole number" == str(refusal.value)


# Choosing


def a_musa_fleet(number: int) -> Fleet:
    node = a_node("n", {VGPU: 16 * number, CORE: 16 * number, MEMORY: 96 * number})
    fleet = Fleet(CATALOG)
    fleet.set_node(Node(metadata=Meta(name="n")))
    fleet.set_devices("n", "Mthreads", list(MUSA.discover(MUSA, node)))
    return fleet


def chosen(number: int, builder: PodBuilder) -> Placement | Unfit:
    pod = builder.pod()
    return place(a_musa_fleet(number), pod, pod_demand(pod, CATALOG), ["n"], policies=for_pod(pod, Policies()))


def test_containers_of_a_pod_share_a_card() -> None:
    """Even where spreading would take another; an init container, which is gone by then, may have any."""
    outcome = chosen(2, a_pod("p").starting_with(**{VGPU: 2}).asking(**A_SHARE).asking(**A_SHARE))

    assert isinstance(outcome, Placement)
    first, one, other = cards(outcome.containers)
    assert 2 == len(first)
    assert one == other


def test_a_pod_that_would_need_two_cards_is_told() -> None:
    """Its plugin reads one list of cards for the whole pod."""
    outcome = chosen(2, a_pod("p").asking(**A_SHARE).asking(**{VGPU: 1, MEMORY: 32, CORE: 16}))

    assert Unfit(reasons={"1/2 CardInsufficientCore, 1/2 CardNotFoundCustomFilterRule": [0]}) == outcome


def test_the_plugin_is_told_numbers_node_and_time() -> None:
    """There is no list that is emptied while pods are served."""
    pod = a_pod("p").asking(**{VGPU: 2}).asking().pod()
    outcome = place(a_musa_fleet(2), pod, pod_demand(pod, CATALOG), ["n"], policies=for_pod(pod, Policies()))
    assert isinstance(outcome, Placement)
    allocation = Allocation(pod=PodRef.of(pod), node="n", containers=outcome.containers)
    found = allocation_annotations(CATALOG, allocation, pod, now=1735689600.5)

    given = "n-mthreads-1,Mthreads,49152,0:n-mthreads-0,Mthreads,49152,0:;;"
    assert given == found["hami.io/mthreads-vgpu-devices-allocated"]
    assert ("1,0", "n") == (found["mthreads.com/gpu-index"], found["mthreads.com/predicate-node"])
    assert "1735689600500000000" == found["mthreads.com/predicate-time"]
    assert not [key for key in found if key.endswith("-to-allocate")]
