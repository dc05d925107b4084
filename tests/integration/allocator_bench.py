"""An allocator over a real NATS server and the stand-in API server, in one process, with the words its stories need.

One rule: a story waits for what it wants to see, with a deadline; it never sleeps and hopes.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import httpx
import msgspec
from hami_allocator.bootstrap import running
from hami_allocator.process import Process
from hami_allocator.settings import AllocatorSettings
from hami_kit.bus import Bus, BusSettings, connect
from hami_kit.errors import NoResponders
from hami_kit.kube import Kube
from hami_kit.settings import Address
from hami_kit.telemetry import Telemetry
from hami_model.annotations import encode_register
from hami_model.bus import subjects
from hami_model.bus.messages import (
    BindAnswer,
    BindPod,
    FilterAnswer,
    FilterPod,
    Inventory,
    NodeAnswer,
)
from hami_model.device import Device
from hami_model.life import Entry
from hami_model.objects import Pod, PodRef
from hami_testkit.cluster import Standin
from hami_testkit.cluster.resources import LEASES, NODES, PODS, QUOTAS
from hami_testkit.nats import NatsServer, nats_running
from msgspec import Struct

T = TypeVar("T")
Json = dict[str, Any]
DEADLINE = 15.0
LOOK_EVERY = 0.01
REGISTER = "hami.io/node-nvidia-register"
MUTEX = "hami.io/mutex.lock"


def cards(node: str, count: int = 2, memory: int = 8000) -> list[Device]:
    """Return a node's NVIDIA cards."""
    return [
        Device(
            id=f"GPU-{node}-{i}", vendor="NVIDIA", index=i, slots=10, memory=memory, cores=100,
            model="NVIDIA A40", mode="hami-core",
        )
        for i in range(count)
    ]  # fmt: skip


def plugin_node(name: str, count: int = 2, **annotations: str) -> Json:
    """Return a node that HAMi's own device plugin serves."""
    given = {REGISTER: encode_register(cards(name, count)), **annotations}
    return a_node(name, given)


def a_node(name: str, annotations: Mapping[str, str] | None = None) -> Json:
    """Return a node."""
    amounts = {"nvidia.com/gpu": "20", "cpu": "64"}
    return {
        "metadata": {"name": name, "annotations": dict(annotations or {})},
        "status": {"capacity": amounts, "allocatable": amounts},
    }


def a_pod(name: str, *, gpu: int = 1, mem: int | str = 1000, **annotations: str) -> Json:
    """Return a pod of one container; ``gpu=0`` asks for no device."""
    limits = {"nvidia.com/gpu": str(gpu), "nvidia.com/gpumem": str(mem)} if gpu else {"cpu": "1"}
    container = {"name": "main", "image": "busybox", "resources": {"limits": limits, "requests": limits}}
    meta = {"name": name, "namespace": "team-a", "annotations": annotations}
    return {"metadata": meta, "spec": {"schedulerName": "hami-scheduler", "containers": [container]}}


