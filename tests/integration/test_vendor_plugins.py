"""The stand-ins of the vendors' own plugins do what the real ones do, flaws included."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hami_testkit.cluster.plugins.amd import MODEL, amd_plugin
from hami_testkit.cluster.plugins.ascend import AscendPlugin
from hami_testkit.cluster.plugins.awsneuron import NeuronPlugin
from hami_testkit.cluster.plugins.biren import biren_plugin
from hami_testkit.cluster.plugins.cambricon import CORES, COUNT, MEMORY, CambriconPlugin
from hami_testkit.cluster.plugins.enflame import DRS, GCU, DrsPlugin, gcu_plugin
from hami_testkit.cluster.plugins.hygon import hygon_plugin
from hami_testkit.cluster.plugins.iluvatar import CHIPS, iluvatar_plugin
from hami_testkit.cluster.plugins.kunlun import VXPU, XPU, vxpu_plugin, xpu_plugin
from hami_testkit.cluster.plugins.metax import GPU, REGISTER, SGPU, metax_plugin, sgpu_plugin
from hami_testkit.cluster.plugins.mthreads import CORE, INDEX, VGPU, mthreads_plugin
from hami_testkit.cluster.plugins.mthreads import MEMORY as MT_MEMORY
from hami_testkit.cluster.plugins.registered import RegisteredPlugin
from hami_testkit.cluster.plugins.vastai import vastai_plugin

from tests.integration.one_node import NODE, OneNode, a_container, a_pod, one_node, path_of, until

WORD = "Ascend910B3"
NPU = f"huawei.com/{WORD}"
TO_ALLOCATE = f"hami.io/{WORD}-devices-to-allocate"
MUTEX, DSMLU = "hami.io/mutex.lock", "cambricon.com/dsmlu.lock"
CARD_0, CARD_1 = f"{WORD}-{NODE}-0", f"{WORD}-{NODE}-1"


@pytest.fixture
async def node() -> AsyncIterator[OneNode]:
    """A node whose kubelet waits less than a real one."""
    async with one_node() as found:
        yield found


@pytest.fixture
async def npus(node: OneNode) -> AsyncIterator[AscendPlugin]:
    """Eight Ascend 910B3 on that node."""
    async with AscendPlugin(node.api, NODE, WORD, 8).running(node.kubelet.plugins) as plugin:
        await node.wait_offer(NPU, 32)
        yield plugin


@pytest.fixture
async def mlus(node: OneNode) -> AsyncIterator[CambriconPlugin]:
    """Two MLUs of 24 GiB on that node."""
    async with CambriconPlugin(node.api, NODE, 2).running(node.kubelet.plugins) as plugin:
        await node.wait_offer(CORES, 200)
        await node.wait_offer(MEMORY, 192)
        await node.wait_offer(COUNT, 200)
        yield plugin


async def node_notes(node: OneNode) -> dict[str, str]:
    """Return the node's annotations."""
    return (await node.api.get(f"/api/v1/nodes/{NODE}"))["metadata"].get("annotations") or {}


async def notes(node: OneNode, pod: str) -> dict[str, str]:
    """Return a pod's annotations."""
    return (await node.api.get(path_of(pod)))["metadata"]["annotations"]  # type: ignore[no-any-return]


async def lock(node: OneNode, key: str, value: str) -> None:
    """Write a lock on the node."""
    await node.api.patch(f"/api/v1/nodes/{NODE}", {"metadata": {"annotations": {key: value}}})


def an_npu_pod(name: str, *containers: str) -> dict[str, Any]:
    return a_pod(name, *(a_container(c, limits={NPU: 1}) for c in containers or ("main",)))


def granted(*groups: str, runtime: list[dict[str, Any]], **more: str) -> dict[str, str]:
    """Return what HAMi writes with the binding: a group of devices by container."""
    to_allocate = "".join(f"{group};" for group in groups)
    written = {TO_ALLOCATE: to_allocate, NPU: json.dumps(runtime), "hami.io/bind-phase": "allocating"}
    return {**written, "hami.io/bind-time": "1767225600", "hami.io/vgpu-node": NODE, **more}


