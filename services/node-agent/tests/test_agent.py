"""The agent beside a kubelet that speaks the real device-plugin protocol, and an API server."""

import asyncio
import random
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hami_kit.bus import Endpoint
from hami_kit.clock import SystemClock
from hami_kit.errors import NoResponders
from hami_kit.kube import Kube
from hami_kit.telemetry import Telemetry
from hami_model import annotations, vendors
from hami_model.allocation import Allocation, ContainerGrants, Grant
from hami_model.bus import subjects
from hami_model.bus.events import CloudEvent
from hami_model.bus.messages import Confirm, Done, Heartbeat, Inventory, Leading, PushAllocation, Refuse
from hami_model.config import DEFAULTS
from hami_model.objects import Pod, PodRef
from hami_model.request import Role
from hami_node_agent import inventory as inventories
from hami_node_agent.agent import Agent, Places
from hami_node_agent.bootstrap import ApiReader, follow, run
from hami_node_agent.desk import Resource
from hami_node_agent.limits import HamiCore, hami_core
from hami_node_agent.pods import NodePods
from hami_node_agent.probes import SimulatedProbe
from hami_node_agent.table import Entry
from hami_testkit.cluster import Standin
from hami_testkit.cluster.client import ApiClient
from hami_testkit.cluster.kubelet import Kubelet, Options
from hami_testkit.cluster.plugins.plugin import DevicePlugin, nothing
from msgspec import Struct

GPU = "nvidia.com/gpu"
NODE = "n1"
CARDS = """
- {id: GPU-a, vendor: NVIDIA, index: 0, count: 4, devmem: 10000, type: NVIDIA A40}
- {id: GPU-b, vendor: NVIDIA, index: 1, count: 4, devmem: 10000, type: NVIDIA A40}
"""
CATALOG = vendors.build(DEFAULTS, ascend=False, iluvatar=False)


class FakeBus:
    """A bus within the test: it keeps what was said and hands on what the test says."""

    def __init__(self) -> None:
        self.is_up = True
        self.said: list[Struct] = []
        self.told: list[CloudEvent] = []
        self._heard_by: dict[str, Callable[[str, Any], Awaitable[None]]] = {}

    def emit(self, event: CloudEvent) -> None:
        self.told.append(event)

    async def publish(self, subject: str, message: Struct) -> None:
        await self.request(subject, message, None, timeout=0)

    async def request(self, subject: str, message: Struct, _reply_type: Any, *, timeout: float) -> Done:
        if not self.is_up:
            raise NoResponders(f"{subject}: nobody is there")
        self.said.append(message)
        return Done()

    async def subscribe(self, subject: str, _type: Any, handler: Callable[[str, Any], Awaitable[None]]) -> "FakeBus":
        self._heard_by[subject] = handler
        return self

    async def serve(self, _name: str, _endpoints: Sequence[Endpoint]) -> "FakeBus":
        return self

    async def stop(self) -> None:
        self._heard_by.clear()

    async def tell(self, subject: str, message: Struct) -> None:
        await self._heard_by[subject](subject, message)

    def of_type(self, kind: type[Struct]) -> list[Any]:
        return [message for message in self.said if isinstance(message, kind)]


