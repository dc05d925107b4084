"""Pods come, start, and go on nodes of all vendors but NVIDIA: columns answer as plain loops do at every step."""

from dataclasses import dataclass, field, replace
from random import Random

import pytest
from hami_model.allocation import Allocation
from hami_model.charge import Charge, charge
from hami_model.demands import pod_demand
from hami_model.device import Device, Size
from hami_model.fleet import Fleet
from hami_model.objects import ContainerState, ContainerStatus, Meta, Node, Pod, PodRef, Terminated
from hami_model.place import Placement, place, why_not
from hami_model.policies import CARD_KEY, NODE_KEY, Policies, for_pod
from hami_model.quota import QuotaView, Room
from hami_testkit import slow_guests
from hami_testkit.builders import PodBuilder, a_card, a_catalog, a_pod
from hami_testkit.deciding import cards
from hami_testkit.slow_forms import FORMS, WINGED
from hami_testkit.slow_scheduler import decide, held
from hami_testkit.slow_world import Guest, SlowNode, SlowPod, Use
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

CATALOG = a_catalog()
SIZES = {
    "Ascend910A": (32768, 2184, 4369), "Ascend910B2": (65536, 8192, 16384), "Ascend910B3": (65536, 16384, 32768),
    "Ascend910B4": (32768, 8192, 16384), "Ascend910B4-1": (65536, 16384, 32768), "Ascend910C": (65536, 16384),
    "Ascend310P": (21527, 3072, 6144, 12288), "MLU": (24576, 1024, 4096, 12288),
    "DCU": (65520, 2000, 16384, 30000), "MR-V100": (32768, 2048, 8192, 16384),
    "AWSNeuron": (0,), "AMD": (196608, 16384, 49152, 98304), "Biren": (65024, 65024), "Vastai": (32768, 32768),
    "Enflame": (40960, 6144, 20480),
    "Mthreads": (49152, 1024, 16384, 32768), "Metax-GPU": (65536,), "Metax-SGPU": (65536, 4096, 16384),
    "GCU": (100,), "kunlun": (98304,), "XPU": (98304, 24576, 49152),
}  # fmt: skip
"""MiB of a whole card, then of shares of it, by word."""
BY_NUMBER = {
    "Biren": "birentech.com/gpu", "Vastai": "vastaitech.com/va", "Metax-GPU": "metax-tech.com/gpu",
    "GCU": "enflame.com/gcu", "kunlun": "kunlunxin.com/xpu",
}  # fmt: skip
"""Resources of words whose cards are asked for by number alone."""
WHOLE_CORES = ("MLU", "DCU", "MR-V100", "Metax-SGPU", "XPU", *BY_NUMBER)
"""Words whose cards have a hundred cores, split in software or not."""
SIX_SLICES = tuple(
    Size(name=f"{slices}g.{gib}gb", slices=slices, memory=gib * 1024, cores=cores)
    for slices, gib, cores in ((1, 6, 17), (3, 20, 50), (6, 40, 100))
)
"""Shares that Enflame cards of six slices give."""
CORES = (0, 10, 25, 50, 100)
CARD_POLICIES = ("binpack", "spread", "mutex", "numa,binpack", "")
SOFT = {"huawei.com/vnpu-mode": "hami-core"}
CLASS, QOS = "metax-tech.com/sgpu-app-class", "metax-tech.com/sgpu-qos-policy"


@dataclass
class Running:
    """A placed pod: where it is, what it holds, and how the loops see it."""

    pod: Pod
    allocation: Allocation
    asked: SlowPod
    before: SlowNode
    shares: dict[str, Use]
    charged: dict[tuple[str, str], Charge]


@dataclass
class Cluster:
    """The same nodes twice: in columns, and as plain objects."""

    random: Random
    nodes: dict[str, SlowNode]
    fleet: Fleet
    running: list[Running] = field(default_factory=list)


