"""The checker against the allocator's own books: what they allow is never found, and one unit more always is."""

from hami_model.allocation import Allocation
from hami_model.annotations import allocation_annotations
from hami_model.demands import pod_demand
from hami_model.fleet import Fleet
from hami_model.ledger import Ledger
from hami_model.life import BindSent, Bound, Released, Seen
from hami_model.objects import ContainerState, ContainerStatus, Pod, PodRef, PodStatus, Terminated
from hami_model.place import Placement, place
from hami_model.policies import PodPolicies
from hami_model.quota import UNLIMITED, Quotas
from hami_testkit.builders import NodeBuilder, PodBuilder, a_card, a_fleet, a_node, a_pod
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from .inspected import CATALOG, NOW, bound, look, rules

DRS = {
    "enflame.com/gcu-drs-capacity": '{"devices": [{"index": "0", "capacity": 6}, {"index": "1", "capacity": 6}], '
    '"profiles": {"1g.6gb": "0", "3g.20gb": "1", "6g.40gb": "2"}}'
}


def a_drs_node(name: str) -> NodeBuilder:
    """Two Enflame cards of six slices."""
    built, vendor = a_node(name).annotated(DRS), CATALOG.by_word("Enflame")
    for card in vendor.discover(vendor, built.node()):
        built = built.with_card(card)
    return built


NODES: tuple[NodeBuilder, ...] = (
    a_node("node-1").with_cards(2, memory=8000, slots=4),
    a_node("node-2").with_cards(1, memory=16000, slots=3).with_cards(2, vendor="Ascend310P", memory=21527, cores=8),
    a_node("node-3").with_card(a_card("node-3-cambricon-mlu-0", memory=16384, vendor="MLU", slots=100)),
    a_node("node-4").with_cards(2, vendor="DCU", memory=65520, slots=4),
    a_node("node-5").with_cards(1, vendor="MR-V100", memory=32768, slots=4),
    a_drs_node("node-6"),
)  # fmt: skip

ASKS = st.sampled_from([
    {},
    {"gpu": 1, "gpumem": 3000},
    {"gpu": 1, "gpumem": 100, "gpucores": 40},
    {"gpu": 2, "gpumem_percentage": 50, "gpucores": 20},
    {"gpu": 1, "gpumem": 100, "gpucores": 100},
    {"gpu": 1},
    {"mlu": 1, "mlumem": 8, "mlucores": 30},
    {"huawei.com/Ascend310P": 1, "huawei.com/Ascend310P-memory": 6144},
    {"hygon.com/dcunum": 2, "hygon.com/dcumem": 30000, "hygon.com/dcucores": 40},
    {"iluvatar.ai/MR-V100-vgpu": 1, "iluvatar.ai/MR-V100.vMem": 40},
    {"enflame.com/drs-gcu": 1},
    {"enflame.com/gcu-memory": 7, "enflame.com/gcu-core": 40},
])  # fmt: skip
ROLES = st.sampled_from(["asking", "asking", "starting_with", "beside"])
PODS = st.lists(
    st.tuples(st.lists(st.tuples(ROLES, ASKS), min_size=1, max_size=3), st.sampled_from(["starts", "runs", "ends"])),
    max_size=12,
)


class Books:
    """The allocator's books, and the pods as the API server shows them."""

    def __init__(self) -> None:
        self.fleet: Fleet = a_fleet(*NODES, catalog=CATALOG)
        self.ledger = Ledger(self.fleet, Quotas(CATALOG))
        self.pods: list[Pod] = []
        self.held: list[tuple[Pod, Allocation]] = []

    def run(self, built: PodBuilder, then: str) -> None:
        """Place a pod, bind it, and let it come as far as ``then``."""
        pod = built.pod()
        placement = place(
            self.fleet, pod, pod_demand(pod, CATALOG), self.fleet.nodes, policies=PodPolicies(), quota=UNLIMITED
        )
        if not isinstance(placement, Placement):
            return
        allocation = Allocation(pod=PodRef.of(pod), node=placement.node, containers=placement.containers)
        self.ledger.apply(BindSent(uid=pod.metadata.uid, pod=pod, allocation=allocation))
        self.ledger.apply(Bound(uid=pod.metadata.uid))
        self.pods.append(as_bound(pod, allocation))
        if then == "starts":
            self.held.append((self.pods[-1], allocation))
            return
        self.pods[-1] = structs.replace(self.pods[-1], status=status_of(pod, then))
        if then == "ends":
            self.ledger.apply(Released(uid=pod.metadata.uid))
        else:
            self.ledger.apply(Seen(uid=pod.metadata.uid, pod=self.pods[-1]))
            self.held.append((self.pods[-1], allocation))


