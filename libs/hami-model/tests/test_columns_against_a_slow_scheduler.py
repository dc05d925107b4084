"""Columns give the answers of a scheduler without columns, whatever the fleet and the pod."""

from random import Random

from hami_model.allocation import Allocation
from hami_model.charge import Charge, charge
from hami_model.demands import pod_demand
from hami_model.device import Device
from hami_model.explain import explain
from hami_model.fleet import Fleet
from hami_model.objects import Meta, Node, Pod, PodRef
from hami_model.place import Placement, place, why_not
from hami_model.policies import CARD_KEY, NODE_KEY, WEIGHTS_KEY, Policies, for_pod
from hami_model.quota import QuotaView, Room
from hami_testkit.builders import PodBuilder, a_card, a_catalog, a_pod
from hami_testkit.deciding import cards
from hami_testkit.slow_scheduler import decide
from hami_testkit.slow_world import SlowNode, SlowPod, Use
from hypothesis import given, settings
from hypothesis import strategies as st

CATALOG = a_catalog()
VENDORS = ("NVIDIA", "MLU")
FEW = st.integers(0, 2)


def a_slow_node(name: str, random: Random) -> SlowNode:
    """Make up a node of a few cards of two vendors: most in use, some broken or cordoned."""
    devices, use = list[Device](), dict[str, Use]()
    count = random.choice([0, 1, 2, 3, 4, 4, 5, 5])
    for at in range(count):
        vendor = random.choice(["NVIDIA", "NVIDIA", "NVIDIA", "NVIDIA", "MLU"])
        card = a_card(
            f"{name}-{at}",
            vendor=vendor,
            index=at,
            memory=random.choice([4096, 8192]),
            cores=random.choice([100, 100, 100, 100, 0, 150]),
            slots=random.choice([2, 10, 10]),
            numa=random.randint(0, 1),
            model=random.choice([vendor, "NVIDIA A100"]),
            healthy=random.random() < 0.95,
            links={f"{name}-{other}": random.choice([0, 10, 100]) for other in range(count) if other != at},
        )
        devices.append(card)
        if random.random() < 0.6:
            use[card.id] = Use(
                slots=random.randint(1, 2),
                memory=random.choice([0, 0, 1024, 4096]),
                cores=random.choice([0, 70, 100]),
            )
    devices.sort(key=lambda device: VENDORS.index(device.vendor))
    cordoned = frozenset(d.id for d in devices if d.vendor == "NVIDIA" and random.random() < 0.05)
    return SlowNode(devices, use, cordoned)


def a_slow_fleet(random: Random) -> dict[str, SlowNode]:
    """Make up one to four nodes."""
    return {f"n{number}": a_slow_node(f"n{number}", random) for number in range(random.randint(1, 4))}


fleets = st.integers(0, 2**32).map(lambda seed: a_slow_fleet(Random(seed)))  # a seed spreads more evenly than draws
asks = st.one_of(
    st.just({}),
    st.fixed_dictionaries(
        {
            "gpu": st.integers(1, 3),
            "gpucores": st.sampled_from([0, 20, 60, 100]),
            "gpumem": st.sampled_from([100, 1024, 3000]),
        },
    ),
    st.fixed_dictionaries({"gpu": st.integers(1, 2), "gpucores": st.sampled_from([0, 100])}),
    st.fixed_dictionaries({"gpu": st.integers(1, 2), "gpumem_percentage": st.sampled_from([1, 33, 50, 100])}),
    st.fixed_dictionaries(
        {"mlu": st.integers(1, 2), "mlumem": st.sampled_from([1, 8, 16]), "mlucores": st.sampled_from([10, 50])}
    ),
    st.just({"gpu": 1, "gpumem": 1024, "mlu": 1, "mlumem": 4, "mlucores": 10}),
)
card_policies = st.sampled_from(["binpack", "spread", "mutex", "numa", "numa,binpack", "mutex,spread", "bogus"])
annotations = st.one_of(
    st.just({}),
    st.builds(
        lambda card, node: {CARD_KEY: card, NODE_KEY: node}, card_policies, st.sampled_from(["binpack", "spread"])
    ),
    st.builds(lambda card: {CARD_KEY: card, "nvidia.com/numa-bind": "true"}, card_policies),
    st.just({"nvidia.com/numa-bind": "true"}),
    st.sampled_from([{WEIGHTS_KEY: "slot=0,core=0,memory=1"}, {WEIGHTS_KEY: "slot=3,core=1,memory=2"}]),
    st.sampled_from([{"nvidia.com/use-gputype": "a100"}, {"nvidia.com/use-gpuuuid": "n0-0,n0-1,n0-2,n1-0,n1-1,n2-3"}]),
)
by_topology = st.sampled_from([{CARD_KEY: "topology-aware"}, {CARD_KEY: "topology-aware", "nvidia.com/numa-bind": "1"}])
rooms = st.one_of(
    st.just(Room()),
    st.builds(
        Room,
        memory=st.sampled_from([None, 0, 2048, 5000, 9000, 20000]),
        cores=st.sampled_from([None, 0, 60, 150]),
    ),
)