class Node:
    """A node with a kubelet and an agent on a stand-in cluster."""

    def __init__(self, api: ApiClient, kube: Kube, root: Path) -> None:
        self.api = api
        self.kube = kube
        self.root = root
        self.kubelet = Kubelet(api, NODE, root / "k", options=Options(restart_pause=0.2))
        self.bus = FakeBus()
        self.agent: Agent
        (root / "cards.yaml").write_text(CARDS)

    @asynccontextmanager
    async def agent_running(self) -> AsyncIterator[Agent]:
        """Run an agent that follows the node's pods."""
        pods = NodePods(NODE, lambda pod: annotations.read_allocation(CATALOG, pod))
        inventory = inventories.Inventory(SimulatedProbe(self.root / "cards.yaml"))
        await inventory.look()
        limiter = hami_core(lambda: HamiCore(hook_path=self.root, lock_dir=self.root / "lock"))
        self.pods = pods
        self.agent = Agent(
            node=NODE,
            name="agent-1",
            places=Places(kubelet=self.root / "k", home=self.root / "vgpu"),
            resources=[Resource(name=GPU, vendor="NVIDIA", limiter=limiter)],
            inventory=inventory,
            pods=pods,
            bus=self.bus,  # type: ignore[arg-type]
            reader=ApiReader(self.kube, pods),
            telemetry=Telemetry(),
            clock=SystemClock(),
            jitter=lambda seconds: min(seconds, 0.1),
            compare_every=0.05,
        )
        stop = asyncio.Event()
        running = asyncio.create_task(run(self.agent, follow(self.kube, NODE, self.agent), stop, grace=0))
        try:
            yield self.agent
        finally:
            stop.set()
            await running

    async def apply(self, pod: dict[str, Any]) -> PodRef:
        """Create a pod, unbound."""
        made = await self.api.create("/api/v1/namespaces/default/pods", pod)
        return PodRef.of(msgspec.convert(made, Pod))

    async def bind(self, ref: PodRef, *grants: tuple[str, str, int]) -> None:
        """Bind a pod as the allocator does: every annotation within the binding."""
        pod = msgspec.convert(await self.api.get(_path(ref)), Pod)
        written = annotations.allocation_annotations(CATALOG, an_allocation(pod, *grants), pod, now=1.0)
        await self._bind(ref, written if grants else {})

    async def bind_without_us(self, ref: PodRef) -> None:
        """Bind a pod as any other scheduler does."""
        await self._bind(ref, {})

    async def phase(self, ref: PodRef, *wanted: str) -> dict[str, Any]:
        """Wait until the pod is in one of these phases; return its status."""
        status: dict[str, Any] = {}

        async def reached() -> bool:
            nonlocal status
            status = (await self.api.get(_path(ref)))["status"]
            return status.get("phase") in wanted

        await until(reached)
        return status

    def env(self, ref: PodRef, container: str) -> dict[str, str]:
        """Return the environment that a container was given."""
        given = self.kubelet.given(ref.namespace, ref.name, container)
        assert given is not None
        return given.envs

    async def _bind(self, ref: PodRef, written: dict[str, str]) -> None:
        binding = {
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": ref.name, "uid": ref.uid, "annotations": written},
            "target": {"kind": "Node", "name": NODE},
        }
        await self.api.create(f"{_path(ref)}/binding", binding)


@pytest.fixture
async def node() -> AsyncIterator[Node]:
    """A node named n1 with a running kubelet; its folder is short, since sockets' paths are."""
    raw_node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE}}
    with tempfile.TemporaryDirectory(prefix="ha") as folder:
        root = Path(folder)
        async with (
            Standin.start(nodes=[raw_node]) as cluster,
            ApiClient.connect(cluster.url) as api,
            Kube.connect(str(cluster.kubeconfig(root / "kubeconfig"))) as kube,
        ):
            node = Node(api, kube, root)
            async with node.kubelet.running():
                yield node


async def until(is_so: Callable[[], Awaitable[bool]]) -> None:
    """Wait for a condition."""
    async with asyncio.timeout(20):
        while not await is_so():  # noqa: ASYNC110  the API server is asked, it tells nobody
            await asyncio.sleep(0.02)


async def offers(node: Node, count: int) -> bool:
    """Say whether the kubelet may give so many device IDs."""
    status = (await node.api.get(f"/api/v1/nodes/{NODE}")).get("status") or {}
    return bool((status.get("allocatable") or {}).get(GPU) == str(count))


async def registered(node: Node) -> None:
    """Wait until the kubelet has every device ID."""

    async def is_so() -> bool:
        return node.agent.is_registered and await offers(node, 8)

    await until(is_so)


def a_pod(
    name: str,
    *containers: tuple[str, int],
    init: Sequence[tuple[str, int]] = (),
    notes: dict[str, str] | None = None,
) -> dict[str, Any]:
    def spec(container: tuple[str, int]) -> dict[str, Any]:
        return {"name": container[0], "image": "app", "resources": {"limits": {GPU: str(container[1])}}}

    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "annotations": notes or {}},
        "spec": {"containers": [spec(c) for c in containers], "initContainers": [spec(c) for c in init]},
    }