def a_slow_node(name: str, words: list[str], random: Random) -> SlowNode:
    """Make up a node of one or two kinds of cards, which splits in software or does not."""
    soft, devices = random.random() < 0.4, list[Device]()
    for word in random.sample(words, random.randint(1, len(words))):
        per_device, instance = random.choice([2, 2, 4]), random.choice(["trn1.32xlarge", "inf2.48xlarge"])
        is_networked = word.startswith("Ascend910") and random.random() < 0.9
        profiles = random.choice([SIX_SLICES, SIX_SLICES[::2]])
        has_dies = word == "Vastai" and random.random() < 0.8
        for at in range(random.choice([2, 4, 8, 8, 10] if word in WINGED else [1, 2, 4, 4, 6])):
            network = {"NetworkID": random.choice([0, 0, 1])} if is_networked and random.random() < 0.98 else {}
            if has_dies and random.random() < 0.98:
                network = {"DeviceStrategy": "die", "AIC": str(random.choice([0, 0, 1]))}
            facts = {"index": at, "slots": random.choice([2, 4, 7]), "custom": network, "numa": random.randint(0, 1)}
            units = random.choice([304, 104, 100, 60])
            card_cores = (
                units if word == "AMD" else 100 if word in WHOLE_CORES or (soft and random.random() < 0.9) else 20
            )
            healthy = random.random() < 0.92
            if word == "Mthreads":
                card_cores = 16
            if word == "AWSNeuron":
                facts = {"index": at, "slots": per_device, "mode": instance}
                card_cores = 2**per_device - 1
            if word == "Metax-SGPU":
                facts["custom"] = {"LinkZone": random.choice([0, 1, 1, 2, 2, 2])}
            if word == "Enflame":
                facts["sizes"], card_cores = profiles, 100 + 2 * (len(profiles) > 2)
            devices.append(
                a_card(
                    f"{name}-{word}-{at}",
                    vendor=word,
                    memory=SIZES[word][0],
                    cores=card_cores,
                    healthy=healthy,
                    **facts,
                )  # type: ignore[arg-type]
            )
    return SlowNode(devices, {}, soft_split=soft)


def a_cluster(kind: str, random: Random) -> Cluster:
    """Make up one to four empty nodes of one kind of cards, or of that and another."""
    others = [*random.sample(list(SIZES), random.choice([0, 0, 1]))]
    if random.random() < 0.5:
        others += [other for pair in FORMS if kind in pair for other in pair]
    words = list(dict.fromkeys([kind, *others]))
    nodes = {f"n{number}": a_slow_node(f"n{number}", words, random) for number in range(random.randint(1, 4))}
    fleet = Fleet(CATALOG)
    for name, node in nodes.items():
        for word in CATALOG.words:
            fleet.set_devices(name, word, [device for device in node.devices if device.vendor == word])
        mode = {"hami-vnpu-core": str(node.soft_split).lower()}
        fleet.set_node(Node(metadata=Meta(name=name, annotations=mode)))
    return Cluster(random, nodes, fleet)


