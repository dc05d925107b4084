"""What a restart finds: the state without reservations and Bindings under way, whatever vendors, whatever lies."""

from collections.abc import Iterable
from itertools import count

import pytest
from hami_model.allocation import Allocation, State
from hami_model.annotations import allocation_annotations
from hami_model.charge import Card, Charge
from hami_model.demands import pod_demand
from hami_model.fleet import Fleet
from hami_model.keys import BIND_PHASE, NODE, SUCCESS
from hami_model.ledger import Ledger
from hami_model.life import BindSent, Bound, Reserved
from hami_model.objects import ContainerState, ContainerStatus, Pod, PodRef, PodStatus, Terminated
from hami_model.observe import observe
from hami_model.place import Placement, place
from hami_model.policies import PodPolicies
from hami_model.quota import UNLIMITED, Quotas
from hami_model.rebuild import rebuild
from hami_model.request import asks_for_devices
from hami_testkit.builders import PodBuilder, a_catalog, a_fleet, a_node, a_pod
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

CATALOG = a_catalog()
CHIP = "huawei.com/Ascend310P"
NODES = ("node-1", "node-2")

Amounts = dict[str, int | str]
NVIDIA: st.SearchStrategy[Amounts] = st.fixed_dictionaries(
    {"gpu": st.sampled_from([1, 2])},
    optional={"gpucores": st.sampled_from([0, 20, 100]), "gpumem": st.sampled_from([100, 3333])},
) | st.fixed_dictionaries({"gpu": st.just(1), "gpumem_percentage": st.sampled_from([1, 33, 70])})
ASCEND: st.SearchStrategy[Amounts] = st.fixed_dictionaries(
    {CHIP: st.just(1)}, optional={f"{CHIP}-memory": st.sampled_from([1000, 3072, 5000, 12288])}
)
MLU: st.SearchStrategy[Amounts] = st.fixed_dictionaries(
    {"mlu": st.just(1), "mlumem": st.sampled_from([1, 7]), "mlucores": st.sampled_from([1, 30])}
)
CONTAINERS = st.tuples(
    st.sampled_from(["asking", "asking", "beside", "starting_with"]), NVIDIA | ASCEND | MLU | st.just({})
)
PODS = st.lists(st.lists(CONTAINERS, min_size=1, max_size=3), min_size=1, max_size=5)
ENDS = st.sampled_from(["reserved", "sent", "bound", "started", "started", "initialised", "over"])
LIES = st.sampled_from(["deleted", "rubbish", "elsewhere", "too many"])


class Books:
    """A ledger over two nodes with cards of three vendors."""

    def __init__(self) -> None:
        nodes = [
            a_node(name)
            .with_cards(2, memory=8000)
            .with_cards(2, memory=21527, vendor="Ascend310P", slots=7, cores=8)
            .with_cards(2, memory=24576, vendor="MLU", slots=100)
            for name in NODES
        ]
        self.fleet: Fleet = a_fleet(*nodes, catalog=CATALOG)
        self.quotas = Quotas(CATALOG)
        self.ledger = Ledger(self.fleet, self.quotas)

    def place(self, pod: Pod) -> Allocation | None:
        demand = pod_demand(pod, CATALOG)
        if not asks_for_devices(demand):
            return None
        placed = place(self.fleet, pod, demand, list(NODES), policies=PodPolicies(), quota=UNLIMITED)
        if not isinstance(placed, Placement):
            return None
        return Allocation(pod=PodRef.of(pod), node=placed.node, containers=placed.containers)

    def rebuild(self, pods: Iterable[Pod]) -> None:
        rebuild(self.ledger, list(pods), CATALOG, self.fleet.devices)

    @property
    def bound(self) -> dict[str, tuple[State, str, dict[Card, Charge]]]:
        return {e.uid: (e.state, e.node, e.charges) for e in self.ledger.entries if e.is_bound}


def through(books: Books, pod: Pod, end: str) -> Pod:
    """Take a pod as far as it comes, and return it as the API server then has it."""
    allocation, uid = books.place(pod), pod.metadata.uid
    if allocation is None:
        return pod
    books.ledger.apply(Reserved(uid=uid, pod=pod, allocation=allocation))
    if end == "reserved":
        return pod
    books.ledger.apply(BindSent(uid=uid))
    if end == "sent":
        return pod
    books.ledger.apply(Bound(uid=uid))
    bound = structs.replace(pod, spec=structs.replace(pod.spec, node_name=allocation.node))
    stored = annotated(bound, allocation_annotations(CATALOG, allocation, pod, now=0))
    if end == "bound":
        return stored
    stored = structs.replace(stored, status=status_of(pod, end))
    for event in observe(books.ledger.entry(uid), stored, CATALOG, books.fleet.devices).events:
        books.ledger.apply(event)
    return stored