def an_allocation(pod: Pod, *grants: tuple[str, str, int]) -> Allocation:
    containers = tuple(
        ContainerGrants(
            name=container.name,
            role=Role.INIT if container in pod.init_containers else Role.APP,
            grants=tuple(
                Grant(uuid=card, vendor="NVIDIA", memory=memory, cores=0)
                for name, card, memory in grants
                if name == container.name
            ),
        )
        for container in pod.all_containers
    )
    return Allocation(pod=PodRef.of(pod), node=NODE, containers=containers)


def _path(ref: PodRef) -> str:
    return f"/api/v1/namespaces/{ref.namespace}/pods/{ref.name}"


async def test_a_pod_with_an_init_container_and_two_others_gets_the_cards_of_each(node: Node) -> None:
    """From the binding's annotations to the containers' environment, and the allocator hears of each container."""
    async with node.agent_running():
        await registered(node)
        pod = await node.apply(a_pod("p", ("one", 1), ("two", 1), init=[("prepare", 1)]))
        await node.bind(pod, ("prepare", "GPU-a", 9000), ("one", "GPU-b", 3000), ("two", "GPU-a", 4000))
        await node.phase(pod, "Running")

        assert [node.env(pod, c)["NVIDIA_VISIBLE_DEVICES"] for c in ("prepare", "one", "two")] == [
            "GPU-a",
            "GPU-b",
            "GPU-a",
        ]
        assert node.env(pod, "one")["CUDA_DEVICE_MEMORY_LIMIT_0"] == "3000m"
        await until(lambda: said(node.bus, Confirm, 3))

    confirmed = [(c.container, c.devices, c.complete) for c in node.bus.of_type(Confirm)]
    assert confirmed == [("prepare", ["GPU-a"], False), ("one", ["GPU-b"], False), ("two", ["GPU-a"], True)]


async def test_many_pods_bound_at_once_each_get_their_own(node: Node) -> None:
    """No lock, no order: eight pods queue at the kubelet."""
    async with node.agent_running():
        await registered(node)
        refs = [await node.apply(a_pod(f"p{i}", ("c", 1))) for i in range(8)]
        await asyncio.gather(*(node.bind(ref, ("c", f"GPU-{'ab'[i % 2]}", 1000 + i)) for i, ref in enumerate(refs)))
        for i, ref in enumerate(refs):
            await node.phase(ref, "Running")
            assert node.env(ref, "c")["CUDA_DEVICE_MEMORY_LIMIT_0"] == f"{1000 + i}m"
            assert node.env(ref, "c")["NVIDIA_VISIBLE_DEVICES"] == f"GPU-{'ab'[i % 2]}"


async def test_pods_come_and_go_and_their_devices_with_them(node: Node) -> None:
    """A card for one pod at a time: each waits for the one before it to be gone, none is refused."""
    async with node.agent_running() as agent:
        await registered(node)
        for i in range(4):
            ref = await node.apply(a_pod(f"p{i}", ("c", 1)))
            await node.bind(ref, ("c", "GPU-a", 9000))
            await node.phase(ref, "Running")
            await node.api.delete(_path(ref), {"gracePeriodSeconds": 0})
        await until(lambda: is_true(not agent.table.entries))
        assert list((node.root / "vgpu" / "containers").iterdir()) == []


