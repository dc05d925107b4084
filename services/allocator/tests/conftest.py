"""A small allocator without its shell: the books, the desk, and a clock that the test moves."""

from collections.abc import Mapping

import pytest
from hami_allocator.agents import Agents
from hami_allocator.desk import Desk
from hami_allocator.facts import Fact, PodNews
from hami_allocator.liveness import Hearing
from hami_allocator.nodes import Nodes
from hami_allocator.world import World
from hami_model.annotations import encode_register
from hami_model.config import DEFAULTS
from hami_model.device import Device
from hami_model.life import Entry, Event
from hami_model.objects import Container, Meta, Node, NodeStatus, Pod, PodSpec, Resources
from hami_model.policies import Policies
from hami_model.vendors import build

REGISTER = "hami.io/node-nvidia-register"


class HeldClock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def now(self) -> float:
        return 1767225600.0 + self.seconds

    def monotonic(self) -> float:
        return self.seconds

    def boottime(self) -> float:
        return self.seconds


class Recorder:
    """A duty that writes down what it is told."""

    def __init__(self) -> None:
        self.facts: list[Fact] = []
        self.told: list[PodNews] = []
        self.steps: list[Event] = []
        self.nodes: list[str] = []

    def after(self, event: Event, before: Entry | None, after: Entry | None) -> None:
        self.steps.append(event)

    def tell(self, fact: Fact) -> None:
        self.facts.append(fact)

    def news(self, news: PodNews) -> None:
        self.told.append(news)

    def registered(self, node: str) -> None:
        self.nodes.append(node)

    @property
    def kinds(self) -> list[str]:
        return [fact.kind for fact in self.facts]


class Bench:
    """The books with two nodes of two cards, 8000 MiB each."""

    def __init__(self) -> None:
        self.clock = HeldClock()
        self.hearing = Hearing(self.clock.monotonic())
        catalog = build(DEFAULTS, ascend=True, iluvatar=True)
        self.world = World(catalog, Policies(), Nodes(catalog, {}, self.hearing))
        self.duty = Recorder()
        self.world.duty = self.duty
        self.desk = Desk(self.world, self.clock)
        self.agents = Agents(self.world, self.clock)
        for name in ("node-1", "node-2"):
            self.see(a_node(name))

    def see(self, node: Node) -> None:
        self.agents.note(self.world.nodes.saw(node, self.clock.monotonic()))
        self.world.fleet.set_node(node)

    def used(self, node: str) -> int:
        return sum(charge.memory for charge in self.world.fleet.use(node).values())


@pytest.fixture
def bench() -> Bench:
    return Bench()


def a_node(name: str, cards: int = 2, annotations: Mapping[str, str] | None = None) -> Node:
    devices = [
        Device(
            id=f"GPU-{name}-{i}", vendor="NVIDIA", index=i, slots=10, memory=8000, cores=100,
            model="NVIDIA A40", mode="hami-core",
        )
        for i in range(cards)
    ]  # fmt: skip
    given = {REGISTER: encode_register(devices)} if annotations is None else annotations
    return Node(
        metadata=Meta(name=name, annotations=dict(given)),
        status=NodeStatus(allocatable={"nvidia.com/gpu": str(10 * cards)}),
    )


def a_pod(name: str, *, gpu: int = 1, mem: int | str = 1000, version: str = "1") -> Pod:
    limits: dict[str, str | int | float] = {"nvidia.com/gpu": gpu, "nvidia.com/gpumem": mem} if gpu else {"cpu": "1"}
    return Pod(
        metadata=Meta(name=name, namespace="team-a", uid=f"uid-{name}", resource_version=version),
        spec=PodSpec(containers=[Container(name="main", resources=Resources(limits=limits))]),
    )
