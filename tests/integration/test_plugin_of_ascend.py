"""Ascend's plugin: the stand-in does what the real one does, flaws included."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hami_testkit.cluster.plugins.ascend import AscendPlugin

from tests.integration.one_node import NODE, OneNode, a_container, a_pod
from tests.integration.plugin_stories import MUTEX, OF_P, bind, lock, node_notes, notes

WORD = "Ascend910B3"
NPU = f"huawei.com/{WORD}"
TO_ALLOCATE = f"hami.io/{WORD}-devices-to-allocate"
CARD_0, CARD_1 = f"{WORD}-{NODE}-0", f"{WORD}-{NODE}-1"


@pytest.fixture
async def npus(node: OneNode) -> AsyncIterator[AscendPlugin]:
    """Eight Ascend 910B3 on that node."""
    async with AscendPlugin(node.api, NODE, WORD, 8).running(node.kubelet.plugins) as plugin:
        await node.wait_offer(NPU, 32)
        yield plugin


def an_npu_pod(name: str, *containers: str) -> dict[str, Any]:
    return a_pod(name, *(a_container(c, limits={NPU: 1}) for c in containers or ("main",)))


def granted(*groups: str, runtime: list[dict[str, Any]], **more: str) -> dict[str, str]:
    """Return what HAMi writes with the binding: a group of devices by container."""
    to_allocate = "".join(f"{group};" for group in groups)
    written = {TO_ALLOCATE: to_allocate, NPU: json.dumps(runtime), "hami.io/bind-phase": "allocating"}
    return {**written, "hami.io/bind-time": "1767225600", "hami.io/vgpu-node": NODE, **more}


async def test_ascend_publishes_its_cards_as_go_writes_them(node: OneNode, npus: AscendPlugin) -> None:
    """What is zero or false is left out; the NetworkID changes at the fifth card; the handshake is Reported."""
    await npus.mark(CARD_1, healthy=False)
    await node.wait_offer(NPU, 28, capacity=32)
    published = await node_notes(node)
    cards = json.loads(published[f"hami.io/node-register-{WORD}"])

    card = {"id": CARD_0, "count": 4, "devmem": 65536, "devcore": 20, "type": WORD, "health": True}
    assert {**card, "custominfo": {"NetworkID": 0}} == cards[0]
    assert "health" not in cards[1]
    assert (4, {"NetworkID": 1}) == (cards[4]["index"], cards[4]["custominfo"])
    assert published[f"hami.io/node-handshake-{WORD}"].startswith("Reported_20")
    assert "false" == published["hami-vnpu-core"]


async def test_ascend_serves_the_pod_that_the_lock_names(node: OneNode, npus: AscendPlugin) -> None:
    """It gives what the annotations say, empties the group, says success and opens the lock."""
    await lock(node, MUTEX, OF_P)
    runtime = [{"UUID": CARD_1, "temp": "vir05_1c_16g", "memory": 16384}]
    await bind(node, an_npu_pod("p"), granted(f"{CARD_1},{WORD},16384,0:", runtime=runtime))
    await node.wait_phase("p", "Running")
    after = await notes(node, "p")

    assert {"ASCEND_VISIBLE_DEVICES": "1", "ASCEND_VNPU_SPECS": "vir05_1c_16g"} == node.env("p")
    assert ("success", "") == (after["hami.io/bind-phase"], after[TO_ALLOCATE].replace(";", ""))
    assert MUTEX not in await node_notes(node)


async def test_ascend_in_soft_mode_limits_by_environment_and_mounts(node: OneNode, npus: AscendPlugin) -> None:
    """Memory and cores of the first card, and a folder of the container's own."""
    runtime = [{"UUID": CARD_0, "memory": 8192, "core": 30}]
    soft = {"huawei.com/vnpu-mode": "hami-core"}
    await bind(node, an_npu_pod("p"), granted(f"{CARD_0},{WORD},8192,30:", runtime=runtime, **soft))
    await node.wait_phase("p", "Running")
    given = node.kubelet.given("default", "p", "main")

    assert given is not None
    assert ("8192", "30") == (given.envs["NPU_MEM_QUOTA"], given.envs["NPU_PRIORITY"])
    assert "/hami-shared-region/0_global_registry" == given.envs["NPU_GLOBAL_SHM_PATH"]
    [own] = [mount for mount in given.mounts if mount.container == "/hami-vnpu-shmem"]
    assert own.host.endswith(f"/containers/{given.uid}_main")