@st.composite
def pods(draw: st.DrawFn, annotations: st.SearchStrategy[dict[str, str]] = annotations) -> PodBuilder:
    """Draw a pod of init containers, sidecars and containers."""
    pod = a_pod().annotated(draw(annotations))
    for _ in range(draw(FEW)):
        amounts = draw(asks)
        pod = pod.beside(**amounts) if draw(st.booleans()) else pod.starting_with(**amounts)
    for _ in range(draw(st.integers(1, 2))):
        pod = pod.asking(**draw(asks))
    return pod


def columns_of(nodes: dict[str, SlowNode]) -> Fleet:
    """Bring the same nodes into columns."""
    fleet = Fleet(CATALOG)
    for name, node in nodes.items():
        for word in VENDORS:
            fleet.set_devices(name, word, [device for device in node.devices if device.vendor == word])
        fleet.set_node(Node(metadata=Meta(name=name, annotations={"hami.io/device-cordon": ",".join(node.cordoned)})))
        words = {device.id: device.vendor for device in node.devices}
        booked = {
            (words[uuid], uuid): Charge(slots=use.slots, memory=use.memory, cores=use.cores)
            for uuid, use in node.use.items()
        }
        fleet.charge(name, booked)
    return fleet


def slow_answer(nodes: dict[str, SlowNode], pod: Pod, quota: QuotaView) -> object:
    """Ask the scheduler without columns."""
    constraints = {vendor.word: vendor.constraints(vendor, pod) for vendor in CATALOG.vendors}
    return decide(nodes, SlowPod(pod_demand(pod, CATALOG), constraints, for_pod(pod, Policies()), quota))


def fast_answer(nodes: dict[str, SlowNode], pod: Pod, quota: QuotaView) -> object:
    """Ask the columns."""
    fleet = columns_of(nodes)
    demand, policies = pod_demand(pod, CATALOG), for_pod(pod, Policies())
    outcome = place(fleet, pod, demand, list(nodes), policies=policies, quota=quota)
    reasons = why_not(fleet, pod, demand, list(nodes), policies=policies, quota=quota)
    refused = {list(nodes)[position]: text for text, positions in reasons.items() for position in positions}
    explained = explain(fleet, pod, demand, list(nodes), policies=policies, quota=quota)
    assert refused == {verdict.node: verdict.text for verdict in explained if not verdict.fits}
    if not isinstance(outcome, Placement):
        assert reasons == outcome.reasons
        return "", [], refused
    allocation = Allocation(pod=PodRef.of(pod), node=outcome.node, containers=outcome.containers)
    check_room(allocation, pod, quota)
    return outcome.node, cards(outcome.containers), refused


def check_room(allocation: Allocation, pod: Pod, quota: QuotaView) -> None:
    """See that what the books will charge is what the quota still allowed."""
    charges = charge(allocation, pod)
    for word, room in quota.items():
        mine = [cost for (vendor, _), cost in charges.items() if vendor == word]
        assert room.holds(sum(cost.memory for cost in mine), sum(cost.cores for cost in mine))


@settings(max_examples=200)
@given(fleets, pods(), rooms)
def test_columns_answer_as_plain_loops_do(nodes: dict[str, SlowNode], asking: PodBuilder, room: Room) -> None:
    """The same node, the same cards in the same order, or the very same words."""
    compare(nodes, asking, room)


@settings(max_examples=150)
@given(fleets, pods(by_topology), rooms)
def test_connected_cards_are_those_of_plain_loops(nodes: dict[str, SlowNode], asking: PodBuilder, room: Room) -> None:
    """NVIDIA's pick by pair scores is the one that trying every subset finds."""
    compare(nodes, asking, room)


def compare(nodes: dict[str, SlowNode], asking: PodBuilder, room: Room) -> None:
    """Ask both."""
    pod, quota = asking.pod(), {"NVIDIA": room, "MLU": room}

    assert slow_answer(nodes, pod, quota) == fast_answer(nodes, pod, quota)


@settings(max_examples=60)
@given(st.integers(0, 2**32), pods(), rooms)
def test_many_nodes_at_once_answer_as_each_by_itself(seed: int, asking: PodBuilder, room: Room) -> None:
    """Walking all nodes in one pass is a matter of speed alone."""
    random, pod = Random(seed), asking.pod()
    nodes = {f"n{number}": a_slow_node(f"n{number}", random) for number in range(24)}
    fleet, quota = columns_of(nodes), {"NVIDIA": room}
    demand, policies = pod_demand(pod, CATALOG), for_pod(pod, Policies())

    together = why_not(fleet, pod, demand, list(nodes), policies=policies, quota=quota)

    alone: dict[str, list[int]] = {}
    for position, name in enumerate(nodes):
        for text in why_not(fleet, pod, demand, [name], policies=policies, quota=quota):
            alone.setdefault(text, []).append(position)
    assert alone == together
