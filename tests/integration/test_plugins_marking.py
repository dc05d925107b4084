"""Plugins that mark what they have served (Enflame, AWS Neuron): the stand-ins do what the real ones do."""

import json
from collections.abc import AsyncIterator

import pytest
from hami_testkit.cluster.plugins.awsneuron import NeuronPlugin
from hami_testkit.cluster.plugins.enflame import DRS, GCU, DrsPlugin, gcu_plugin

from tests.integration.one_node import NODE, OneNode, a_container, a_pod
from tests.integration.plugin_stories import bind, node_notes, notes

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
