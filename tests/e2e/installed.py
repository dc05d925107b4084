"""The chart on a real control plane with its controllers: every service with its own account's token, and no more.

One rule: what runs and what it may do is what Helm put into the cluster; only nodes are played.
"""

import asyncio
import json
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from hami_testkit.cluster.access import connect
from hami_testkit.cluster.client import ApiClient
from hami_testkit.cluster.kubelet import Kubelet
from hami_testkit.cluster.proxy import ApiProxy, api_proxy
from hami_testkit.processes import Processes, Spec, processes
from hami_testkit.real_cluster import control_plane, secured

from tests.chart.in_cluster import Cluster, hamictl, start
from tests.chart.running import NAMES, Installation, Ports, values
from tests.e2e.machine import Machine

Json = dict[str, Any]
NODES = ("gpu-a", "gpu-b", "gpu-c")
"""Two cards of 40,000 MiB each."""
DEADLINE = 120.0
"""Seconds for any one thing to happen on a busy machine; on an idle one it takes two."""
GRACE = 8
"""Seconds without a sign of life after which a node counts as lost; 50 outside of tests."""
CONTROLLERS = (
    "namespace-controller", "deployment-controller", "replicaset-controller", "job-controller",
    "garbage-collector-controller", "pod-garbage-collector-controller", "node-lifecycle-controller",
    "taint-eviction-controller",
)  # fmt: skip


class Installed:
    """The cluster, as a user and its administrator see it."""

    def __init__(self, folder: Path, cluster: Cluster, here: Installation) -> None:
        self.folder = folder
        self.cluster = cluster
        self.api = cluster.api
        self.here = here
        self.machines: dict[str, Machine] = {}

    @asynccontextmanager
    async def namespace(self, name: str) -> AsyncIterator["Namespace"]:
        """Make a namespace for the length of a block; all that was made in it is gone afterwards."""
        await self.api.create("/api/v1/namespaces", {"metadata": {"name": name}})
        made = Namespace(self.api, name)
        try:
            yield made
        finally:
            await self.api.delete(f"/api/v1/namespaces/{name}")
            query = {"fieldSelector": f"metadata.name={name}"}
            async with asyncio.timeout(DEADLINE):
                while (await self.api.get("/api/v1/namespaces", query))["items"]:
                    await asyncio.sleep(0.2)

    async def hamictl(self, *arguments: str) -> Any:
        """Run hamictl as the user of NATS that is there for people; return its JSON."""
        _, said = await hamictl({"HAMI_NATS_URL": self.here.url("reader")}, *arguments, "-o", "json")
        return json.loads(said)

    async def booked(self, node: str) -> int | None:
        """Return how many MiB are booked on a node's cards; None where nobody knows of it."""
        for use in await self.hamictl("nodes"):
            if use["node"] == node:
                return int(sum(card.get("used_memory", 0) for card in use["devices"]))
        return None

    async def wait_booked(self, node: str, memory: int | None) -> None:
        """Wait until so many MiB are booked on a node's cards."""
        async with asyncio.timeout(DEADLINE):
            while await self.booked(node) != memory:
                await asyncio.sleep(0.2)