class Bench:
    """The cluster, the bus, and whoever runs on them."""

    def __init__(self, cluster: Standin, bus: Bus, nats: NatsServer, folder: Path) -> None:
        self.cluster = cluster
        self.bus = bus
        self.nats = nats
        self._kubeconfig = cluster.kubeconfig(folder / "kubeconfig")

    # The allocator

    @asynccontextmanager
    async def allocator(
        self, *, leads: bool = True, stop: asyncio.Event | None = None, **settings: Any
    ) -> AsyncIterator[Process]:
        """Run an allocator; return when it leads, unless it is to follow. ``stop`` is its SIGTERM."""
        given = AllocatorSettings(
            nats_url=self.nats.url,
            kubeconfig=str(self._kubeconfig),
            health_listen=Address("127.0.0.1", 0),
            **settings,
        )
        async with running(given, stop or asyncio.Event()) as process:
            await until(lambda: process.leads if leads else process.views.synced)
            yield process

    async def hand_over(self, first: Process, second: Process) -> None:
        """Have the second lead instead of the first, which finds the Lease taken."""

        def change(lease: Json) -> Json:
            return {
                **lease,
                "spec": {**lease["spec"], "holderIdentity": second.election.identity, "leaseDurationSeconds": 1},
            }

        self.cluster.registry.patch(LEASES, ("kube-system", "hami-allocator"), change, status=False, dry_run=False)
        await first.election.release()
        await until(lambda: second.leads)

    def kube(self) -> AbstractAsyncContextManager[Kube]:
        """Talk to the API server as somebody else."""
        return Kube.connect(str(self._kubeconfig))

    # The cluster

    async def create_pod(self, pod: Json) -> PodRef:
        """Create a pod."""
        await self.cluster.registry.create(PODS, pod, namespace="team-a")
        return PodRef.of(self.pod(pod["metadata"]["name"]))

    def pod(self, name: str) -> Pod:
        """Return a pod as the API server has it."""
        return msgspec.convert(self.raw(PODS, ("team-a", name)), Pod, strict=False)

    def raw(self, resource: Any, key: tuple[str, str]) -> Json:
        """Return any object as the API server has it."""
        found: Json = self.cluster.registry.get(resource, key).object
        return found

    def node_annotations(self, name: str) -> dict[str, str]:
        """Return a node's annotations."""
        annotations: dict[str, str] = self.raw(NODES, ("", name))["metadata"].get("annotations") or {}
        return annotations

    def annotate(self, resource: Any, key: tuple[str, str], annotations: Mapping[str, str | None]) -> None:
        """Set or remove (None) annotations of an object."""

        def change(obj: Json) -> Json:
            merged = {**(obj["metadata"].get("annotations") or {}), **annotations}
            kept = {k: v for k, v in merged.items() if v is not None}
            return {**obj, "metadata": {**obj["metadata"], "annotations": kept}}

        self.cluster.registry.patch(resource, key, change, status=False, dry_run=False)

    def set_status(self, resource: Any, key: tuple[str, str], **status: Any) -> None:
        """Set fields of an object's status."""

        def change(obj: Json) -> Json:
            return {**obj, "status": {**(obj.get("status") or {}), **status}}

        self.cluster.registry.patch(resource, key, change, status=True, dry_run=False)

    def delete_pod(self, name: str) -> None:
        """Delete a pod at once."""
        self.cluster.registry.delete(PODS, ("team-a", name), {"gracePeriodSeconds": 0})

    # The bus

    async def filter(self, name: str, nodes: Sequence[str]) -> FilterAnswer:
        """Ask which node takes the pod."""
        answer: FilterAnswer = await self._ask(
            subjects.FILTER, FilterPod(pod=self.pod(name), nodes=list(nodes)), FilterAnswer, timeout=5
        )
        return answer

    async def bind(self, pod: PodRef, node: str) -> BindAnswer:
        """Ask to bind the pod."""
        answer: BindAnswer = await self._ask(subjects.BIND, BindPod(pod=pod, node=node), BindAnswer, timeout=30)
        return answer

    async def register(
        self, node: str, count: int = 2, *, identifies_pods: bool = True, devices: Sequence[Device] | None = None
    ) -> NodeAnswer:
        """Speak as the node's agent: these are my cards."""
        told = Inventory(
            node=node,
            agent="agent",
            digest="d1",
            vendors=["NVIDIA"],
            devices=list(devices or cards(node, count)),
            identifies_pods=identifies_pods,
        )
        answer: NodeAnswer = await self._ask(subjects.of_node(node, "inventory"), told, NodeAnswer, timeout=5)
        return answer

    async def _ask(self, subject: str, question: Struct, answer: Any, *, timeout: float) -> Any:
        """Ask the leader, again where nobody answers at the moment: a busy machine can break a connection."""

        async def once() -> tuple[Any, ...]:
            try:
                return (await self.bus.request(subject, question, answer, timeout=timeout),)
            except NoResponders:
                return ()

        (answered,) = await until_async(once, deadline=timeout)
        return answered


async def until(condition: Callable[[], T], *, deadline: float = DEADLINE) -> T:
    """Wait for a condition and return what it gave."""
    async with asyncio.timeout(deadline):
        while not (found := condition()):
            await asyncio.sleep(LOOK_EVERY)
        return found


async def until_async(condition: Callable[[], Awaitable[T]], *, deadline: float = DEADLINE) -> T:
    """Wait for a condition that itself waits."""
    async with asyncio.timeout(deadline):
        while not (found := await condition()):
            await asyncio.sleep(LOOK_EVERY)
        return found


def entry(process: Process, pod: PodRef) -> Entry | None:
    """Return what an allocator's books say of a pod."""
    return process.office.means.world.ledger.entry(pod.uid)


def state(process: Process, pod: PodRef) -> str:
    """Return the state of a pod's allocation, empty for none."""
    found = entry(process, pod)
    return str(found.state) if found else ""


def memory_used(process: Process, node: str) -> int:
    """Return the MiB booked on a node."""
    return sum(charge.memory for charge in process.office.means.world.fleet.use(node).values())


async def page(process: Process, path: str) -> httpx.Response:
    """Read one of the allocator's own pages."""
    async with httpx.AsyncClient(trust_env=False, timeout=10) as client:
        return await client.get(f"http://{process.address}{path}")


@asynccontextmanager
async def a_bench(folder: Path, nodes: Sequence[Json]) -> AsyncIterator[Bench]:
    """Run the cluster and the bus for the length of a block."""
    async with (
        nats_running() as nats,
        Standin.start(nodes=nodes) as cluster,
        connect(BusSettings(url=nats.url), name="test", telemetry=Telemetry()) as bus,
    ):
        await bus.wait_connected()
        yield Bench(cluster, bus, nats, folder)


__all__ = [
    "MUTEX", "NODES", "PODS", "QUOTAS", "REGISTER", "Bench", "a_bench", "a_node", "a_pod", "cards", "entry",
    "memory_used", "page", "plugin_node", "state", "until", "until_async",
]  # fmt: skip