async def test_many_pods_come_and_go_at_once(node: Node) -> None:
    """Pods of one and two containers, with and without init containers; most are deleted while others are admitted.

    Meanwhile table, kubelet and cards are compared twenty times a second, and nobody is taken for a ghost.
    """
    chosen = random.Random(7)
    async with node.agent_running() as agent:
        await registered(node)
        alive: list[PodRef] = []
        for i in range(24):
            init = [("prepare", 1)] if i % 3 == 0 else []
            containers = [("one", 1), *([("two", 1)] if i % 4 == 0 else [])]
            ref = await node.apply(a_pod(f"p{i}", *containers, init=init))
            grants = [
                (c, f"GPU-{'ab'[(i + at) % 2]}", 100 + 10 * i + at) for at, (c, _) in enumerate([*init, *containers])
            ]
            await node.bind(ref, *grants)
            await node.phase(ref, "Running")
            for container, card, memory in grants:
                env = node.env(ref, container)
                assert (env["NVIDIA_VISIBLE_DEVICES"], env["CUDA_DEVICE_MEMORY_LIMIT_0"]) == (card, f"{memory}m")
            alive.append(ref)
            if len(alive) > 2:
                over = alive.pop(chosen.randrange(len(alive)))
                await node.api.delete(_path(over), {"gracePeriodSeconds": 0})
        await until(lambda: is_true(set(agent.table.pods) == set(alive)))
    assert [] == node.bus.told


async def test_containers_that_outlive_their_pod_are_waited_for(node: Node) -> None:
    """Force deletion: API server and kubelet forget the pod at once, its container runs on for a second."""
    async with node.agent_running():
        await registered(node)
        first = await node.apply(a_pod("x", ("c", 1), notes={"standin.hami.io/stop-seconds": "1"}))
        await node.bind(first, ("c", "GPU-a", 9000))
        await node.phase(first, "Running")
        await node.api.delete(_path(first), {"gracePeriodSeconds": 0})
        second = await node.apply(a_pod("y", ("c", 1)))
        await node.bind(second, ("c", "GPU-a", 9000))
        await node.phase(second, "Running")

        assert not node.kubelet.has_containers(first.uid)


async def test_a_pod_that_succeeds_gives_its_devices_back(node: Node) -> None:
    """Its object stays, its devices do not."""
    async with node.agent_running() as agent:
        await registered(node)
        ref = await node.apply(a_pod("x", ("c", 1), notes={"standin.hami.io/run-seconds": "0.1"}))
        await node.bind(ref, ("c", "GPU-a", 9000))
        await node.phase(ref, "Succeeded")
        await until(lambda: is_true(not agent.table.entries))


async def test_bound_pods_start_while_the_bus_is_down(node: Node) -> None:
    """The agent's own pod watch is enough; the allocator hears of it later."""
    node.bus.is_up = False
    async with node.agent_running():
        await registered(node)
        ref = await node.apply(a_pod("p", ("c", 1)))
        await node.bind(ref, ("c", "GPU-b", 3000))
        await node.phase(ref, "Running")
        assert node.env(ref, "c")["NVIDIA_VISIBLE_DEVICES"] == "GPU-b"

        node.bus.is_up = True
        await until(lambda: said(node.bus, Confirm, 1))


async def test_a_push_that_comes_late_is_waited_for(node: Node) -> None:
    """The pod was bound without annotations; what it gets is on its way over the bus."""
    async with node.agent_running():
        await registered(node)
        ref = await node.apply(a_pod("p", ("c", 1)))
        await node.bind_without_us(ref)
        pod = msgspec.convert(await node.api.get(_path(ref)), Pod)
        message = PushAllocation(allocation=an_allocation(pod, ("c", "GPU-a", 2000)), term="t")
        await until(lambda: is_true(node.pods.is_live(ref.uid)))
        await node.bus.tell(subjects.of_node(NODE, "allocation"), message)
        await node.phase(ref, "Running")

        assert node.env(ref, "c")["CUDA_DEVICE_MEMORY_LIMIT_0"] == "2000m"


async def test_a_pod_bound_by_somebody_else_is_refused_with_a_sentence(node: Node) -> None:
    """The kubelet fails the pod with it, the allocator hears it."""
    async with node.agent_running():
        await registered(node)
        ref = await node.apply(a_pod("p", ("c", 1)))
        await node.bind_without_us(ref)
        status = await node.phase(ref, "Failed")

        assert "pod default/p was bound without an allocation of nvidia.com/gpu" in status["message"]
        await until(lambda: said(node.bus, Refuse, 1))

    assert [r.pod for r in node.bus.of_type(Refuse)] == [ref]


