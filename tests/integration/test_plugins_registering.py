"""HAMi's plugins for other vendors, with cards in a register annotation: the stand-ins do what the real ones do."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hami_testkit.cluster.plugins.amd import MODEL, amd_plugin
from hami_testkit.cluster.plugins.biren import biren_plugin
from hami_testkit.cluster.plugins.hygon import hygon_plugin
from hami_testkit.cluster.plugins.iluvatar import CHIPS, iluvatar_plugin
from hami_testkit.cluster.plugins.registered import RegisteredPlugin
from hami_testkit.cluster.plugins.vastai import vastai_plugin

from tests.integration.one_node import NODE, OneNode, a_container, a_pod
from tests.integration.plugin_stories import MUTEX, OF_P, PENDING, bind, lock, node_notes, notes

# Biren

BIREN = "birentech.com/gpu"
BIREN_TO_ALLOCATE = "hami.io/Biren-devices-to-allocate"


@pytest.fixture
async def birens(node: OneNode) -> AsyncIterator[RegisteredPlugin]:
    """Two Biren cards on that node."""
    async with biren_plugin(node.api, NODE, 2).running(node.kubelet.plugins) as plugin:
        await node.wait_offer(BIREN, 2)
        yield plugin


def a_biren_pod(name: str, *containers: str) -> dict[str, Any]:
    return a_pod(name, *(a_container(c, limits={BIREN: 1}) for c in containers or ("main",)))


def birens_granted(*groups: str) -> dict[str, str]:
    """Return what HAMi writes with the binding: a group of devices by container."""
    return {BIREN_TO_ALLOCATE: "".join(f"{group};" for group in groups), **PENDING}


async def test_biren_publishes_its_cards_as_go_writes_them(node: OneNode, birens: RegisteredPlugin) -> None:
    """What is zero or false is left out; cards are named by their number on the node."""
    await birens.mark("card_1", healthy=False)
    await node.wait_offer(BIREN, 1, capacity=2)
    published = await node_notes(node)

    assert [
        {"id": "card_0", "count": 1, "devmem": 65024, "type": "Biren", "health": True},
        {"id": "card_1", "index": 1, "count": 1, "devmem": 65024, "type": "Biren"},
    ] == json.loads(published["hami.io/node-biren-register"])
    assert published["hami.io/node-handshake-biren"].startswith("Reported_20")


async def test_biren_serves_the_pod_that_the_lock_names(node: OneNode, birens: RegisteredPlugin) -> None:
    """Group after group; when the last one is taken it says success and opens the lock."""
    await lock(node, MUTEX, OF_P)
    await bind(node, a_biren_pod("p", "a", "b"), birens_granted("card_1,Biren,0,0:", "card_0,Biren,0,0:"))
    await node.wait_phase("p", "Running")
    after = await notes(node, "p")

    assert ["card_1", "card_0"] == [node.env("p", c)["BR_PHY_CARDS"] for c in ("a", "b")]
    assert ("success", "") == (after["hami.io/bind-phase"], after[BIREN_TO_ALLOCATE].replace(";", ""))
    assert MUTEX not in await node_notes(node)


@pytest.mark.parametrize(
    ("group", "text"),
    [
        ("", "device request not found"),
        ("card_0,Biren,0,0:card_1,Biren,0,0:", "device number not matched"),
        ("card_7,Biren,0,0:", "unknown device card_7"),
    ],
)
async def test_biren_marks_a_pod_failed_and_opens_the_lock(
    node: OneNode, birens: RegisteredPlugin, group: str, text: str
) -> None:
    """Once it knows the pod, whatever is wrong with it."""
    await lock(node, MUTEX, OF_P)
    await bind(node, a_biren_pod("p"), birens_granted(group))
    status = await node.wait_phase("p", "Failed")

    assert text in status["message"]
    assert "failed" == (await notes(node, "p"))["hami.io/bind-phase"]
    assert MUTEX not in await node_notes(node)


# Hygon and Iluvatar


async def test_hygon_publishes_its_cards_in_hamis_older_text(node: OneNode) -> None:
    """Nine fields and a colon each; a card that falls ill says ``false``."""
    async with hygon_plugin(node.api, NODE, 2).running(node.kubelet.plugins) as plugin:
        await plugin.mark(f"DCU-{NODE}-1", healthy=False)
        await node.wait_offer("hygon.com/dcunum", 4, capacity=8)
        published = await node_notes(node)

    assert (
        f"DCU-{NODE}-0,4,65520,100,DCU-K100_AI,0,true,0,hami-core:DCU-{NODE}-1,4,65520,100,DCU-K100_AI,0,false,1,hami-core:"
    ) == published["hami.io/node-dcu-register"]
    assert published["hami.io/node-handshake-dcu"].startswith("Reported_20")


async def test_hygon_serves_the_pod_that_the_lock_names(node: OneNode) -> None:
    """It finds the pod under its own key, empties it, says success and opens the lock."""
    key = "hami.io/dcu-devices-to-allocate"
    granted = {key: f"DCU-{NODE}-0,DCU,2000,60:;", "hami.io/bind-phase": "allocating", "hami.io/vgpu-node": NODE}
    async with hygon_plugin(node.api, NODE, 1).running(node.kubelet.plugins):
        await node.wait_offer("hygon.com/dcunum", 4)
        await lock(node, MUTEX, OF_P)
        await bind(node, a_pod("p", a_container(limits={"hygon.com/dcunum": 1})), granted)
        await node.wait_phase("p", "Running")
        after = await notes(node, "p")

    assert ("success", "") == (after["hami.io/bind-phase"], after[key].replace(";", ""))
    assert MUTEX not in await node_notes(node)


@pytest.mark.parametrize("chip", CHIPS)
async def test_iluvatar_publishes_and_serves_each_chip_under_its_own_keys(node: OneNode, chip: str) -> None:
    """The chip's name stands before ``register``."""
    vgpu, key = f"iluvatar.ai/{chip}-vgpu", f"hami.io/{chip}-devices-to-allocate"
    granted = {key: f"{chip}-{NODE}-0,{chip},16384,50:;", "hami.io/bind-phase": "allocating", "hami.io/vgpu-node": NODE}
    async with iluvatar_plugin(node.api, NODE, 1, word=chip).running(node.kubelet.plugins):
        await node.wait_offer(vgpu, 4)
        published = await node_notes(node)
        await lock(node, MUTEX, OF_P)
        await bind(node, a_pod("p", a_container(limits={vgpu: 1})), granted)
        await node.wait_phase("p", "Running")
        after = await notes(node, "p")

    assert f"{chip}-{NODE}-0,4,32768,100,{chip},0,true,0,hami-core:" == published[f"hami.io/node-{chip}-register"]
    assert published[f"hami.io/node-handshake-{chip}"].startswith("Reported_20")
    assert ("success", "") == (after["hami.io/bind-phase"], after[key].replace(";", ""))


