"""The fleet and the pods of a storm: how many nodes of each kind, and pods that fill most of it in any order.

One rule: everything follows from the numbers and the seed; what stands here is the truth that findings are measured by.
"""

import random
from collections.abc import Iterator, Sequence
from enum import StrEnum
from typing import Any

from msgspec import Struct

Json = dict[str, Any]
GPU_MEMORY, NPU_MEMORY, MLU_MEMORY = 40_000, 65_536, 24_576
"""MiB of a card."""
NPU, NPU_SLICE = "Ascend910B3", 16_384
MLU_UNITS = 24
"""Units of 256 MiB that a pod gets: a quarter of a card."""
MORE_OR_LESS = (0.6, 0.9, 1.1, 1.4)
"""How big the pods of one storm are, around their mean."""
ORDINARY = {"cpu": "64", "memory": "256Gi", "ephemeral-storage": "100Gi", "pods": "110"}


class Kind(StrEnum):
    """Who serves a node's containers."""

    AGENT = "agent"
    """Our node-agent as a process, and a kubelet."""
    PLAYED = "played"
    """The node-agent's part on the bus, played here."""
    PLUGIN = "plugin"
    """HAMi's NVIDIA plugin, played here: it finds its pod by the node's lock."""
    NPU = "npu"
    MLU = "mlu"
    """The vendor's plugin, and a kubelet."""


class Card(Struct, frozen=True, kw_only=True):
    """What a card has: MiB, percent, slots."""

    id: str
    memory: int
    cores: int
    slots: int


class FleetNode(Struct, frozen=True, kw_only=True):
    """One node with its cards."""

    name: str
    kind: Kind
    cards: tuple[Card, ...]

    @property
    def has_kubelet(self) -> bool:
        """Say whether a kubelet admits its pods, or whoever plays the node."""
        return self.kind in (Kind.AGENT, Kind.NPU, Kind.MLU)

    @property
    def object(self) -> Json:
        """Return the Node as it registers."""
        capacity = dict(ORDINARY)
        if self.kind in (Kind.PLAYED, Kind.PLUGIN):
            capacity["nvidia.com/gpu"] = str(sum(card.slots for card in self.cards))
        ready = {"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "it is"}
        labels = {"kubernetes.io/hostname": self.name}
        status = {"capacity": capacity, "allocatable": capacity, "conditions": [ready]}
        return {"metadata": {"name": self.name, "labels": labels}, "status": status}


def fleet(count: int) -> list[FleetNode]:
    """Return so many nodes: some of each kind, most of them played."""
    few = max(1, count // 16)
    kinds = [Kind.AGENT] * few + [Kind.MLU] * few + [Kind.NPU] * max(1, count // 10) + [Kind.PLUGIN] * (count // 5)
    kinds += [Kind.PLAYED] * (count - len(kinds))
    return [_node(f"{kind}-{i}", kind, twice=i % 3 == 0) for i, kind in enumerate(kinds)]


def _node(name: str, kind: Kind, *, twice: bool) -> FleetNode:
    match kind:
        case Kind.NPU:
            cards = [Card(id=f"{NPU}-{name}-0", memory=NPU_MEMORY, cores=20, slots=4)]
        case Kind.MLU:
            cards = [Card(id=f"{name}-cambricon-mlu-0", memory=MLU_MEMORY, cores=100, slots=100)]
        case _:
            ids = [f"GPU-{name}-{i}" for i in range(2 if twice else 1)]
            cards = [Card(id=i, memory=GPU_MEMORY, cores=100, slots=16) for i in ids]
    return FleetNode(name=name, kind=kind, cards=tuple(cards))


def pods(nodes: Sequence[FleetNode], count: int, rng: random.Random) -> Iterator[Json]:
    """Yield so many pods in the order of their arrival, all of which fit at once, in whatever order they come.

    Nothing is ever bigger than what the fullest possible card has left: a pod that fits nowhere means that more is
    booked than pods hold.
    """
    npus = sum(3 for node in nodes if node.kind is Kind.NPU)
    mlus = sum(3 for node in nodes if node.kind is Kind.MLU)
    gpus = count - npus - mlus
    cards = sum(len(node.cards) for node in nodes if node.kind not in (Kind.NPU, Kind.MLU))
    mean = GPU_MEMORY * fill(cards, gpus) * cards / gpus
    sizes = [int(mean * MORE_OR_LESS[i % len(MORE_OR_LESS)]) for i in range(gpus)]
    made = [_gpu(size, containers=1 + (rng.random() < 0.2)) for size in sizes] + [_npu()] * npus + [_mlu()] * mlus
    rng.shuffle(made)
    for i, limits in enumerate(made):
        yield pod(f"p{i}", limits, run_seconds=rng.randint(3, 15) if rng.random() < 0.1 else 0)


def fill(cards: int, pods: int) -> float:
    """Return how full all cards become: so that even the biggest pod finds room on some card at the end."""
    return min(0.9, 1 / (1 + max(MORE_OR_LESS) * cards / pods))


def pod(name: str, limits: Sequence[dict[str, str]], *, run_seconds: int = 0) -> Json:
    """Return a pod of a container for each of the limits; one that ends by itself after so many seconds, if any."""
    containers = [
        {"name": f"c{i}", "image": "app", "resources": {"limits": each, "requests": each}}
        for i, each in enumerate(limits)
    ]
    notes = {"standin.hami.io/run-seconds": str(run_seconds)} if run_seconds else {}
    spec = {"schedulerName": "hami-scheduler", "restartPolicy": "Always", "containers": containers}
    return {"metadata": {"name": name, "annotations": notes}, "spec": spec}


def _gpu(size: int, *, containers: int) -> list[dict[str, str]]:
    memory, cores = size // containers, size * 90 // GPU_MEMORY // containers
    each = {"nvidia.com/gpu": "1", "nvidia.com/gpumem": str(memory), "nvidia.com/gpucores": str(cores)}
    return [each] * containers


def _npu() -> list[dict[str, str]]:
    return [{f"huawei.com/{NPU}": "1", f"huawei.com/{NPU}-memory": str(NPU_SLICE)}]


def _mlu() -> list[dict[str, str]]:
    names = ("vmlu", "mlu.smlu.vmemory", "mlu.smlu.vcore")
    return [{f"cambricon.com/{name}": str(amount) for name, amount in zip(names, (1, MLU_UNITS, 25), strict=True)}]
