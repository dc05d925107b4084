"""The desk on a node in mode mig: containers get instances, and nobody gets slices that another still has."""

import asyncio
from pathlib import Path

import pytest
from hami_model.allocation import Allocation, ContainerGrants, Cut, Grant, MadeInstance
from hami_model.bus.messages import Confirm
from hami_model.device import Device, Placement
from hami_model.objects import Pod, PodRef
from hami_model.request import Role
from hami_node_agent.desk import Refusal
from hami_node_agent.inventory import replica_ids
from hami_node_agent.mig.book import Book, BookFile, Piece
from hami_node_agent.mig.cutter import Cutter
from hami_node_agent.probes.nvml.driver import DriverTrouble
from hami_node_agent.probes.nvml.instances import Instance, Survey
from hami_node_agent.probes.nvml.threads import Worker
from hami_testkit.clock import FakeClock

from .test_desk import NODE, Node, a_container, a_pod, cards_in

CARD = Device(id="GPU-a", vendor="NVIDIA", slots=4, memory=10_000, cores=100, model="NVIDIA-A", mode="mig")


class FakeKnife:
    """A driver without calls: what it made, and why it does not now."""

    def __init__(self) -> None:
        self.made: dict[tuple[str, int], str] = {}
        self.why_not = ""
        self._number = 0

    def survey(self, card: str) -> Survey:
        return Survey(is_on=True, will_be_on=True)

    def turn_on(self, card: str) -> None:
        raise AssertionError("it is on")

    def make(self, card: str, profile: str, placement: Placement, *, adopts: bool) -> Instance:
        self._check()
        self._number += 1
        uuid = self.made[card, placement.start] = f"MIG-{self._number}"
        return Instance(card=card, id=self._number, profile=profile, placement=placement, computes={0: uuid})

    def destroy(self, card: str, profile: str, placement: Placement, *, uuid: str = "") -> None:
        self._check()
        self.made.pop((card, placement.start), None)

    def _check(self) -> None:
        if self.why_not:
            raise DriverTrouble(self.why_not)


class Cards:
    def __init__(self) -> None:
        self.to_cut = {"GPU-a": True}

    def hurry(self) -> None:
        return


class CutNode(Node):
    """A node with one card in mode mig."""

    def __init__(self, folder: Path) -> None:
        self.knife = FakeKnife()
        self.disk = BookFile(folder / "mig.json")
        book = Book(on_change=self.write)
        cutter = Cutter(cards=Cards(), knife=self.knife, book=book, worker=Worker(5), clock=FakeClock())
        super().__init__(folder, cards=(CARD,), cutter=cutter)

    def write(self, pieces: tuple[Piece, ...]) -> None:
        self.disk.write(pieces)

    def promise(self, pod: Pod, *starts: int) -> Pod:
        """Let the API server have the pod bound here, each of its containers with an instance of two slices."""
        containers = tuple(
            ContainerGrants(name=c.name, role=Role.INIT if c in pod.init_containers else Role.APP, grants=(grant,))
            for c, start in zip(pod.all_containers, starts, strict=True)
            for grant in [
                Grant(
                    uuid="GPU-a", vendor="NVIDIA", memory=100, cores=10,
                    cuts=(Cut(profile="2g.10gb", placement=Placement(start, 2)),),
                )
            ]
        )  # fmt: skip
        self.stored[pod.metadata.uid] = Allocation(pod=PodRef.of(pod), node=NODE, containers=containers)
        self.pods.see(pod)
        return pod


@pytest.fixture
def node(tmp_path: Path) -> CutNode:
    return CutNode(tmp_path)