# Vastai


async def test_vastai_lists_dies_with_the_card_they_are_on(node: OneNode) -> None:
    """Two dies a card; a container is given the device files of the dies in the annotation."""
    async with vastai_plugin(node.api, NODE, 2, dies=2).running(node.kubelet.plugins):
        await node.wait_offer("vastaitech.com/va", 4)
        published = await node_notes(node)
        granted = {"hami.io/Vastai-devices-to-allocate": "1-1,Vastai,0,0:1-0,Vastai,0,0:;", **PENDING}
        await bind(node, a_pod("p", a_container(limits={"vastaitech.com/va": 2})), granted)
        await node.wait_phase("p", "Running")
        given = node.kubelet.given("default", "p", "main")

    cards = json.loads(published["hami.io/node-va-register"])
    assert ["0-0", "0-1", "1-0", "1-1"] == [card["id"] for card in cards]
    assert {"DeviceStrategy": "die", "AIC": "1"} == cards[3]["custominfo"]
    assert published["hami.io/node-handshake-va"].startswith("Reported_20")
    assert given is not None
    assert ["/dev/vastai/1-1", "/dev/vastai/1-0"] == [device.host for device in given.devices]


# AMD

AMD = "amd.com/gpu"
AMD_TO_ALLOCATE = "hami.io/amd-devices-to-allocate"
AMD_0, AMD_1 = f"{NODE}~0000%3A19%3A00.0", f"{NODE}~0000%3A1a%3A00.0"


@pytest.fixture
async def amds(node: OneNode) -> AsyncIterator[RegisteredPlugin]:
    """Two MI300X on that node."""
    async with amd_plugin(node.api, NODE, 2).running(node.kubelet.plugins) as plugin:
        await node.wait_offer(AMD, 20)
        yield plugin


async def test_amd_publishes_memory_and_compute_units(node: OneNode, amds: RegisteredPlugin) -> None:
    """Without a handshake; the id has the node's name in it."""
    published = await node_notes(node)
    cards = json.loads(published["hami.io/node-amd-register"])

    alike = {"count": 10, "devmem": 196288, "devcore": 304, "type": MODEL, "health": True}
    assert [{"id": AMD_0, **alike}, {"id": AMD_1, "index": 1, **alike}] == cards
    assert {"hami.io/node-amd-register"} == set(published)


async def test_amd_limits_memory_by_environment(node: OneNode, amds: RegisteredPlugin) -> None:
    """The pod is the one that the lock names."""
    await lock(node, MUTEX, OF_P)
    pod = a_pod("p", a_container(limits={AMD: 1}))
    await bind(node, pod, {AMD_TO_ALLOCATE: f"{AMD_1},{MODEL},16384,76:;", **PENDING})
    await node.wait_phase("p", "Running")
    given = node.kubelet.given("default", "p", "main")

    assert given is not None
    assert "16384m" == given.envs["HIP_DEVICE_MEMORY_LIMIT"]
    assert ["/dev/kfd", "/dev/dri/card1", "/dev/dri/renderD129"] == [device.host for device in given.devices]
    assert "success" == (await notes(node, "p"))["hami.io/bind-phase"]
    assert MUTEX not in await node_notes(node)


async def test_amd_loses_a_pod_after_its_first_container(node: OneNode, amds: RegisteredPlugin) -> None:
    """It says success too early, and no longer finds the pod when the second container asks."""
    await lock(node, MUTEX, OF_P)
    pod = a_pod("p", *(a_container(name, limits={AMD: 1}) for name in ("a", "b")))
    groups = f"{AMD_0},{MODEL},16384,76:;{AMD_1},{MODEL},16384,76:;"
    await bind(node, pod, {AMD_TO_ALLOCATE: groups, **PENDING})
    status = await node.wait_phase("p", "Failed")

    assert f"no binding pod found on node {NODE}" in status["message"]