async def test_a_card_is_not_overfilled_whoever_says_so(node: Node) -> None:
    """Two bindings that do not fit one card together: the second pod fails, the first runs on."""
    async with node.agent_running():
        await registered(node)
        first, second = [await node.apply(a_pod(name, ("c", 1))) for name in ("x", "y")]
        await node.bind(first, ("c", "GPU-a", 6000))
        await node.phase(first, "Running")
        await node.bind(second, ("c", "GPU-a", 6000))
        status = await node.phase(second, "Failed")

    assert "card GPU-a would hold 12000 MiB of 10000 MiB" in status["message"]


@pytest.mark.parametrize("lose_checkpoint", [False, True])
async def test_the_kubelet_restarts(node: Node, *, lose_checkpoint: bool) -> None:
    """The agent registers again by itself; running pods keep their IDs, new ones get others."""
    async with node.agent_running() as agent:
        await registered(node)
        first = await node.apply(a_pod("x", ("c", 1)))
        await node.bind(first, ("c", "GPU-a", 6000))
        await node.phase(first, "Running")
        held = agent.table.of_pod(first.uid)[0].ids

        await node.kubelet.restart(lose_checkpoint=lose_checkpoint)
        await until(lambda: is_true((node.root / "k" / "device-plugins" / "hami-nvidia.com-gpu.sock").exists()))
        await registered(node)
        second = await node.apply(a_pod("y", ("c", 1)))
        await node.bind(second, ("c", "GPU-a", 3000))
        await node.phase(second, "Running")

        assert node.env(second, "c")["CUDA_DEVICE_MEMORY_LIMIT_0"] == "3000m"
        assert set(held).isdisjoint(agent.table.of_pod(second.uid)[0].ids)


async def test_the_kubelet_dies_before_it_writes_our_answer_down(node: Node) -> None:
    """The agent has written it down; the next kubelet asks for the first container again, not for the second."""
    async with node.agent_running() as agent:
        await registered(node)
        await node.kubelet.stop()
        pod = await node.apply(a_pod("p", ("c", 1), init=[("prepare", 1)]))
        await node.bind(pod, ("prepare", "GPU-a", 5000), ("c", "GPU-b", 6000))
        place = {"pod": pod, "container": "prepare", "position": 0, "role": Role.INIT, "resource": GPU}
        agent.table.put(Entry(**place, ids=("GPU-a-0",), served=True))

        await node.kubelet.restart()
        await node.phase(pod, "Running")

        assert ["GPU-a", "GPU-b"] == [node.env(pod, name)["NVIDIA_VISIBLE_DEVICES"] for name in ("prepare", "c")]


async def test_a_container_restarts_after_the_kubelet_lost_its_checkpoint(node: Node) -> None:
    """The kubelet asks again and shows no pod's devices; who does not run is meant, though another one comes first."""
    async with node.agent_running() as agent:
        await registered(node)
        pod = await node.apply(a_pod("p", ("one", 1), ("two", 1)))
        await node.bind(pod, ("one", "GPU-a", 5000), ("two", "GPU-b", 6000))
        await node.phase(pod, "Running")
        await node.kubelet.restart(lose_checkpoint=True)
        await registered(node)

        node.kubelet.crash("default", "p", "two")
        await until(lambda: is_true(agent.served + agent.refused > 2))
        await until(lambda: is_true("GPU-b" in node.env(pod, "two").values()))

        assert (3, 0) == (agent.served, agent.refused)
        assert [("GPU-a", "5000m"), ("GPU-b", "6000m")] == [
            (node.env(pod, name)["NVIDIA_VISIBLE_DEVICES"], node.env(pod, name)["CUDA_DEVICE_MEMORY_LIMIT_0"])
            for name in ("one", "two")
        ]


async def test_the_agent_says_that_it_leaves(node: Node) -> None:
    """With its last word, so that nobody sends it a pod that nobody would serve."""
    async with node.agent_running():
        await registered(node)
        before = [beat.leaving for beat in node.bus.of_type(Heartbeat)]

    assert not any(before)
    assert node.bus.of_type(Heartbeat)[-1].leaving