async def test_ascend_without_a_lock_takes_the_first_pod_that_waits(node: OneNode, npus: AscendPlugin) -> None:
    """By phase, bind-time, bind-phase and node."""
    runtime = [{"UUID": CARD_0, "memory": 65536}]
    await bind(node, an_npu_pod("p"), granted(f"{CARD_0},{WORD},65536,0:", runtime=runtime))
    await node.wait_phase("p", "Running")

    assert {"ASCEND_VISIBLE_DEVICES": "0"} == node.env("p")


async def test_ascend_fails_a_pod_that_nobody_granted(node: OneNode, npus: AscendPlugin) -> None:
    """No pod found: nothing is written; the kubelet fails the pod."""
    await bind(node, an_npu_pod("p"), {})
    status = await node.wait_phase("p", "Failed")

    assert f"rpc error: code = Unknown desc = no binding pod found on node {NODE}" in status["message"]


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({TO_ALLOCATE: ";"}, "device request not found"),
        ({TO_ALLOCATE: f"{CARD_0},{WORD},1,0:{CARD_1},{WORD},1,0:;"}, "device number not matched"),
        ({NPU: "[]"}, f"unknown device {CARD_0}"),
    ],
)
async def test_ascend_marks_a_pod_failed_and_opens_the_lock(
    node: OneNode, npus: AscendPlugin, change: dict[str, str], text: str
) -> None:
    """Once it knows the pod, whatever is wrong with it."""
    await lock(node, MUTEX, OF_P)
    runtime = [{"UUID": CARD_0, "memory": 65536}]
    await bind(node, an_npu_pod("p"), granted(f"{CARD_0},{WORD},65536,0:", runtime=runtime, **change))
    status = await node.wait_phase("p", "Failed")

    assert text in status["message"]
    assert "failed" == (await notes(node, "p"))["hami.io/bind-phase"]
    assert MUTEX not in await node_notes(node)


async def test_ascend_leaves_another_pods_lock_alone(node: OneNode, npus: AscendPlugin) -> None:
    """A wrong lock gives a wrong pod, and stays: here it names a pod that is not there."""
    await lock(node, MUTEX, "2026-01-02T15:04:05Z,default,other")
    runtime = [{"UUID": CARD_0, "memory": 65536}]
    await bind(node, an_npu_pod("p"), granted(f"{CARD_0},{WORD},65536,0:", runtime=runtime))
    await node.wait_phase("p", "Failed")

    assert (await node_notes(node))[MUTEX].endswith(",other")


async def test_ascend_calls_a_pod_served_after_its_first_container(node: OneNode, npus: AscendPlugin) -> None:
    """The second one finds it without the lock, since success is accepted while the pod is Pending."""
    await lock(node, MUTEX, OF_P)
    runtime = [{"UUID": CARD_0, "memory": 16384}, {"UUID": CARD_1, "memory": 16384}]
    groups = (f"{CARD_0},{WORD},16384,0:", f"{CARD_1},{WORD},16384,0:")
    await bind(node, an_npu_pod("p", "a", "b"), granted(*groups, runtime=runtime))
    await node.wait_phase("p", "Running")

    assert ["0", "1"] == [node.env("p", c)["ASCEND_VISIBLE_DEVICES"] for c in ("a", "b")]


async def test_ascend_registers_again_when_the_kubelet_restarts(node: OneNode, npus: AscendPlugin) -> None:
    """Its devices never vanish from the node."""
    await node.kubelet.restart()
    runtime = [{"UUID": CARD_0, "memory": 65536}]
    await bind(node, an_npu_pod("p"), granted(f"{CARD_0},{WORD},65536,0:", runtime=runtime))

    await node.wait_phase("p", "Running")
