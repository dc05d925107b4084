"""Cambricon's plugin: the stand-in does what the real one does, flaws included."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from hami_testkit.cluster.plugins.cambricon import CORES, COUNT, MEMORY, CambriconPlugin

from tests.integration.one_node import NODE, OneNode, a_container, a_pod, until
from tests.integration.plugin_stories import bind, lock, node_notes, notes

DSMLU = "cambricon.com/dsmlu.lock"


@pytest.fixture
async def mlus(node: OneNode) -> AsyncIterator[CambriconPlugin]:
    """Two MLUs of 24 GiB on that node."""
    async with CambriconPlugin(node.api, NODE, 2).running(node.kubelet.plugins) as plugin:
        await node.wait_offer(CORES, 200)
        await node.wait_offer(MEMORY, 192)
        await node.wait_offer(COUNT, 200)
        yield plugin


def an_mlu_pod(name: str, **limits: int) -> dict[str, Any]:
    names = {"count": COUNT, "cores": CORES, "memory": MEMORY}
    return a_pod(name, a_container(limits={names[k]: v for k, v in (limits or MLU_SLICE).items()}))


MLU_SLICE = {"count": 1, "cores": 10, "memory": 20}
WAITING = {"CAMBRICON_DSMLU_ASSIGNED": "false", "CAMBRICON_DSMLU_PROFILE": "1_10_20"}


async def test_cambricon_is_counted_in_cores_and_memory(node: OneNode, mlus: CambriconPlugin) -> None:
    """100 a card, and one for each 256 MiB; it writes no annotation."""
    assert ("200", "192") == ((await node.counts(CORES))[0], (await node.counts(MEMORY))[0])
    assert {} == await node_notes(node)


async def test_cambricon_serves_the_one_pod_that_waits(node: OneNode, mlus: CambriconPlugin) -> None:
    """Two Allocates, one slice; then the pod is assigned and the lock, whoever's it was, is gone."""
    await lock(node, DSMLU, "2026-01-02T15:04:05Z")
    await bind(node, an_mlu_pod("p"), WAITING)
    await node.wait_phase("p", "Running")

    devices = "/dev/cambricon_dev1,/dev/cambricon_ipcm1,/dev/cambricon-caps/cap_dev1_mi1"
    assert {"VIRTUAL_DEVICES": devices} == node.env("p")
    assert "true" == (await notes(node, "p"))["CAMBRICON_DSMLU_ASSIGNED"]
    assert DSMLU not in await node_notes(node)


async def test_cambricon_never_marks_a_pod_that_asks_for_memory_alone(node: OneNode, mlus: CambriconPlugin) -> None:
    """Its second Allocate never comes, so the lock stays until it expires."""
    await lock(node, DSMLU, "2026-01-02T15:04:05Z")
    await bind(node, an_mlu_pod("p", count=2, memory=16), WAITING)
    await node.wait_phase("p", "Running")

    assert "false" == (await notes(node, "p"))["CAMBRICON_DSMLU_ASSIGNED"]
    assert DSMLU in await node_notes(node)


@pytest.mark.parametrize(
    ("written", "text"),
    [
        ({}, "no dynamic smlu candidate pod found"),
        ({"CAMBRICON_DSMLU_ASSIGNED": "false"}, "pod annotation CAMBRICON_DSMLU_PROFILE not found"),
        ({**WAITING, "CAMBRICON_DSMLU_PROFILE": "1_x"}, "invalid pod annotation 1_x"),
        ({**WAITING, "CAMBRICON_DSMLU_PROFILE": "7_10_20"}, "failed GetDeviceUUIDByIndex 7"),
    ],
)
async def test_cambricon_refuses_what_it_cannot_read(
    node: OneNode, mlus: CambriconPlugin, written: dict[str, str], text: str
) -> None:
    """The pod fails, and the lock stays."""
    await lock(node, DSMLU, "2026-01-02T15:04:05Z")
    await bind(node, an_mlu_pod("p"), written)
    status = await node.wait_phase("p", "Failed")

    assert text in status["message"]
    assert DSMLU in await node_notes(node)


async def test_cambricon_refuses_when_two_pods_wait(node: OneNode, mlus: CambriconPlugin) -> None:
    """It cannot tell which one: that is what the lock is for."""
    await node.kubelet.stop()
    for name in ("p", "q"):
        await bind(node, an_mlu_pod(name), WAITING)
    await node.kubelet.restart()

    async def one_failed() -> bool:
        return "Failed" in [(await node.status(name))["phase"] for name in ("p", "q")]

    await until(one_failed)
