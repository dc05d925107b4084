"""Many pods at once on a real control plane, and how long they wait for their node and cards."""

import asyncio
import random
import statistics
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from hami_testkit.check import assert_nothing_wrong
from msgspec import Struct

from tests.e2e.conftest import Report
from tests.e2e.fleet import Fleet, Json, a_fleet
from tests.faults.bad_lines import LossyBus
from tests.faults.fleet import GPU_MEMORY, Card, FleetNode, Kind
from tests.faults.played import PlayedAgent, a_bus, play, wait_known

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(420)]
NODES, CARDS, PODS = 50, 2, 300
SLICE = GPU_MEMORY // 4
"""MiB: four pods may share a card, so that three of four places are taken in the end."""
AT_ONCE = 20
PATH = "/api/v1/namespaces/default/pods"
DEADLINE = 240.0
AIM = 60
"""Pods a second; an extender in Python that does nothing, over NATS, reaches 75 to 80."""


class Burst(Struct):
    """What became of each pod and when, by name and the monotonic clock."""

    created: dict[str, float] = {}
    bound: dict[str, float] = {}
    running: dict[str, float] = {}

    def told(self) -> str:
        """Say how many a second, and how long one waits."""
        waits = sorted(self.bound[name] - self.created[name] for name in self.bound)
        cuts = statistics.quantiles(waits, n=100)
        return f"{self.rate:.0f} pods/s from create to bound, p50 {cuts[49]:.2f} s, p99 {cuts[98]:.2f} s"

    @property
    def rate(self) -> float:
        """Return pods a second, from the first that is asked for to the last that is bound."""
        return len(self.bound) / (max(self.bound.values()) - min(self.created.values()))


def fifty_nodes() -> list[FleetNode]:
    """Return nodes that our node-agent serves, with cards that many pods may share."""
    made = []
    for i in range(NODES):
        cards = [Card(id=f"GPU-{i:02d}-{c}", memory=GPU_MEMORY, cores=100, slots=10) for c in range(CARDS)]
        made.append(FleetNode(name=f"node-{i:02d}", kind=Kind.PLAYED, cards=tuple(cards)))
    return made


def a_pod(number: int, limits: dict[str, str]) -> Json:
    """Return a pod for our scheduler; one that asks for no card is none of the extender's business."""
    container = {"name": "main", "image": "app", "resources": {"limits": limits}}
    return {"metadata": {"name": f"p-{number}"}, "spec": {"schedulerName": "hami-scheduler", "containers": [container]}}


@asynccontextmanager
async def played(fleet: Fleet, nodes: list[FleetNode]) -> AsyncIterator[list[str]]:
    """Let node-agents serve the nodes for the length of a block; what no node may see is found in the list."""
    findings: list[str] = []
    async with a_bus(fleet.system.at.nats) as bus, asyncio.TaskGroup() as tasks:
        players = play(nodes, fleet.api, tasks, findings, LossyBus(bus, random.Random(0)))
        works = [players.run(), *(node.run() for node in players.nodes.values() if isinstance(node, PlayedAgent))]
        running = [tasks.create_task(work) for work in works]
        for node in nodes:
            await fleet.api.create("/api/v1/nodes", node.object)
        await wait_known(bus, NODES * CARDS)
        yield findings
        for task in [*running, *(life for node in players.nodes.values() for life in node.living)]:
            task.cancel()


async def a_burst(fleet: Fleet, limits: dict[str, str]) -> Burst:
    """Create all pods, some at a time, and wait until each runs."""
    found = Burst()
    numbers = iter(range(PODS))

    async def worker() -> None:
        for number in numbers:
            found.created[f"p-{number}"] = time.monotonic()
            await fleet.api.create(PATH, a_pod(number, limits))

    async with asyncio.timeout(DEADLINE), asyncio.TaskGroup() as tasks:
        tasks.create_task(watched(fleet, found))
        for _ in range(AT_ONCE):
            tasks.create_task(worker())
    return found


async def watched(fleet: Fleet, found: Burst) -> None:
    """Write down when each pod is seen bound, and running."""
    while len(found.running) < PODS:
        async for event in fleet.api.watch(PATH, timeoutSeconds=60):
            pod, now = event["object"], time.monotonic()
            name, phase = pod["metadata"]["name"], pod["status"].get("phase")
            assert phase != "Failed", pod["status"]
            if pod["spec"].get("nodeName"):
                found.bound.setdefault(name, now)
            if phase == "Running":
                found.running.setdefault(name, now)
            if len(found.running) == PODS:
                return


async def cleared(fleet: Fleet) -> None:
    """Delete all pods, and wait until the nodes have let them go."""
    await fleet.api.delete(PATH)
    async with asyncio.timeout(DEADLINE):
        while (await fleet.api.get(PATH))["items"]:
            await asyncio.sleep(0.2)


async def test_a_burst_of_pods_finds_its_places(binaries: Path, report: Report) -> None:
    """Each runs in the end, on cards that have room; how long it took is told, and nothing is asked of it."""
    async with a_fleet(binaries, []) as fleet, played(fleet, fifty_nodes()) as findings:
        ours = await a_burst(
            fleet, {"nvidia.com/gpu": "1", "nvidia.com/gpumem": str(SLICE), "nvidia.com/gpucores": "25"}
        )
        await assert_nothing_wrong(fleet.system.at.kubeconfig)
        await cleared(fleet)
        without = await a_burst(fleet, {})

    report(f"{PODS} pods on {NODES} nodes: {ours.told()} (aim: {AIM} pods/s)")
    report(f"the same pods without devices, which kube-scheduler binds without us: {without.told()}")
    assert [] == findings
    assert PODS == len(ours.bound) == len(without.bound)
