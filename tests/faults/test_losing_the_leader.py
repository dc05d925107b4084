"""One pod, two allocators, one fault: what the failure rules promise of processes."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from hami_testkit.cluster.client import ApiClient
from hami_testkit.cluster.faults import Fault

from tests.faults.fleet import FleetNode, Kind, fleet, pod
from tests.faults.grounds import Ground, a_ground
from tests.faults.witness import PODS, shares

pytestmark = pytest.mark.timeout(180)

GPU = [{"nvidia.com/gpu": "1", "nvidia.com/gpumem": "1000"}]
NODE = next(node for node in fleet(10) if node.kind is Kind.PLUGIN)
REGISTER = "hami.io/node-nvidia-register"


class Place:
    """The services over the stand-in, and one node that a plugin serves."""

    def __init__(self, ground: Ground, api: ApiClient) -> None:
        self.ground = ground
        self.system = ground.system
        self.api = api

    async def pod(self, name: str) -> dict[str, Any]:
        return await self.api.get(f"{PODS}/{name}")

    async def wait_bound(self, name: str, deadline: float = 60) -> dict[str, Any]:
        async with asyncio.timeout(deadline):
            while not (found := await self.pod(name))["spec"].get("nodeName"):
                await asyncio.sleep(0.1)
            return found


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    async with (
        a_ground(tmp_path, binaries=None, kubeconfig=None) as ground,
        ApiClient.connect(ground.url) as api,
    ):
        await api.create("/api/v1/nodes", _registered(NODE))
        yield Place(ground, api)


def _registered(node: FleetNode) -> dict[str, Any]:
    card = node.cards[0]
    text = (
        f'[{{"id":"{card.id}","count":{card.slots},"devmem":{card.memory},"devcore":100,"type":"A40","health":true}}]'
    )
    made = node.object
    return {**made, "metadata": {**made["metadata"], "annotations": {REGISTER: text}}}


async def test_a_binding_that_outlived_its_leader_does_not_land(place: Place) -> None:
    """It was on its way when its sender stood still for 25 s; the next leader moved the pod past it, and binds it."""
    first = await place.system.wait_leader()
    place.ground.proxies[first].faults.set(Fault(kind="delay", resource="pods/binding", seconds=27, times=1))
    made = await place.api.create(PODS, pod("p", GPU))
    async with asyncio.timeout(30):
        while not (sent := [p for p in place.ground.passages[first] if p.call.resource == "pods/binding"]):
            await asyncio.sleep(0.02)
    place.system.process(first).pause()
    began = time.monotonic()
    second = await place.system.wait_leader(other_than=first)
    took_over = time.monotonic() - began
    await asyncio.sleep(max(0.0, began + 25 - time.monotonic()))
    place.system.process(first).resume()
    bound = await place.wait_bound("p")
    async with asyncio.timeout(30):
        while not sent[0].answered:
            await asyncio.sleep(0.1)

    assert took_over <= 15
    assert 409 == sent[0].code
    assert made["metadata"]["uid"] == bound["metadata"]["uid"]
    assert 1 == len(shares(bound))
    assert second == await place.system.leader()


async def test_without_a_leader_the_scheduler_is_told_at_once(place: Place) -> None:
    """An error that it retries, long before its own deadline; the pod is bound as soon as somebody leads."""
    for name in place.system.at.allocators:
        await place.system.stop(name)
    made = await place.api.create(PODS, pod("p", GPU))
    asked = {"Pod": made, "Nodes": None, "NodeNames": [NODE.name]}
    began = time.monotonic()
    async with httpx.AsyncClient(trust_env=False, timeout=30) as http:
        answer = (await http.post(f"{place.system.at.extender}/filter", json=asked)).json()
    took = time.monotonic() - began
    unbound = "nodeName" not in (await place.pod("p"))["spec"]
    await place.system.start("allocator")
    await place.wait_bound("p")

    assert {k.lower(): v for k, v in answer.items()}["error"]
    assert took < 1
    assert unbound