class Namespace:
    """One namespace, and what a user does in it."""

    def __init__(self, api: ApiClient, name: str) -> None:
        self.api = api
        self.name = name

    def path(self, kind: str, name: str = "") -> str:
        """Return the path of a kind such as ``pods`` or ``apps/v1/deployments``, or of one object."""
        group, _, plural = kind.rpartition("/")
        root = f"/apis/{group}" if group else "/api/v1"
        return f"{root}/namespaces/{self.name}/{plural}" + (f"/{name}" if name else "")

    async def create(self, kind: str, made: Json) -> Json:
        """Create an object."""
        return await self.api.create(self.path(kind), made)

    async def pods(self, **labels: str) -> list[Json]:
        """Return the pods that have these labels."""
        query = {"labelSelector": ",".join(f"{key}={value}" for key, value in labels.items())}
        return list((await self.api.get(self.path("pods"), query))["items"])

    async def wait_running(self, name: str) -> Json:
        """Wait until a pod runs and is marked as served; return it."""
        async with asyncio.timeout(DEADLINE):
            while not runs(pod := await self.api.get(self.path("pods", name))):
                await asyncio.sleep(0.1)
        return pod

    async def wait_pods(self, is_so: Callable[[list[Json]], bool], **labels: str) -> list[Json]:
        """Wait until the pods with these labels are as asked; return them."""
        async with asyncio.timeout(DEADLINE):
            while not is_so(pods := await self.pods(**labels)):
                await asyncio.sleep(0.1)
        return pods

    async def wait_event(self, reason: str, words: str = "") -> str:
        """Wait until an event of that reason says these words; return its sentence."""
        async with asyncio.timeout(DEADLINE):
            while True:
                for event in (await self.api.get(self.path("events")))["items"]:
                    if event["reason"] == reason and words in event.get("message", ""):
                        return str(event["message"])
                await asyncio.sleep(0.1)


def runs(pod: Json) -> bool:
    """Say whether a pod runs, with its cards."""
    marked = (pod["metadata"].get("annotations") or {}).get("hami.io/bind-phase") == "success"
    return marked and pod["status"].get("phase") == "Running" and not pod["metadata"].get("deletionTimestamp")


def a_pod(name: str, *, cards: int = 1, memory: int = 1000, node: str = "", **spec: Any) -> Json:
    """Return a plain pod; one that names a node by its label asks for that node alone."""
    limits = {"nvidia.com/gpu": str(cards), "nvidia.com/gpumem": str(memory)}
    container = {"name": "main", "image": "app", "resources": {"limits": limits}}
    there = {"nodeSelector": {"kubernetes.io/hostname": node}} if node else {}
    more = {"terminationGracePeriodSeconds": 1, **there, **spec}
    return {"metadata": {"name": name}, "spec": {"containers": [container], **more}}


@asynccontextmanager
async def an_installation(binaries: Path) -> AsyncIterator[Installed]:
    """Run everything until the block is left."""
    # a short path: the kubelets' sockets stand below it
    with tempfile.TemporaryDirectory(prefix="e2e-") as name:
        folder = Path(name)
        ports = Ports.free(NAMES)
        async with AsyncExitStack() as stack:
            kubeconfig = await stack.enter_async_context(control_plane(binaries, folder, audits=True))
            api = await stack.enter_async_context(connect(kubeconfig))
            cluster = Cluster(kubeconfig, api, values(ports))
            installed = Installed(folder, cluster, Installation(folder, ports, await cluster.helm("install")))
            started = await stack.enter_async_context(processes(folder))
            await start(started, _controllers(binaries / "kube-controller-manager", kubeconfig))
            await cluster.start_services(started, installed.here, binaries)
            way = await stack.enter_async_context(api_proxy(kubeconfig))
            for node in NODES:
                installed.machines[node] = await _a_machine(stack, installed, started, way, node)
            yield installed


def _controllers(binary: Path, kubeconfig: Path) -> Spec:
    return secured(
        binary, f"--kubeconfig={kubeconfig}", "--leader-elect=false", f"--controllers={','.join(CONTROLLERS)}",
        "--node-monitor-period=1s", f"--node-monitor-grace-period={GRACE}s", "--node-eviction-rate=10",
    )  # fmt: skip


async def _a_machine(
    stack: AsyncExitStack, installed: Installed, started: Processes, way: ApiProxy, node: str
) -> Machine:
    told = await stack.enter_async_context(ApiClient.connect(way.url))
    kubelet = await stack.enter_async_context(Kubelet(told, node, installed.folder / "k" / node).running())
    account = await installed.cluster.kubeconfig_of("device-plugin", installed.folder)
    agent = installed.here.agent(account, kubelet.root, node=node)
    machine = Machine(node, kubelet, agent, started, installed.api)
    await machine.serve()
    stack.push_async_callback(machine.fall_silent)
    return machine