def status_of(pod: Pod, end: str) -> PodStatus:
    """Say how far the kubelet is: the first container has started, all init containers are over, or everything is."""
    if end == "over":
        return PodStatus(phase="Failed")
    running, ended = ContainerState(running={}), ContainerState(terminated=Terminated(exit_code=0))
    init = [
        ContainerStatus(name=c.name, state=running if c.is_sidecar or end == "started" else ended)
        for c in pod.init_containers
    ]
    apps = [] if init and end == "started" else [ContainerStatus(name=c.name, state=running) for c in pod.containers]
    return PodStatus(phase="Running", init_container_statuses=init, container_statuses=apps)


def annotated(pod: Pod, annotations: dict[str, str]) -> Pod:
    merged = {**pod.annotations, **annotations}
    return structs.replace(pod, metadata=structs.replace(pod.metadata, annotations=merged))


def lied(pod: Pod, lie: str) -> Pod:
    """Return the pod after somebody who may edit it has done so."""
    texts = {key: text for key, text in pod.annotations.items() if key.endswith("-allocated")}
    match lie:
        case "deleted":
            return structs.replace(pod, metadata=structs.replace(pod.metadata, annotations={}))
        case "elsewhere":
            return annotated(pod, {NODE: "node-9"})
        case "rubbish":
            return annotated(pod, dict.fromkeys(texts, "rubbish;"))
        case _:
            return annotated(pod, {key: text.replace(":", ":GPU-x,NVIDIA,1,0:") for key, text in texts.items()})


def built(number: int, containers: list[tuple[str, Amounts]]) -> Pod:
    """Return a pod with these containers; it has an ordinary one in any case."""
    pod: PodBuilder = a_pod(f"pod-{number}")
    for verb, amounts in containers:
        pod = getattr(pod, verb)(**amounts)
    return (pod if pod.containers else pod.asking()).pod()


@given(PODS, st.lists(ENDS, min_size=5, max_size=5))
def test_a_restart_finds_what_was_bound_and_nothing_else(
    pods: list[list[tuple[str, Amounts]]], ends: list[str]
) -> None:
    """Card for card, with the same states; what was only reserved, or on its way, is not there."""
    old, new = Books(), Books()
    stored = [
        through(old, built(at, containers), end) for at, containers, end in zip(count(), pods, ends, strict=False)
    ]

    new.rebuild(stored)

    assert old.bound == new.bound
    assert () == new.ledger.audit()


@given(PODS, st.lists(ENDS, min_size=5, max_size=5), LIES)
def test_no_lie_of_a_running_pod_frees_what_it_holds(
    pods: list[list[tuple[str, Amounts]]], ends: list[str], lie: str
) -> None:
    """Who watched all along is not moved at all; who restarts books at least what is held, and no pod that waits."""
    old, new = Books(), Books()
    stored = [
        through(old, built(at, containers), end) for at, containers, end in zip(count(), pods, ends, strict=False)
    ]
    before = old.bound
    told = [lied(pod, lie) for pod in stored]
    new.rebuild(told)
    old.rebuild(told)

    assert before == old.bound
    running = {uid: held for uid, held in before.items() if held[0] is State.ACTIVE}
    for uid, (_, node, charges) in running.items():
        _, where, found = new.bound[uid]
        assert node == where
        for card, held in charges.items():
            assert found.get(card, Charge()) | held == found.get(card, Charge())
    assert new.bound.keys() <= before.keys()


@pytest.mark.parametrize("lie", ["deleted", "rubbish", "elsewhere", "too many"])
def test_what_waiting_pods_say_of_themselves_books_nothing(lie: str) -> None:
    """Pre-filled annotations hold no card, and keep nobody from one."""
    full = {"hami.io/vgpu-devices-allocated": "node-1-0,NVIDIA,8000,100:;", NODE: "node-1", BIND_PHASE: SUCCESS}
    books = Books()
    books.rebuild([lied(annotated(a_pod().asking(gpu=1).pod(), full), lie)])

    assert {} == books.bound
    assert () == books.ledger.entries


def test_pods_that_hami_placed_are_counted() -> None:
    """After a migration they run on: HAMi leaves out the group of a container without devices."""
    pod = a_pod().asking().asking(gpu=1, gpumem=3000).pod()
    by_hami = {
        "hami.io/bind-phase": "success", "hami.io/bind-time": "1767225600", "hami.io/vgpu-node": "node-1",
        "hami.io/vgpu-time": "1767225600", "hami.io/vgpu-devices-to-allocate": ";",
        "hami.io/vgpu-devices-allocated": "node-1-0,NVIDIA,3000,0:;",
    }  # fmt: skip
    books = Books()
    books.rebuild([annotated(structs.replace(pod, spec=structs.replace(pod.spec, node_name="node-1")), by_hami)])

    assert {("NVIDIA", "node-1-0"): Charge(slots=1, memory=3000)} == books.fleet.use("node-1")
