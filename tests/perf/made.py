"""Fleets and pods made in memory: every shape of pod that makes the allocator look closely at every node.

One rule: everything is made anew from the same seed, so two runs ask the same. Nothing here is timed.
"""

from collections.abc import Iterator, Sequence
from random import Random

from hami_model.charge import Charge
from hami_model.fleet import Fleet
from hami_model.objects import Meta, Node
from hami_model.policies import CARD_KEY, NODE_KEY
from hami_model.quota import QuotaView, Room
from hami_testkit.builders import PodBuilder, a_card, a_catalog, a_pod
from msgspec import Struct

from tests.perf.fleets import CARDS, MEMORY, MODEL, name_of

GPU, NPU, MLU = "NVIDIA", "Ascend910B3", "MLU"
MODELS = {GPU: MODEL, NPU: NPU, MLU: MLU}

NPUS, NPU_MEMORY = f"huawei.com/{NPU}", f"huawei.com/{NPU}-memory"
NUMA = {"nvidia.com/numa-bind": "true"}
CONNECTED = {CARD_KEY: "topology-aware"}
WHOLE = 100
MOST = MEMORY * 66 // 100
"""More than most cards have free: no node has it on all eight."""
SOME_UUIDS = 50
MLU_UNIT = 256


class Kind(Struct, frozen=True):
    """How the nodes of a fleet differ."""

    name: str
    different: int | None = None
    """So many different nodes, which the others repeat; None = all differ."""
    least: int = CARDS
    """Nodes have from so many cards to eight."""


KINDS = (Kind("20 kinds of nodes", 20), Kind("all nodes differ"), Kind("1 to 8 cards, all differ", least=1))


class Shape(Struct, frozen=True, kw_only=True):
    """One kind of pod, what its namespace may still take, and whose cards the fleet has."""

    name: str
    pod: PodBuilder
    quota: QuotaView = {}
    vendors: tuple[str, ...] = (GPU,)
    fits: bool = False


def fleet(size: int, vendors: Sequence[str], kind: Kind) -> Fleet:
    """Return a fleet whose cards are half full on average."""
    made = Fleet(a_catalog())
    for index in range(size):
        for vendor in vendors:
            _add(made, name_of(index), vendor, Random(f"{vendor}{index % (kind.different or size)}"), kind.least)
    return made


