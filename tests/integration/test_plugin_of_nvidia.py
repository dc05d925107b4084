"""HAMi's own NVIDIA plugin: the stand-in does what the real one does."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hami_testkit.cluster.plugins.nvidia import nvidia_plugin
from hami_testkit.cluster.plugins.registered import RegisteredPlugin

from tests.integration.one_node import NODE, OneNode, a_container, a_pod
from tests.integration.plugin_stories import MUTEX, OF_P, PENDING, bind, lock, node_notes, notes

GPU = "nvidia.com/gpu"
TO_ALLOCATE = "hami.io/vgpu-devices-to-allocate"
FIRST, SECOND = f"GPU-{NODE}-0", f"GPU-{NODE}-1"


@pytest.fixture
async def plugin(node: OneNode) -> AsyncIterator[RegisteredPlugin]:
    """Two cards on that node, ten slots each."""
    async with nvidia_plugin(node.api, NODE, 2).running(node.kubelet.plugins) as plugin:
        await node.wait_offer(GPU, 20)
        yield plugin


def granted(*groups: str) -> dict[str, str]:
    """Return what HAMi writes with the binding: a group of devices by container."""
    return {TO_ALLOCATE: "".join(f"{group};" for group in groups), **PENDING}


def a_gpu_pod(name: str, *counts: int, init: int = 0) -> dict[str, Any]:
    first = [a_container("first", limits={GPU: init})] if init else []
    containers = [a_container(word, limits={GPU: n} if n else None) for word, n in zip("abc", counts, strict=False)]
    return a_pod(name, *containers, init=first)


async def test_it_publishes_its_cards_and_no_handshake(node: OneNode, plugin: RegisteredPlugin) -> None:
    """What is zero or false is left out; a sick card offers no slot."""
    await plugin.mark(SECOND, healthy=False)
    await node.wait_offer(GPU, 10, capacity=20)
    published = await node_notes(node)

    alike = {"count": 10, "devmem": 46068, "devcore": 100, "type": "NVIDIA A40", "mode": "hami-core"}
    assert [{"id": FIRST, **alike, "health": True}, {"id": SECOND, "index": 1, **alike}] == json.loads(
        published["hami.io/node-nvidia-register"]
    )
    assert "hami.io/node-handshake" not in published


async def test_each_container_gets_the_group_of_its_turn(node: OneNode, plugin: RegisteredPlugin) -> None:
    """Init containers first; one that asks for nothing has an empty group; a taken group stays, empty, in its place."""
    await lock(node, MUTEX, OF_P)
    both = f"{SECOND},NVIDIA,1002,20:{FIRST},NVIDIA,1003,30:"
    await bind(
        node, a_gpu_pod("p", 1, 0, 2, init=1), granted(f"{FIRST},NVIDIA,1000,0:", f"{SECOND},NVIDIA,1001,0:", "", both)
    )
    await node.wait_phase("p", "Running")
    after = await notes(node, "p")

    assert FIRST == node.env("p", "first")["NVIDIA_VISIBLE_DEVICES"]
    assert SECOND == node.env("p", "a")["NVIDIA_VISIBLE_DEVICES"]
    assert {
        "NVIDIA_VISIBLE_DEVICES": f"{SECOND},{FIRST}", "CUDA_DEVICE_MEMORY_LIMIT_0": "1002m",
        "CUDA_DEVICE_MEMORY_LIMIT_1": "1003m", "CUDA_DEVICE_SM_LIMIT": "20",
    } == node.env("p", "c")  # fmt: skip
    assert ("success", ";;;;") == (after["hami.io/bind-phase"], after[TO_ALLOCATE])
    assert MUTEX not in await node_notes(node)


async def test_it_takes_the_pod_of_the_lock_whoever_asks(node: OneNode, plugin: RegisteredPlugin) -> None:
    """The kubelet names no pod: with a wrong lock a pod gets another's cards. That is why there is a lock."""
    other = a_gpu_pod("p", 1)
    other["metadata"]["annotations"] = granted(f"{SECOND},NVIDIA,7,0:")
    await node.api.create("/api/v1/namespaces/default/pods", other)
    await lock(node, MUTEX, OF_P)
    await bind(node, a_gpu_pod("q", 1), granted(f"{FIRST},NVIDIA,1000,0:"))
    await node.wait_phase("q", "Running")

    assert "7m" == node.env("q", "a")["CUDA_DEVICE_MEMORY_LIMIT_0"]
    assert "allocating" == (await notes(node, "q"))["hami.io/bind-phase"]


async def test_without_a_lock_it_takes_a_pod_that_waits_or_was_served(node: OneNode, plugin: RegisteredPlugin) -> None:
    """The first that is pending here and has a bind time."""
    await bind(node, a_gpu_pod("p", 1), {**granted(f"{SECOND},NVIDIA,1000,0:"), "hami.io/bind-phase": "success"})
    await node.wait_phase("p", "Running")

    assert SECOND == node.env("p", "a")["NVIDIA_VISIBLE_DEVICES"]


async def test_it_prefers_slots_of_the_cards_in_the_annotation(node: OneNode, plugin: RegisteredPlugin) -> None:
    """So that the kubelet's books name the right cards too."""
    await lock(node, MUTEX, OF_P)
    await bind(node, a_gpu_pod("p", 2), granted(f"{SECOND},NVIDIA,1000,0:{FIRST},NVIDIA,1000,0:"))
    await node.wait_phase("p", "Running")

    async with node.pod_resources() as view:
        held = (await view.listed())["p"]["a"]

    assert [FIRST, SECOND] == [slot.rpartition("-")[0] for slot in held]


@pytest.mark.parametrize(
    ("group", "text"),
    [
        ("", "device request not found"),
        (f"{FIRST},NVIDIA,1,0:{SECOND},NVIDIA,1,0:", "device number not matched"),
        (f"{FIRST},NVIDIA,1,0:", "the driver does not answer"),
    ],
)
async def test_it_marks_a_pod_failed_and_opens_the_lock(
    node: OneNode, plugin: RegisteredPlugin, group: str, text: str
) -> None:
    """Once it knows the pod, whatever is wrong."""
    plugin.trouble = "the driver does not answer"
    await lock(node, MUTEX, OF_P)
    await bind(node, a_gpu_pod("p", 1), granted(group))
    status = await node.wait_phase("p", "Failed")

    assert text in status["message"]
    assert "failed" == (await notes(node, "p"))["hami.io/bind-phase"]
    assert MUTEX not in await node_notes(node)
