"""``percentageOfNodesToScore: 100`` on a fleet where kube-scheduler would stop earlier: what it is for, what it costs.

One rule: both settings take turns on the same fleet and machine; what counts is their ratio.
"""

import asyncio
import json
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest
from hami_testkit.check import assert_nothing_wrong
from hami_testkit.cluster.access import connect
from hami_testkit.cluster.client import ApiClient
from hami_testkit.real_cluster import control_plane, kube_scheduler
from hami_testkit.stack import Plan, Stack, scheduler_config, stack

from tests.chart.in_cluster import hamictl
from tests.e2e.conftest import Report
from tests.e2e.installed import DEADLINE, Json

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(420)]
NODES, PODS, AT_ONCE, ROUNDS = 1000, 150, 20, 2
ALL, DEFAULT = 100, 0
"""Percent; 0 lets kube-scheduler choose: 50 less one for 125 nodes, here 42."""
ORDINARY = {"cpu": "64", "memory": "256Gi", "ephemeral-storage": "100Gi", "pods": "110"}
COMMON = {"aws.amazon.com/neuron": "1", "aws.amazon.com/neuroncore": "2"}
RARE = {"mthreads.com/vgpu": "16", "mthreads.com/sgpu-core": "16", "mthreads.com/sgpu-memory": "96"}
"""What one node alone has. Both are read from the capacity of a node, and need neither plugin nor lock."""
PATH = "/api/v1/namespaces/default/pods"


class Fleet:
    """A real API server with many nodes, and our services."""

    def __init__(self, binary: Path, api: ApiClient, system: Stack) -> None:
        self.api = api
        self._binary = binary
        self.system = system

    def scheduling(self, percent: int) -> AbstractAsyncContextManager[object]:
        """Run a kube-scheduler with this setting for the length of a block."""
        at, extenders = self.system.at, scheduler_config(self.system.at.extender)["extenders"]
        more = {"percentageOfNodesToScore": percent}
        return kube_scheduler(self._binary, self.system.plan.folder, at.kubeconfig, extenders, more=more)

    async def bind(self, pods: list[Json]) -> float:
        """Create pods, some at a time, and wait until all are bound; return seconds."""
        began, waiting = time.monotonic(), iter(pods)

        async def worker() -> None:
            for pod in waiting:
                await self.api.create(PATH, pod)

        async with asyncio.timeout(DEADLINE), asyncio.TaskGroup() as tasks:
            tasks.create_task(self._wait_bound({pod["metadata"]["name"] for pod in pods}))
            for _ in range(AT_ONCE):
                tasks.create_task(worker())
        return time.monotonic() - began

    async def _wait_bound(self, names: set[str]) -> None:
        left = set(names)
        while left:
            async for event in self.api.watch(PATH, timeoutSeconds=60):
                if event["object"]["spec"].get("nodeName"):
                    left.discard(event["object"]["metadata"]["name"])
                if not left:
                    return

    async def clear(self) -> None:
        """Delete all pods, which no kubelet has to confirm."""
        await self.api.delete(PATH, {"gracePeriodSeconds": 0})
        async with asyncio.timeout(DEADLINE):
            while (await self.api.get(PATH))["items"]:
                await asyncio.sleep(0.1)


def nodes() -> Iterator[Json]:
    """Yield nodes that all have common cards, the last one rare ones too."""
    for index in range(NODES):
        capacity = {**ORDINARY, **COMMON, **(RARE if index == NODES - 1 else {})}
        meta = {"name": f"node-{index:04d}", "labels": {"node.kubernetes.io/instance-type": "trn1.2xlarge"}}
        ready = {"type": "Ready", "status": "True"}
        yield {"metadata": meta, "status": {"capacity": capacity, "allocatable": capacity, "conditions": [ready]}}


def a_pod(name: str, **limits: str) -> Json:
    container = {"name": "main", "image": "app", "resources": {"limits": limits}}
    return {"metadata": {"name": name}, "spec": {"schedulerName": "hami-scheduler", "containers": [container]}}


@asynccontextmanager
async def a_fleet(binaries: Path) -> AsyncIterator[Fleet]:
    """Run it until the block is left."""
    with tempfile.TemporaryDirectory(prefix="e2e-") as name:
        folder = Path(name)
        async with (
            control_plane(binaries, folder) as kubeconfig,
            connect(kubeconfig) as api,
            stack(Plan(folder=folder, schedules=False, kubeconfig=kubeconfig)) as system,
        ):
            waiting = nodes()

            async def worker() -> None:
                for node in waiting:
                    await api.create("/api/v1/nodes", node)

            await asyncio.gather(*(worker() for _ in range(AT_ONCE)))
            async with asyncio.timeout(DEADLINE):
                while len(json.loads((await hamictl(system.environment(), "nodes", "-o", "json"))[1])) < NODES:
                    await asyncio.sleep(0.2)
            yield Fleet(binaries / "kube-scheduler", api, system)


async def test_every_node_is_offered_and_what_it_costs(binaries: Path, report: Report) -> None:
    """A pod finds the only node that has its cards at its first attempt; pods a second, with 100 and by default."""
    rates: dict[int, list[float]] = {ALL: [], DEFAULT: []}
    rare = a_pod("rare", **{"mthreads.com/vgpu": "1"})
    async with a_fleet(binaries) as fleet:
        async with fleet.scheduling(ALL):
            await fleet.bind([rare])
        bound = await fleet.api.get(f"{PATH}/rare")
        events = (await fleet.api.get("/api/v1/namespaces/default/events"))["items"]
        await assert_nothing_wrong(fleet.system.at.kubeconfig)
        for percent in (DEFAULT, ALL) * ROUNDS:
            await fleet.clear()
            async with fleet.scheduling(percent):
                pods = [a_pod(f"p-{i}", **{"aws.amazon.com/neuroncore": "1"}) for i in range(PODS)]
                rates[percent].append(PODS / await fleet.bind(pods))

    ours, default = max(rates[ALL]), max(rates[DEFAULT])
    report(f"{ours:.0f} pods/s with 100, {default:.0f} by default: {ours / default:.2f} ({PODS} pods, {NODES} nodes)")
    assert f"node-{NODES - 1:04d}" == bound["spec"]["nodeName"]
    assert [] == [event["message"] for event in events if event["reason"] == "FailedScheduling"]