def amounts(word: str, random: Random, *, soft: bool) -> dict[str, int]:
    """Make up what a container asks of one kind of card."""
    count, memory = random.choice([1, 1, 1, 2, 2, 3, 4]), random.choice(SIZES[word])
    cores = random.choice(CORES)
    if word == "MLU":
        return {"mlu": count, **random.choice([{}, {"mlumem": memory // 256}, {"mlumem": 4, "mlucores": cores}])}
    if word == "DCU":
        share = {"hygon.com/dcumem": memory, "hygon.com/dcucores": cores}
        return {"hygon.com/dcunum": count, **random.choice([{}, share, share])}
    if word == "MR-V100":
        share = {f"iluvatar.ai/{word}.vMem": memory // 256, f"iluvatar.ai/{word}.vCore": cores}
        return {f"iluvatar.ai/{word}-vgpu": count, **random.choice([{}, share, share])}
    if word == "AWSNeuron":
        return random.choice(
            [{"aws.amazon.com/neuron": count}, {"aws.amazon.com/neuroncore": random.choice([1, 2, 8])}]
        )
    if word == "AMD":
        asked = {"amd.com/gpu": count, "amd.com/gpumem": memory, "amd.com/gpucores": random.choice([1, 7, 33, 100])}
        return {name: asked[name] for name in asked if name == "amd.com/gpu" or random.random() < 0.8}
    if word == "Enflame":
        share = {"enflame.com/gcu-memory": memory, "enflame.com/gcu-core": random.choice([1, 17, 18, 100])}
        return random.choice([{"enflame.com/drs-gcu": random.choice([1, 1, 2, 3, 6])}, share])
    if word == "Mthreads":
        share = {"mthreads.com/sgpu-memory": memory // 512, "mthreads.com/sgpu-core": random.choice([1, 4, 8, 16])}
        return {"mthreads.com/vgpu": count, **random.choice([{}, share, share])}
    if word == "Metax-SGPU":
        share = {"metax-tech.com/vmemory": memory // 1024, "metax-tech.com/vcore": random.choice([*CORES, 120])}
        return {"metax-tech.com/sgpu": count, **random.choice([{}, share, share, share])}
    if word == "XPU":
        return {"kunlunxin.com/vxpu": random.choice([1, 1, 2, 4, 8]), "kunlunxin.com/vxpu-memory": memory}
    if word in BY_NUMBER:
        return {BY_NUMBER[word]: random.choice([1, 2, 4, 8]) if word in WINGED else count}
    name = f"huawei.com/{word}"
    asked = {name: count, f"{name}-memory": memory}
    return {**asked, f"{name}-core": cores} if soft else asked


def a_new_pod(name: str, cluster: Cluster) -> PodBuilder:
    """Make up a pod of init containers, sidecars and containers for the kinds of cards that are there."""
    random, soft = cluster.random, cluster.random.random() < 0.4
    words = sorted({device.vendor for node in cluster.nodes.values() for device in node.devices})
    pod = a_pod(name).annotated(SOFT if soft else {})
    if random.random() < 0.5:
        pod = pod.annotated({CARD_KEY: random.choice(CARD_POLICIES), NODE_KEY: random.choice(["binpack", "spread"])})
    if "Metax-SGPU" in words and random.random() < 0.7:
        pod = pod.annotated(random.choice([{CLASS: "online"}, {CLASS: "offline"}, {QOS: "fixed-share"}]))
    if random.random() < 0.2:
        uuids = [device.id for node in cluster.nodes.values() for device in node.devices]
        listed = ",".join(random.sample(uuids, random.randint(1, len(uuids))))
        keys = CATALOG.by_word(words[0]).selectors
        key = random.choice([keys.use_uuid, keys.nouse_uuid])
        pod = pod.annotated({key: listed} if key else {})

    def some() -> dict[str, int]:
        chosen = random.sample(words, random.choice([0, 1, 1, 1, 1, 1, len(words)]))
        return {key: amount for word in chosen for key, amount in amounts(word, random, soft=soft).items()}

    for _ in range(random.choice([0, 0, 0, 1, 2])):
        pod = pod.beside(**some()) if random.random() < 0.3 else pod.starting_with(**some())
    for _ in range(random.choice([1, 1, 2])):
        pod = pod.asking(**some())
    return pod


def come(cluster: Cluster, pod: Pod, quota: QuotaView) -> None:
    """Ask both for a place, compare, and book it in both."""
    constraints = {vendor.word: vendor.constraints(vendor, pod) for vendor in CATALOG.vendors}
    demand, policies, names = pod_demand(pod, CATALOG), for_pod(pod, Policies()), list(cluster.nodes)
    asked = SlowPod(demand, constraints, policies, quota, pod.annotations)
    outcome = place(cluster.fleet, pod, demand, names, policies=policies, quota=quota)
    reasons = why_not(cluster.fleet, pod, demand, names, policies=policies, quota=quota)
    refused = {names[position]: text for text, positions in reasons.items() for position in positions}
    fast = (outcome.node, cards(outcome.containers)) if isinstance(outcome, Placement) else ("", [])

    assert decide(cluster.nodes, asked) == (*fast, refused)

    if isinstance(outcome, Placement):
        node = cluster.nodes[outcome.node]
        before = replace(node, use=dict(node.use))
        allocation = Allocation(pod=PodRef.of(pod), node=outcome.node, containers=outcome.containers)
        running = Running(pod, allocation, asked, before, {}, {})
        become(cluster, running, held(before, asked))


def become(cluster: Cluster, running: Running, shares: dict[str, Use]) -> None:
    """Let a pod hold these shares from now on; the books of both must say the same."""
    node = cluster.nodes[running.allocation.node]
    use = dict(node.use)
    for uuid in {*running.shares, *shares}:
        old, had, has = use.get(uuid, Use()), running.shares.get(uuid, Use()), shares.get(uuid, Use())
        use[uuid] = Use(
            slots=old.slots - had.slots + has.slots,
            memory=old.memory - had.memory + has.memory,
            cores=old.cores - had.cores + has.cores,
        )
    charges = charge(running.allocation, running.pod) if shares else {}
    assert {uuid: (use.slots, use.memory, use.cores) for uuid, use in shares.items()} == {
        uuid: (one.slots, one.memory, one.cores) for (_, uuid), one in charges.items()
    }
    cluster.fleet.discharge(running.allocation.node, running.charged)
    cluster.fleet.charge(running.allocation.node, charges)
    running.shares, running.charged = shares, charges
    cluster.running = [one for one in cluster.running if one is not running] + ([running] if shares else [])
    cluster.nodes[running.allocation.node] = replace(node, use=use, guests=guests(cluster, running.allocation.node))


def guests(cluster: Cluster, node: str) -> dict[str, list[Guest]]:
    """Return who is on each MetaX card of the node: a pod once on each card, with its QoS if any container shares."""
    found: dict[str, list[Guest]] = {}
    for running in cluster.running:
        grants = [g for c in running.allocation.containers for g in c.grants if g.vendor == slow_guests.SHARED]
        for uuid in running.shares if running.allocation.node == node else ():
            cores = [grant.cores for grant in grants if grant.uuid == uuid]
            if cores:
                found.setdefault(uuid, []).append(slow_guests.guest(running.pod.annotations, min(cores)))
    return found


def start(cluster: Cluster, running: Running) -> None:
    """Let a pod's init containers end."""
    ended = ContainerState(terminated=Terminated(exit_code=0))
    statuses = [ContainerStatus(name=container.name, state=ended) for container in running.pod.init_containers]
    running.pod = structs.replace(
        running.pod, status=structs.replace(running.pod.status, init_container_statuses=statuses)
    )
    become(cluster, running, held(running.before, running.asked, initialised=True))


@pytest.mark.parametrize("word", SIZES)
@settings(max_examples=12)
@given(st.integers(0, 2**32))
def test_every_step_is_answered_as_plain_loops_answer(word: str, seed: int) -> None:
    """The same node, the same cards in the same order, or the very same words, however full the nodes are by now."""
    random = Random(seed)
    cluster = a_cluster(word, random)
    tight = Room(memory=random.choice([None, 20000, 70000, 200000]), cores=random.choice([None, 50, 250]))
    for number in range(12):
        if cluster.running and random.random() < 0.3:
            one = random.choice(cluster.running)
            if random.random() < 0.4:
                start(cluster, one)
            else:
                become(cluster, one, {})
            continue
        quota = dict.fromkeys(CATALOG.words, tight) if random.random() < 0.3 else {}
        come(cluster, a_new_pod(f"p{number}", cluster).pod(), quota)