async def admit(node: CutNode, pod: Pod) -> dict[str, str]:
    """Let the kubelet start a pod; return what each container sees."""
    free = [i for i in replica_ids(CARD) if all(i not in ids for ids in node.kubelet.in_use.values())]
    seen = {}
    node.kubelet.shown["default", pod.metadata.name] = {c.name: frozenset() for c in pod.containers}
    for container in pod.all_containers:
        device_id = free.pop()
        seen[container.name] = cards_in(await node.desk.allocate([device_id]))
        node.kubelet.in_use.setdefault(pod.metadata.uid, set()).add(device_id)
    return seen


async def test_init_and_app_container_have_instances_side_by_side(node: CutNode) -> None:
    """The confirmation of the last one says what was made for the whole pod."""
    pod = node.promise(a_pod("p", a_container("app", 1), init=(a_container("first", 1),)), 0, 2)

    assert await admit(node, pod) == {"first": "MIG-1", "app": "MIG-2"}
    told = [m.instances for m in node.reports.waiting if isinstance(m, Confirm) and m.complete]
    assert told == [
        [
            MadeInstance(container=name, place=0, device="GPU-a", uuid=f"MIG-{i}", gpu_instance=i, compute_instance=0)
            for i, name in enumerate(("first", "app"), start=1)
        ]
    ]


async def test_the_next_pod_waits_for_the_last_process_of_the_one_before(node: CutNode) -> None:
    """Its slices are given on once its instance is destroyed, which a process may hold up."""
    first = node.promise(a_pod("first", a_container("c", 1)), 0)
    await admit(node, first)
    node.kubelet.forget(first)
    node.pods.lose(first)
    node.knife.why_not = "process 42 is on it"
    await node.releases.sweep()
    held = node.table.pods
    second = node.promise(a_pod("second", a_container("c", 1)), 0)
    waiting = asyncio.create_task(admit(node, second))
    node.knife.why_not = ""

    assert await waiting == {"c": "MIG-2"}
    assert PodRef.of(first) in held
    assert node.table.pods == (PodRef.of(second),)
    assert node.knife.made == {("GPU-a", 0): "MIG-2"}


async def test_slices_that_a_living_pod_has_are_refused(node: CutNode) -> None:
    """Whatever the allocator says."""
    await admit(node, node.promise(a_pod("first", a_container("c", 1)), 0))
    second = node.promise(a_pod("second", a_container("c", 1)), 1)

    with pytest.raises(Refusal, match=r"2g\.10gb at 1\+2 of GPU-a cannot be made while pod default/first has 2g\.10gb"):
        await admit(node, second)


async def test_a_container_whose_instance_cannot_be_made_is_refused_with_the_reason(node: CutNode) -> None:
    """Nothing of it is held afterwards."""
    pod = node.promise(a_pod("p", a_container("c", 1)), 0)
    node.knife.why_not = "the card has no room there"

    with pytest.raises(Refusal, match=r"MIG instances of c cannot be made: 2g\.10gb at 0\+2 of GPU-a: the card has no"):
        await admit(node, pod)
    assert node.releases.holders == ()


async def test_an_instance_that_cannot_be_written_down_is_not_made(node: CutNode) -> None:
    """An agent that starts again would not know whose it is."""
    pod = node.promise(a_pod("p", a_container("c", 1)), 0)
    node.disk = BookFile(Path("/proc/none/mig.json"))

    with pytest.raises(Refusal, match="whose a MIG instance is cannot be written down on the node: "):
        await admit(node, pod)
    assert (node.knife.made, node.releases.holders) == ({}, ())


async def test_an_instance_that_cannot_be_forgotten_now_is_forgotten_later(node: CutNode) -> None:
    """Its slices are given on only then."""
    pod = node.promise(a_pod("p", a_container("c", 1)), 0)
    await admit(node, pod)
    node.kubelet.forget(pod)
    node.pods.lose(pod)
    disk, node.disk = node.disk, BookFile(Path("/proc/none/mig.json"))
    await node.releases.sweep()
    held = node.releases.holders
    node.disk = disk
    await node.releases.sweep()

    assert (held, node.releases.holders) == ((PodRef.of(pod),), ())