def _add(made: Fleet, name: str, vendor: str, random: Random, least: int) -> None:
    cards = random.randint(least, CARDS)
    uuids = [f"{name}-{vendor}-{at}" for at in range(cards)]
    pairs = {(a, b): random.choice([20, 50, 50, 90]) for a in range(cards) for b in range(a)}
    devices = [
        a_card(
            uuid,
            vendor=vendor,
            index=at,
            memory=MEMORY,
            model=MODELS[vendor],
            numa=2 * at // cards,
            custom={"NetworkID": 2 * at // cards} if vendor == NPU else {},
            links={uuids[to]: pairs[max(at, to), min(at, to)] for to in range(cards) if to != at},
        )
        for at, uuid in enumerate(uuids)
    ]
    made.set_devices(name, vendor, devices)
    made.set_node(Node(metadata=Meta(name=name)))
    shares = ((uuid, random.randint(30, 70)) for uuid in uuids)
    made.charge(name, {(vendor, uuid): Charge(slots=1, memory=MEMORY * p // 100, cores=p) for uuid, p in shares})


def shapes() -> Iterator[Shape]:
    """Yield all pods, the plain one first."""
    yield Shape(name="plain: one card, 1000 MiB", pod=a_pod().asking(gpu=1, gpumem=1000, gpucores=1), fits=True)
    yield from _simple()
    yield from _bound()
    yield from _several_containers()
    yield from _connected()


def _simple() -> Iterator[Shape]:
    """Yield pods whose cards answer each by itself."""
    small = a_pod().asking(gpu=1, gpumem=1000, gpucores=1)
    uuids = ",".join(f"{name_of(index)}-{GPU}-0" for index in range(SOME_UUIDS))
    chosen = {"nvidia.com/use-gpuuuid": uuids}
    yield Shape(name="too much memory", pod=a_pod().asking(gpu=1, gpumem=MEMORY - 1))
    yield Shape(name="eight cards, most too full", pod=a_pod().asking(gpu=CARDS, gpumem=MOST))
    yield Shape(name="whole memory in percent", pod=a_pod().asking(gpu=1, gpumem_percentage=WHOLE))
    yield Shape(name="two whole cards", pod=a_pod().asking(gpu=2, gpucores=WHOLE))
    yield Shape(name="mutex", pod=small.annotated({CARD_KEY: "mutex"}))
    yield Shape(name="a model that no node has", pod=small.annotated({"nvidia.com/use-gputype": "H100"}))
    yield Shape(name="50 uuids allowed", pod=small.annotated(chosen), fits=True)
    yield Shape(name="50 uuids allowed, three cards", pod=a_pod().asking(gpu=3, gpumem=1000).annotated(chosen))


def _bound() -> Iterator[Shape]:
    """Yield pods whose cards' answers depend on the cards taken before."""
    yield Shape(name="quota of memory", pod=a_pod().asking(gpu=4, gpumem=1000), quota={GPU: Room(memory=2000)})
    yield Shape(name="quota of cores", pod=a_pod().asking(gpu=3, gpumem=1000, gpucores=20), quota={GPU: Room(cores=50)})
    six = a_pod().asking(gpu=6, gpumem=1000).annotated(NUMA)
    yield Shape(name="numa-bind, six cards", pod=six)
    for policy in ("binpack", "spread", "numa,binpack", "spread,numa"):
        chain = six.annotated({CARD_KEY: policy, NODE_KEY: "spread"})
        yield Shape(name=f"numa-bind, six cards by {policy}", pod=chain)
    tight = {GPU: Room(memory=30000)}
    yield Shape(name="numa-bind and quota", pod=a_pod().asking(gpu=4, gpumem=9000).annotated(NUMA), quota=tight)


def _several_containers() -> Iterator[Shape]:
    """Yield pods whose containers see each other's cards."""
    yield Shape(name="two containers", pod=a_pod().asking(gpu=1, gpumem=1000).asking(gpu=CARDS, gpumem=MOST))
    third = MEMORY // 3
    yield Shape(
        name="two containers, each fits alone", pod=a_pod().asking(gpu=8, gpumem=third).asking(gpu=8, gpumem=third)
    )
    pod = a_pod().starting_with(gpu=1, gpumem=1000).beside(gpu=1, gpumem=1000).asking(gpu=1, gpumem=1000)
    yield Shape(name="init, sidecar, two containers", pod=pod.asking(gpu=8, gpumem=MOST))
    room = {GPU: Room(memory=3500)}
    yield Shape(name="init, sidecar, two containers, quota", pod=pod.asking(gpu=1, gpumem=2000), quota=room)
    six = a_pod()
    for _ in range(6):
        six = six.asking(gpu=4, gpumem=17000)
    yield Shape(name="six containers", pod=six)
    both = {"gpu": 1, "gpumem": 1000, "mlu": 1, "mlumem": 4, "mlucores": 10}
    more = {**both, "mlu": CARDS, "mlumem": MOST // MLU_UNIT}
    yield Shape(name="two vendors", pod=a_pod().asking(**both), vendors=(GPU, MLU), fits=True)
    yield Shape(name="two vendors, two containers", pod=a_pod().asking(**both).asking(**more), vendors=(GPU, MLU))


def _connected() -> Iterator[Shape]:
    """Yield pods whose cards a vendor picks by how well they are connected."""
    three = a_pod().asking(gpu=3, gpumem=1000).annotated(CONNECTED)
    yield Shape(name="topology-aware", pod=three, fits=True)
    yield Shape(name="topology-aware, eight cards", pod=a_pod().asking(gpu=8, gpumem=MOST).annotated(CONNECTED))
    yield Shape(
        name="topology-aware, numa-bind", pod=a_pod().asking(gpu=5, gpumem=1000).annotated({**CONNECTED, **NUMA})
    )
    yield Shape(name="topology-aware, two containers", pod=three.asking(gpu=8, gpumem=MOST))
    four = a_pod().asking(**{NPUS: 4, NPU_MEMORY: 1000})
    six = a_pod().asking(**{NPUS: 6, NPU_MEMORY: 1000})
    full = {NPUS: CARDS, NPU_MEMORY: MOST}
    yield Shape(name="four NPUs of one network", pod=four, vendors=(NPU,), fits=True)
    yield Shape(name="six NPUs of two networks", pod=six, vendors=(NPU,), fits=True)
    yield Shape(name="eight NPUs", pod=a_pod().asking(**full), vendors=(NPU,))
    yield Shape(name="NPUs, two containers", pod=four.asking(**full), vendors=(NPU,))
