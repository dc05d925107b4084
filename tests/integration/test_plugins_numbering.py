"""Plugins that find a pod's cards by numbers or a list (Kunlun, Moore Threads, MetaX): the stand-ins do the same."""

import json

from hami_testkit.cluster.plugins.kunlun import VXPU, XPU, vxpu_plugin, xpu_plugin
from hami_testkit.cluster.plugins.metax import GPU, REGISTER, SGPU, metax_plugin, sgpu_plugin
from hami_testkit.cluster.plugins.mthreads import CORE, INDEX, VGPU, mthreads_plugin
from hami_testkit.cluster.plugins.mthreads import MEMORY as MT_MEMORY

from tests.integration.one_node import NODE, OneNode, a_container, a_pod
from tests.integration.plugin_stories import MUTEX, OF_P, PENDING, bind, lock, node_notes, notes

# Kunlun


async def test_kunlun_shares_are_served_by_the_lock(node: OneNode) -> None:
    """Its plugin publishes cards with the NUMA node of each half, finds the pod, says success and opens the lock."""
    key = "hami.io/xpu-devices-to-allocate"
    granted = {key: f"XPU-{NODE}-1,XPU,24576,25:;", **PENDING}
    async with vxpu_plugin(node.api, NODE, 2).running(node.kubelet.plugins):
        await node.wait_offer(VXPU, 8)
        published = await node_notes(node)
        await lock(node, MUTEX, OF_P)
        await bind(node, a_pod("p", a_container(limits={VXPU: 1})), granted)
        await node.wait_phase("p", "Running")
        after = await notes(node, "p")
        given = node.kubelet.given("default", "p", "main")

    assert [0, 1] == [card.get("numa", 0) for card in json.loads(published["hami.io/node-register-xpu"])]
    assert published["hami.io/node-handshake-xpu"].startswith("Reported_20")
    assert ("success", "") == (after["hami.io/bind-phase"], after[key].replace(";", ""))
    assert given is not None
    assert ["/dev/xpu1"] == [device.host for device in given.devices]


async def test_whole_kunlun_cards_are_served_by_their_numbers(node: OneNode) -> None:
    """No lock and no handshake: the annotation says which."""
    granted = {"hami.io/kunlun-allocated": "x", "BAIDU_COM_DEVICE_IDX": "2,3", **PENDING}
    async with xpu_plugin(node.api, NODE, 4).running(node.kubelet.plugins):
        await node.wait_offer(XPU, 4)
        await bind(node, a_pod("p", a_container(limits={XPU: 2})), granted)
        await node.wait_phase("p", "Running")
        given = node.kubelet.given("default", "p", "main")

    assert given is not None
    assert ["/dev/xpu2", "/dev/xpu3"] == [device.host for device in given.devices]


# Moore Threads


async def test_moore_threads_cards_are_served_by_their_numbers(node: OneNode) -> None:
    """To each of the pod's containers; cores and memory are counted by the kubelet and give nothing by themselves."""
    limits = {VGPU: 1, CORE: 4, MT_MEMORY: 8}
    granted = {"hami.io/mthreads-vgpu-devices-allocated": "x", INDEX: "1", **PENDING}
    async with mthreads_plugin(node.api, NODE, 2).running(node.kubelet.plugins):
        await node.wait_offer(VGPU, 32)
        await node.wait_offer(CORE, 32)
        await node.wait_offer(MT_MEMORY, 192)
        await bind(node, a_pod("p", *(a_container(name, limits=limits) for name in ("a", "b"))), granted)
        await node.wait_phase("p", "Running")
        given = [node.kubelet.given("default", "p", name) for name in ("a", "b")]

    assert 2 * [["/dev/mtgpu.1"]] == [[device.host for device in one.devices] for one in given if one is not None]


# MetaX


async def test_metax_shares_are_published_in_a_json_of_its_own(node: OneNode) -> None:
    """The pod is found by the lock, and gets what the device list says."""
    key = "hami.io/metax-sgpu-devices-to-allocate"
    granted = {key: f"GPU-{NODE}-1,Metax-SGPU,4096,60:;", **PENDING}
    async with sgpu_plugin(node.api, NODE, 2).running(node.kubelet.plugins):
        await node.wait_offer(SGPU, 32)
        published = await node_notes(node)
        await lock(node, MUTEX, OF_P)
        await bind(node, a_pod("p", a_container(limits={SGPU: 1})), granted)
        await node.wait_phase("p", "Running")
        after = await notes(node, "p")

    cards = json.loads(published[REGISTER])
    assert [(f"GPU-{NODE}-{at}", 16, 65536, 1) for at in (0, 1)] == [
        (card["uuid"], card["totalDevCount"], card["totalVRam"], card["linkZone"]) for card in cards
    ]
    assert {"METAX_SGPU_VRAM_MIB": "4096", "METAX_SGPU_COMPUTE": "60"} == node.env("p")
    assert "success" == after["hami.io/bind-phase"]


async def test_whole_metax_cards_are_served_without_a_lock(node: OneNode) -> None:
    """To both containers of a pod, each its own; the node has no annotation."""
    given = f"{NODE}-metax-1,Metax-GPU,65536,100:;{NODE}-metax-0,Metax-GPU,65536,100:;"
    async with metax_plugin(node.api, NODE, 2).running(node.kubelet.plugins):
        await node.wait_offer(GPU, 2)
        pod = a_pod("p", *(a_container(name, limits={GPU: 1}) for name in ("a", "b")))
        await bind(node, pod, {"hami.io/metax-gpu-devices-to-allocate": given, **PENDING})
        await node.wait_phase("p", "Running")
        found = [node.kubelet.given("default", "p", name) for name in ("a", "b")]

    assert {} == await node_notes(node)
    assert ["/dev/dri/card1", "/dev/dri/card0"] == [one.devices[0].host for one in found if one is not None]
