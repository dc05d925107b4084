"""The examples on a real API server and a real kube-scheduler, through a real MutatingWebhookConfiguration."""

import asyncio
from pathlib import Path

import pytest
import yaml
from hami_testkit.check import assert_nothing_wrong
from hami_testkit.cluster.status import ApiError
from hami_testkit.demo import manifests
from hami_testkit.demo_cluster import is_running, refusal

from tests.e2e.conftest import Report
from tests.e2e.fleet import FOLDERS, Fleet, Json, a_fleet

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]
QUOTAS = "/api/v1/namespaces/default/resourcequotas"
PODS = "/api/v1/namespaces/default/pods"
NEVER_FIT = {"never-fits", "gcu-five-slices", "mr-v100-two-cards"}
"""Pods of the examples that show how it is told why no node takes them."""
DEADLINE = 120.0


def pods_of(file: Path) -> list[Json]:
    """Read the pods of a manifest."""
    return list(yaml.safe_load_all(file.read_text()))


async def fates(fleet: Fleet, names: set[str]) -> tuple[set[str], dict[str, str]]:
    """Wait until these pods run or are refused; return who runs, and why the others wait."""
    async with asyncio.timeout(DEADLINE):
        while True:
            pods = [pod for pod in (await fleet.api.get(PODS))["items"] if pod["metadata"]["name"] in names]
            running = {pod["metadata"]["name"] for pod in pods if is_running(pod)}
            why = {pod["metadata"]["name"]: refusal(pod) for pod in pods if refusal(pod)}
            failed = [pod["status"] for pod in pods if pod["status"].get("phase") == "Failed"]
            assert [] == failed
            if running | set(why) == names:
                return running, why
            await asyncio.sleep(0.1)


async def test_the_examples_of_every_vendor_run_as_on_the_stand_in(binaries: Path, report: Report) -> None:
    """Each pod gets its devices from its vendor's plugin, or waits with a reason; nothing is given twice."""
    running: set[str] = set()
    waiting: dict[str, str] = {}
    async with a_fleet(binaries) as fleet:
        for pods in map(pods_of, manifests(FOLDERS)):
            for pod in pods:
                await fleet.api.create(PODS, pod)
            run, wait = await fates(fleet, {pod["metadata"]["name"] for pod in pods})
            running, waiting = running | run, waiting | wait
        await assert_nothing_wrong(fleet.system.at.kubeconfig)

    report(f"{len(running)} pods of {len(FOLDERS)} vendors run, {len(waiting)} wait with a reason")
    assert NEVER_FIT == set(waiting)
    assert all("nodes are available" in why for why in waiting.values())


async def refusal_of(fleet: Fleet, limits: dict[str, str]) -> str:
    """Ask until it is refused, as an allocator that has not heard of the quota yet admits; return what is said."""
    container = {"name": "main", "image": "app", "resources": {"limits": limits}}
    pod = {"metadata": {"name": "p"}, "spec": {"containers": [container]}}
    async with asyncio.timeout(DEADLINE):
        while True:
            try:
                await fleet.api.create(PODS, pod, query={"dryRun": "All"})
            except ApiError as refused:
                return refused.message
            await asyncio.sleep(0.1)


async def test_what_cannot_be_is_refused_at_the_door(binaries: Path) -> None:
    """The user reads our sentence: about what the pod asks for, and about the quota, which the allocator knows."""
    quota = {"metadata": {"name": "q"}, "spec": {"hard": {"limits.nvidia.com/gpumem": "5000"}}}
    asking = {"two slices": {"huawei.com/Ascend910B3": "2", "huawei.com/Ascend910B3-memory": "16384"},
              "too much": {"nvidia.com/gpu": "2", "nvidia.com/gpumem": "3000"}}  # fmt: skip
    said: dict[str, str] = {}
    async with a_fleet(binaries, [folder for folder in FOLDERS if folder.name == "nvidia"]) as fleet:
        await fleet.api.create(QUOTAS, quota)
        for what, limits in asking.items():
            said[what] = await refusal_of(fleet, limits)

    assert all(text.startswith('admission webhook "vgpu.hami.io" denied the request: ') for text in said.values())
    assert "vNPU not supported for multiple devices" in said["two slices"]
    assert "nvidia.com/gpumem" in said["too much"]