async def test_the_agent_says_whether_the_kubelet_takes_its_devices(node: Node) -> None:
    """What another plugin has registered before is then nobody's."""
    async with node.agent_running() as agent:
        await registered(node)
        agent.presence.beat_soon()
        await until(lambda: is_true(node.bus.of_type(Heartbeat)[-1].offered == ["NVIDIA"]))
        await node.kubelet.stop()
        await until(lambda: is_true(not agent.offered))

    assert [] == node.bus.of_type(Heartbeat)[-1].offered


@pytest.mark.parametrize("loses_its_table", [False, True])
async def test_the_agent_restarts(node: Node, *, loses_its_table: bool) -> None:
    """What it gave out it still knows: from its own file, or from the checkpoint and the annotations."""
    async with node.agent_running() as agent:
        await registered(node)
        first = await node.apply(a_pod("x", ("c", 1), init=[("prepare", 1)]))
        await node.bind(first, ("prepare", "GPU-a", 5000), ("c", "GPU-a", 6000))
        await node.phase(first, "Running")
        before = {entry.key: entry for entry in agent.table.entries}
    if loses_its_table:
        (node.root / "vgpu" / "agent" / "table.json").unlink()

    async with node.agent_running() as agent:
        await registered(node)
        assert {entry.key: entry for entry in agent.table.entries} == before
        second = await node.apply(a_pod("y", ("c", 1)))
        await node.bind(second, ("c", "GPU-a", 6000))
        status = await node.phase(second, "Failed")

    assert "card GPU-a would hold 12000 MiB of 10000 MiB" in status["message"]


async def test_a_pod_that_ended_while_no_agent_ran_holds_nothing(node: Node) -> None:
    """The table on disk is older than the node."""
    async with node.agent_running():
        await registered(node)
        ref = await node.apply(a_pod("x", ("c", 1)))
        await node.bind(ref, ("c", "GPU-a", 6000))
        await node.phase(ref, "Running")
    await node.api.delete(_path(ref), {"gracePeriodSeconds": 0})

    async with node.agent_running() as agent:
        await until(lambda: is_true(not agent.table.entries))


async def test_the_kubelet_forgets_the_plugin(node: Node) -> None:
    """Its connection broke, or another plugin of the same resource came and went: we register again."""
    async with node.agent_running():
        await registered(node)
        async with DevicePlugin(GPU, ["x"], socket="other.sock", allocate=nothing).running(node.kubelet.plugins):
            await until(lambda: offers(node, 1))
        await registered(node)
        ref = await node.apply(a_pod("p", ("main", 1)))
        await node.bind(ref, ("main", "GPU-a", 1000))

        await node.phase(ref, "Running")


async def test_an_unhealthy_card_lowers_what_the_kubelet_may_give(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file of cards changes; the kubelet, and the allocator, hear of it."""
    monkeypatch.setattr(inventories, "LOOK_EVERY", 0.05)
    async with node.agent_running():
        await registered(node)
        (node.root / "cards.yaml").write_text(CARDS.replace("index: 1,", "index: 1, health: false,"))

        async def is_lower() -> bool:
            status = (await node.api.get(f"/api/v1/nodes/{NODE}"))["status"]
            return (status["capacity"][GPU], status["allocatable"][GPU]) == ("8", "4")

        await until(is_lower)
        await until(lambda: is_true([d.healthy for d in node.bus.of_type(Inventory)[-1].devices] == [True, False]))


async def test_a_new_leader_hears_everything_again(node: Node) -> None:
    """Its announcement is enough: inventory and what was served."""
    async with node.agent_running():
        await registered(node)
        ref = await node.apply(a_pod("x", ("c", 1)))
        await node.bind(ref, ("c", "GPU-a", 6000))
        await node.phase(ref, "Running")
        await until(lambda: said(node.bus, Confirm, 1))
        node.bus.said.clear()

        await node.bus.tell(subjects.LEADER, Leading(term="t2", identity="other"))

        await until(lambda: said(node.bus, Confirm, 1))
        await until(lambda: said(node.bus, Inventory, 1))


async def said(bus: FakeBus, kind: type[Struct], times: int) -> bool:
    return len(bus.of_type(kind)) >= times


async def is_true(value: object) -> bool:
    return bool(value)
