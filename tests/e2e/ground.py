"""A whole cluster of real parts on one machine: etcd, kube-apiserver, kube-scheduler, containerd, a kubelet, and ours.

One rule: nothing of it is simulated but the cards, which a file describes; pods are made as users make them, and what
counts is what their containers say that they were given.
"""

import asyncio
import json
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from hami_testkit.cluster.access import connect
from hami_testkit.cluster.client import ApiClient
from hami_testkit.cluster.status import ApiError
from hami_testkit.real_cluster import control_plane, kube_scheduler
from hami_testkit.real_node import RealNode, Told, real_node
from hami_testkit.stack import Agent, Plan, Stack, scheduler_config, stack

from tests.e2e.pod_resources import wait_offered

Json = dict[str, Any]
NODE = "gpu.node-1"
PODS = "/api/v1/namespaces/default/pods"
CARDS = 8
SLOTS = 10
CARD_MEMORY = 40_000
DEADLINE = 60.0
"""Seconds for any one thing to happen on a busy machine; on an idle one it takes two."""
OVER = ("Succeeded", "Failed")


class Ground:
    """The cluster, as a test sees it."""

    def __init__(self, api: ApiClient, node: RealNode, system: Stack) -> None:
        self.api = api
        self.node = node
        self.system = system

    async def create(self, pod: Json) -> Json:
        """Create a pod as a user does."""
        return await self.api.create(PODS, pod)

    async def get(self, name: str) -> Json | None:
        """Return a pod, or None where it is gone."""
        try:
            return await self.api.get(f"{PODS}/{name}")
        except ApiError as refusal:
            if refusal.code == 404:
                return None
            raise

    async def delete(self, name: str, *, grace: int | None = None) -> None:
        """Delete a pod; one that is gone already is no matter."""
        body = None if grace is None else {"gracePeriodSeconds": grace}
        try:
            await self.api.delete(f"{PODS}/{name}", body)
        except ApiError as refusal:
            if refusal.code != 404:
                raise

    async def wait(self, name: str, is_so: Callable[[Json], bool]) -> Json:
        """Wait until a pod is as ``is_so`` asks, and return it."""
        try:
            return await wait_event(self.api, PODS, is_so, DEADLINE, fieldSelector=f"metadata.name={name}")
        except TimeoutError as e:
            found = json.dumps(await self.get(name), indent=1)
            raise AssertionError(f"pod {name} did not become what was waited for: {found}") from e

    async def wait_running(self, name: str) -> Json:
        """Wait until all containers of a pod have started."""
        return await self.wait(name, lambda pod: pod["status"].get("phase") == "Running")

    async def wait_allocatable(self, count: int) -> None:
        """Wait until the kubelet offers so many devices."""
        query = {"fieldSelector": f"metadata.name={NODE}"}
        await wait_event(self.api, "/api/v1/nodes", lambda node: _offer(node) == str(count), DEADLINE, **query)

    async def lose_checkpoint(self) -> None:
        """Let the kubelet crash and forget to whom it gave which IDs; return when it offers all of them again."""
        await self.node.kill_kubelet()
        (self.node.root / "device-plugins" / "kubelet_internal_checkpoint").unlink()
        await self.node.start_kubelet()
        async with asyncio.timeout(DEADLINE):
            await wait_offered(self.node.root, CARDS * SLOTS)

    def told(self, pod: Json, container: str = "main") -> list[Told]:
        """Return what a container told at each of its starts."""
        return self.node.told(pod["metadata"]["uid"], container)


def _offer(node: Json) -> str:
    return str((node.get("status", {}).get("allocatable") or {}).get("nvidia.com/gpu", "0"))


async def wait_event(api: ApiClient, path: str, is_so: Callable[[Json], bool], deadline: float, **query: str) -> Json:
    """Return the first object of a watch that is as asked."""
    async with asyncio.timeout(deadline):
        while True:
            async for event in api.watch(path, timeoutSeconds=30, **query):
                if event["type"] in ("ADDED", "MODIFIED") and is_so(event["object"]):
                    return dict(event["object"])


@asynccontextmanager
async def a_ground(binaries: Path) -> AsyncIterator[Ground]:
    """Run the cluster with one node of simulated cards until the block is left."""
    with tempfile.TemporaryDirectory(prefix="e2e-") as name:
        folder = Path(name)
        async with control_plane(binaries, folder) as kubeconfig:
            plan = Plan(folder=folder, schedules=False, kubeconfig=kubeconfig)
            async with stack(plan) as system, real_node(binaries, folder, kubeconfig, NODE) as node:
                extenders = scheduler_config(system.at.extender)["extenders"]
                async with (
                    kube_scheduler(binaries / "kube-scheduler", folder, kubeconfig, extenders),
                    connect(kubeconfig) as api,
                ):
                    install_library(folder / "hook" / NODE / "vgpu")
                    await system.add_agent(Agent(node=NODE, cards=_cards_file(folder)))
                    ground = Ground(api, node, system)
                    await ground.wait_allocatable(CARDS * SLOTS)
                    yield ground


def _cards_file(folder: Path) -> Path:
    cards = [
        {"vendor": "NVIDIA", "id": f"GPU-{i}", "index": i, "count": SLOTS, "devmem": CARD_MEMORY, "type": "NVIDIA A40"}
        for i in range(CARDS)
    ]
    file = folder / "cards.yaml"
    file.write_text(json.dumps(cards))
    return file


def install_library(home: Path) -> None:
    """Put in place what HAMi-core would install on a node."""
    home.mkdir(parents=True)
    (home / "libvgpu.so").write_text("the library\n")
    (home / "ld.so.preload").write_text(f"{home}/libvgpu.so\n")
