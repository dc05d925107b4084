"""Many pods at once on a real control plane, and how long they wait for their cards."""

import asyncio
import json
import statistics
import time
from pathlib import Path

import pytest
from hami_testkit.check import assert_nothing_wrong

from tests.e2e.conftest import Report
from tests.e2e.fleet import Fleet, Json, a_fleet

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(420)]
NODES, CARDS, PODS = 50, 2, 300
"""Four pods may share a card, so that three of four places are taken in the end."""
AT_ONCE = 20
PATH = "/api/v1/namespaces/default/pods"
DEADLINE = 240.0


def fifty_nodes(folder: Path) -> Path:
    """Write a fleet whose nodes' plugins register their cards by annotation, and find their pods by the node's lock."""
    notes = {"standin.hami.io/plugins": json.dumps([{"vendor": "DCU", "cards": CARDS}])}
    nodes = [{"metadata": {"name": f"node-{i:02d}", "annotations": notes}} for i in range(NODES)]
    (folder / "nodes.yaml").write_text(json.dumps({"items": nodes}))
    return folder


def a_pod(number: int) -> Json:
    """Return a pod that wants a quarter of a card's memory and cores."""
    limits = {"hygon.com/dcunum": "1", "hygon.com/dcumem": "16000", "hygon.com/dcucores": "25"}
    container = {"name": "main", "image": "app", "resources": {"limits": limits}}
    return {"metadata": {"name": f"p-{number}"}, "spec": {"containers": [container]}}


async def create(fleet: Fleet, created: dict[str, float]) -> None:
    """Create all pods, some at a time; write down when each was asked for."""
    numbers = iter(range(PODS))

    async def worker() -> None:
        for number in numbers:
            created[f"p-{number}"] = time.monotonic()
            await fleet.api.create(PATH, a_pod(number))

    await asyncio.gather(*(worker() for _ in range(AT_ONCE)))


async def wait_running(fleet: Fleet, bound: dict[str, float], running: dict[str, float]) -> None:
    """Write down when each pod is seen bound, and running."""
    while len(running) < PODS:
        async for event in fleet.api.watch(PATH, timeoutSeconds=60):
            pod, now = event["object"], time.monotonic()
            name, phase = pod["metadata"]["name"], pod["status"].get("phase")
            assert phase != "Failed", pod["status"]
            if pod["spec"].get("nodeName"):
                bound.setdefault(name, now)
            if phase == "Running":
                running.setdefault(name, now)
            if len(running) == PODS:
                return


async def test_a_burst_of_pods_finds_its_places(binaries: Path, tmp_path: Path, report: Report) -> None:
    """Each runs in the end, on cards that have room; how long it took is told, and nothing is asked of it."""
    created: dict[str, float] = {}
    bound: dict[str, float] = {}
    running: dict[str, float] = {}
    async with a_fleet(binaries, [fifty_nodes(tmp_path)]) as fleet:
        async with asyncio.timeout(DEADLINE), asyncio.TaskGroup() as tasks:
            tasks.create_task(wait_running(fleet, bound, running))
            tasks.create_task(create(fleet, created))
        await assert_nothing_wrong(fleet.system.at.kubeconfig)

    report(f"{PODS} pods on {NODES} nodes: {told(created, bound, 'bound')}; {told(created, running, 'running')}")
    assert created.keys() == running.keys()


def told(created: dict[str, float], done: dict[str, float], what: str) -> str:
    """Say how many a second, and how long one waits."""
    waits = sorted(done[name] - created[name] for name in done)
    cuts = statistics.quantiles(waits, n=100)
    rate = len(done) / (max(done.values()) - min(created.values()))
    return f"{rate:.0f} pods/s {what}, p50 {cuts[49]:.1f} s, p99 {cuts[98]:.1f} s"