async def bind(node: OneNode, pod: dict[str, Any], annotations: dict[str, str]) -> None:
    """Create a pod and bind it with its annotations."""
    made = await node.api.create("/api/v1/namespaces/default/pods", pod)
    await node.bind(made, annotations)


# Ascend


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
    await lock(node, MUTEX, "2026-01-02T15:04:05Z,default,p")
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
    await lock(node, MUTEX, "2026-01-02T15:04:05Z,default,p")
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
    await lock(node, MUTEX, "2026-01-02T15:04:05Z,default,p")
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


# Cambricon


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


# Biren


BIREN = "birentech.com/gpu"
PENDING = {"hami.io/bind-phase": "allocating", "hami.io/bind-time": "1767225600", "hami.io/vgpu-node": NODE}
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
    await lock(node, MUTEX, "2026-01-02T15:04:05Z,default,p")
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
    await lock(node, MUTEX, "2026-01-02T15:04:05Z,default,p")
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
        await lock(node, MUTEX, "2026-01-02T15:04:05Z,default,p")
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
        await lock(node, MUTEX, "2026-01-02T15:04:05Z,default,p")
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
    await lock(node, MUTEX, "2026-01-02T15:04:05Z,default,p")
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
    await lock(node, MUTEX, "2026-01-02T15:04:05Z,default,p")
    pod = a_pod("p", *(a_container(name, limits={AMD: 1}) for name in ("a", "b")))
    groups = f"{AMD_0},{MODEL},16384,76:;{AMD_1},{MODEL},16384,76:;"
    await bind(node, pod, {AMD_TO_ALLOCATE: groups, **PENDING})
    status = await node.wait_phase("p", "Failed")

    assert f"no binding pod found on node {NODE}" in status["message"]


# Kunlun


async def test_kunlun_shares_are_served_by_the_lock(node: OneNode) -> None:
    """Its plugin publishes cards with the NUMA node of each half, finds the pod, says success and opens the lock."""
    key = "hami.io/xpu-devices-to-allocate"
    granted = {key: f"XPU-{NODE}-1,XPU,24576,25:;", **PENDING}
    async with vxpu_plugin(node.api, NODE, 2).running(node.kubelet.plugins):
        await node.wait_offer(VXPU, 8)
        published = await node_notes(node)
        await lock(node, MUTEX, "2026-01-02T15:04:05Z,default,p")
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
        await lock(node, MUTEX, "2026-01-02T15:04:05Z,default,p")
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


# Enflame


@pytest.fixture
async def shared_gcus(node: OneNode) -> AsyncIterator[DrsPlugin]:
    """Two cards of six slices on that node."""
    async with DrsPlugin(node.api, NODE, 2).running(node.kubelet.plugins) as plugin:
        await node.wait_offer(DRS, 12)
        yield plugin


def told(**slices: int) -> dict[str, str]:
    """Return what HAMi writes with the binding: a profile by container."""
    containers = {name: {"allocated": False, "request": number} for name, number in slices.items()}
    written = {"enflame.com/gcu-assigned": "false", "enflame.com/gcu-assigned-time": "1767225600000000000"}
    return {**written, "enflame.com/gcu-assigned-minor": "1", "assigned-containers": json.dumps(containers)}


async def test_enflame_publishes_cards_and_profiles(node: OneNode, shared_gcus: DrsPlugin) -> None:
    """In a form of its own; it has no handshake."""
    published = await node_notes(node)

    assert {"enflame.com/gcu-drs-capacity"} == set(published)
    assert {
        "devices": [{"index": str(at), "minor": str(at), "capacity": 6} for at in (0, 1)],
        "profiles": {"1g.6gb": "0", "3g.20gb": "1", "6g.40gb": "2"},
    } == json.loads(published["enflame.com/gcu-drs-capacity"])