def as_bound(pod: Pod, allocation: Allocation) -> Pod:
    """Return the pod as the Binding left it."""
    said = pod.annotations | allocation_annotations(CATALOG, allocation, pod, now=NOW)
    meta = structs.replace(pod.metadata, annotations=said)
    return structs.replace(pod, metadata=meta, spec=structs.replace(pod.spec, node_name=allocation.node))


def status_of(pod: Pod, then: str) -> PodStatus:
    ended = ContainerState(terminated=Terminated(exit_code=0))
    init = [ContainerStatus(name=c.name, state=ended) for c in pod.init_containers if not c.is_sidecar]
    return PodStatus(phase="Succeeded" if then == "ends" else "Running", init_container_statuses=init)


def booked(wishes: list[tuple[list[tuple[str, dict[str, int]]], str]]) -> Books:
    books = Books()
    for number, (containers, then) in enumerate(wishes):
        built = a_pod(f"p{number}")
        for role, ask in containers:
            built = getattr(built, role)(**ask)
        books.run(built, then)
    return books


@given(PODS)
def test_what_the_books_allow_is_never_found(wishes: list[tuple[list[tuple[str, dict[str, int]]], str]]) -> None:
    """Any pods, in any order, in any stage of their lives."""
    books = booked(wishes)

    assert () == look([built.node() for built in NODES], books.pods)


@given(PODS, st.sampled_from([card.id for built in NODES for card in built.cards if card.vendor == "NVIDIA"]),
       st.sampled_from(["over-memory", "over-cores", "over-slots"]))  # fmt: skip
def test_one_unit_more_is_always_found(
    wishes: list[tuple[list[tuple[str, dict[str, int]]], str]], card: str, rule: str
) -> None:
    """Whatever stands on the card already."""
    books = booked(wishes)
    node = next(built for built in NODES if card in {each.id for each in built.cards})
    size = next(each for each in node.cards if each.id == card)
    used = books.fleet.use(node.name).get(("NVIDIA", card))
    memory, cores, slots = (used.memory, used.cores, used.slots) if used else (0, 0, 0)
    shares = {
        "over-memory": [(size.memory - memory + 1, 0)],
        "over-cores": [(0, size.cores - cores + 1)],
        "over-slots": [(0, 0)] * (size.slots - slots + 1),
    }[rule]
    thief = a_pod("thief")
    for _ in shares:
        thief = thief.asking(gpu=1)
    text = "".join(f"{card},NVIDIA,{mib},{percent}:;" for mib, percent in shares)
    found = look([built.node() for built in NODES], [*books.pods, bound(thief, node.name, holds=text)])

    assert rule in rules(found)
    assert {card} == {finding.card for finding in found}


@given(PODS)
def test_pods_bound_twice_as_often_are_found(wishes: list[tuple[list[tuple[str, dict[str, int]]], str]]) -> None:
    """A second set of the same pods: wherever the two together exceed the card by the books' sum, a card is found."""
    books = booked(wishes)
    again = [as_bound(renamed(pod), allocation) for pod, allocation in books.held]
    uses = {(node, key): use for node, booked in books.fleet.uses.items() for key, use in booked.items()}
    sizes = {(built.name, (card.vendor, card.id)): card for built in NODES for card in built.cards}
    doubled = {
        place[1][1]
        for place, use in uses.items()
        if 2 * use.memory > sizes[place].memory
        or 2 * use.slots > sizes[place].slots
        or 2 * use.cores > sizes[place].cores
    }
    found = look([built.node() for built in NODES], [*books.pods, *again])

    assert doubled <= {finding.card for finding in found}


def renamed(pod: Pod) -> Pod:
    meta = structs.replace(pod.metadata, name=f"{pod.metadata.name}-again", uid=f"{pod.metadata.uid}-again")
    return structs.replace(pod, metadata=meta)


def test_the_books_are_worth_asking() -> None:
    """Pods with init containers do share the cards of these tests, and are found nowhere."""
    start: tuple[str, dict[str, int]] = ("starting_with", {"gpu": 1, "gpumem": 3000})
    books = booked([([start, ("asking", {"gpu": 1, "gpumem": 100})], "starts")] * 9)
    most = max(use.slots for uses in books.fleet.uses.values() for use in uses.values())

    assert (7, 3) == (len(books.pods), most)
    assert () == look([built.node() for built in NODES], books.pods)