async def test_enflame_marks_each_container_and_then_the_pod(node: OneNode, shared_gcus: DrsPlugin) -> None:
    """It finds them by their slices; no lock is taken."""
    pod = a_pod("p", *(a_container(name, limits={DRS: number}) for name, number in (("a", 3), ("b", 1))))
    await bind(node, pod, told(a=3, b=1))
    await node.wait_phase("p", "Running")
    after = await notes(node, "p")
    containers = json.loads(after["assigned-containers"])

    assert "true" == after["enflame.com/gcu-assigned"]
    assert [(True, "1"), (True, "2")] == [(each["allocated"], each["instanceID"]) for each in containers.values()]


async def test_enflame_refuses_slices_that_nobody_waits_for(node: OneNode, shared_gcus: DrsPlugin) -> None:
    """The pod was placed by nobody."""
    await bind(node, a_pod("p", a_container(limits={DRS: 3})), {})
    status = await node.wait_phase("p", "Failed")

    assert f"no pod on node {NODE} waits for 3 slices" in status["message"]


async def test_whole_enflame_cards_are_those_that_the_kubelet_picks(node: OneNode) -> None:
    """Its plugin reads nothing of what HAMi writes."""
    async with gcu_plugin(node.api, NODE, 2).running(node.kubelet.plugins):
        await node.wait_offer(GCU, 2)
        await bind(node, a_pod("p", a_container(limits={GCU: 2})), {})
        await node.wait_phase("p", "Running")
        given = node.kubelet.given("default", "p", "main")

    assert given is not None
    assert {"/dev/gcu0", "/dev/gcu1"} == {device.host for device in given.devices}


# AWS Neuron


NEURON, NEURON_CORE = "aws.amazon.com/neuron", "aws.amazon.com/neuroncore"


@pytest.fixture
async def neurons(node: OneNode) -> AsyncIterator[NeuronPlugin]:
    """Four devices of two cores on that node."""
    async with NeuronPlugin(node.api, NODE, 4).running(node.kubelet.plugins) as plugin:
        await node.wait_offer(NEURON, 4)
        await node.wait_offer(NEURON_CORE, 8)
        yield plugin


async def test_neuron_is_counted_in_devices_and_cores(node: OneNode, neurons: NeuronPlugin) -> None:
    """It writes no annotation; the instance type is a label."""
    labels = (await node.api.get(f"/api/v1/nodes/{NODE}"))["metadata"]["labels"]

    assert ("4", "8") == ((await node.counts(NEURON))[0], (await node.counts(NEURON_CORE))[0])
    assert {} == await node_notes(node)
    assert "trn1.32xlarge" == labels["node.kubernetes.io/instance-type"]


async def test_neuron_gives_containers_the_cores_of_the_annotation(node: OneNode, neurons: NeuronPlugin) -> None:
    """In the order of the containers; the pod is marked as allocated."""
    pod = a_pod("p", *(a_container(name, limits={NEURON_CORE: 1}) for name in ("a", "b")))
    written = {"AWS_NEURON_IDS": "6,7", "NEURON_ALLOCATED": "false", "NEURON_RESOURCE_TYPE": NEURON_CORE}
    await bind(node, pod, written)
    await node.wait_phase("p", "Running")
    given = node.kubelet.given("default", "p", "b")

    assert given is not None
    assert ["6", "7"] == [node.env("p", c)["NEURON_RT_VISIBLE_CORES"] for c in ("a", "b")]
    assert ["/dev/neuron3"] == [device.host for device in given.devices]
    assert "true" == (await notes(node, "p"))["NEURON_ALLOCATED"]


async def test_neuron_refuses_a_pod_without_ids(node: OneNode, neurons: NeuronPlugin) -> None:
    """Nobody chose devices for it."""
    await bind(node, a_pod("p", a_container(limits={NEURON: 1})), {})
    status = await node.wait_phase("p", "Failed")

    assert f"no pod on node {NODE} waits for Neuron devices" in status["message"]
