"""Whatever a cluster shows the running services, people are told why, and the next good pod is placed as ever."""

import json
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from hami_testkit.builders import a_node

from tests.integration.bad_input import DEEP, GPU, Cluster, Json, a_pod, node_object, running_services

REGISTER = "hami.io/node-nvidia-register"
ALLOCATED = "hami.io/vgpu-devices-allocated"

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(120)]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Cluster]:
    """Run the services once for this module."""
    async with running_services(tmp_path_factory.mktemp("bad")) as cluster:
        yield cluster


@pytest_asyncio.fixture(loop_scope="module")
async def cluster(running: Cluster) -> AsyncIterator[Cluster]:
    """Lend the services with a fresh stage; after each test a good pod must be placed."""
    await running.set_up()
    yield running
    await running.place_a_good_pod()


# What pods say of themselves

BAD_ALLOCATIONS = {
    "no device": ("nonsense,", "'nonsense,' is no device: expected uuid,NVIDIA,MiB,percent"),
    "no numbers": ("good-0,NVIDIA,lots,all:;", "has memory 'lots' and cores 'all': expected whole numbers"),
    "negative": ("good-0,NVIDIA,-5,0:;", "has memory '-5' and cores '0': expected whole numbers"),
    "beyond numbers": ("good-0,NVIDIA,9999999999,0:;", "has a number above 2147483647"),
    "too many cards": ("good-0,NVIDIA,1,0:good-1,NVIDIA,1,0:;", "gives container main 2 cards, 1 are asked for"),
    "too many containers": ("good-0,NVIDIA,1,0:;good-0,NVIDIA,1,0:;", "to 2 containers, 1 ask for them"),
}


@pytest.mark.parametrize(("written", "why"), BAD_ALLOCATIONS.values(), ids=BAD_ALLOCATIONS)
async def test_a_bound_pods_malformed_annotation_holds_too_much_rather_than_too_little(
    cluster: Cluster, written: str, why: str
) -> None:
    """The pod is charged what it asks for on every card there, and people hear which annotation, value and why."""
    name = cluster.new_name("bad")
    pod = a_pod(name, {**GPU, "nvidia.com/gpumem": "7500"}, annotations={ALLOCATED: written}, nodeName="good")
    stored = await cluster.player.create(pod)

    told = await cluster.told("malformed", f"team-a/{name}")
    refused = await cluster.player.filter(a_pod("late", GPU), names=["good"])

    assert told["error"].startswith(f"annotation {ALLOCATED} of pod team-a/{name} cannot be believed: ")
    assert why in told["error"]
    assert told["error"].endswith("each NVIDIA card of good is held until it ends")
    assert {"good": "1/1 CardInsufficientMemory"} == refused["FailedNodes"]
    await cluster.player.delete(stored["metadata"])


async def test_a_bound_pod_that_claims_more_than_it_asked_for_gets_what_it_asked_for(cluster: Cluster) -> None:
    """An annotation cannot book a whole card for a pod that asked for a slice."""
    written = "good-0,NVIDIA,8000,100:;"
    stored = await cluster.player.create(a_pod("greedy", GPU, annotations={ALLOCATED: written}, nodeName="good"))

    told = await cluster.told("malformed", "team-a/greedy")

    assert "gives 8000 MiB and 100 % of good-0 where the pod asks for 1000 MiB and 0 %" in told["error"]
    await cluster.place_a_good_pod()
    await cluster.player.delete(stored["metadata"])


async def test_a_bound_pod_whose_limits_cannot_be_read_is_told(cluster: Cluster) -> None:
    """It came past our admission; it is in nobody's way."""
    limits = {"nvidia.com/gpu": "1", "nvidia.com/gpumem": "16Gi"}
    pod = a_pod("unreadable", limits, annotations={ALLOCATED: "x"}, nodeName="good")
    stored = await cluster.player.create(pod)

    told = await cluster.told("malformed", "team-a/unreadable")

    assert (
        "nvidia.com/gpumem 16Gi in container main is too much: nvidia.com/gpumem counts MiB: write 16384"
        in told["error"]
    )
    await cluster.player.delete(stored["metadata"])


@pytest.mark.parametrize(
    "weights", ["slot=1", "slot=x,core=1,memory=1", "slot=-1,core=1,memory=1", "slot=0,core=0,memory=0", ";;"]
)
async def test_weights_that_cannot_be_read_are_one_error(cluster: Cluster, weights: str) -> None:
    """The pod's own annotation is named with its value."""
    key = "hami.io/device-scoring-weights"
    stored = await cluster.player.create(a_pod("weighted", GPU, annotations={key: weights}))

    answer = await cluster.player.filter(stored, names=["good"])

    assert key in answer["Error"]
    assert weights in answer["Error"]
    assert answer["NodeNames"] is None
    await cluster.player.delete(stored["metadata"])


# What nodes say of themselves

CARD = {"id": "bad-0", "count": 10, "devmem": 8000, "devcore": 100, "type": "NVIDIA", "health": True}
BAD_REGISTERS = {
    "no JSON": ("{[", "register annotation is not JSON"),
    "no list": ('{"id": "x"}', "register annotation must be a JSON list"),
    "a text": ('"GPU-0"', "register annotation must be a JSON list"),
    "a null": ("[null]", "card 0 must be a JSON object"),
    "a number for a card": ("[7]", "card 0 must be a JSON object"),
    "an id of a wrong type": (json.dumps([{**CARD, "id": 7}]), "card 0 has id 7, not a JSON str"),
    "no id": (json.dumps([{**CARD, "id": ""}]), "card 0 has the id ''"),
    "an id with a comma": (json.dumps([{**CARD, "id": "a,b"}]), "it must not be empty nor hold any of , : ;"),
    "memory as text": (json.dumps([{**CARD, "devmem": "8Gi"}]), "card 0 has devmem '8Gi', not a JSON int"),
    "memory beyond numbers": (json.dumps([{**CARD, "devmem": 10**30}]), "card 0 has devmem "),
    "negative memory": (json.dumps([{**CARD, "devmem": -1}]), "card 0 has devmem -1, which is not from 0"),
    "negative slots": (json.dumps([{**CARD, "count": -1}]), "card 0 has count -1, which is not from 0"),
    "a fraction": (json.dumps([{**CARD, "count": 1.5}]), "card 0 has count 1.5, not a JSON int"),
    "one card twice": (json.dumps([CARD, CARD]), "card bad-0 is published twice"),
    "nested without end": (f'[{{"custominfo": {DEEP}}}]', "register annotation is not JSON"),
}


@pytest.mark.parametrize(("written", "why"), BAD_REGISTERS.values(), ids=BAD_REGISTERS)
async def test_a_malformed_registration_takes_out_its_node_and_no_other(
    cluster: Cluster, written: str, why: str
) -> None:
    """The node counts as unregistered, people hear why; a repaired annotation brings it back."""
    name = cluster.new_name("bad")
    built = a_node(name).with_cards(1, memory=8000)
    await cluster.add_node(built, {REGISTER: written})

    told = await cluster.told("inventory.malformed", name)
    answer = await cluster.player.filter(a_pod("asks", GPU), names=[name])

    assert "NVIDIA" == told["vendor"]
    assert why in told["error"]
    assert {name: "node unregistered"} == answer["FailedNodes"]
    await cluster.place_a_good_pod()
    repaired = {"metadata": {"annotations": {REGISTER: node_object(built)["metadata"]["annotations"][REGISTER]}}}
    await cluster.player.api.patch(f"/api/v1/nodes/{name}", repaired)
    await cluster.player.wait_seen()
    await cluster.place_a_good_pod(node=name)


@pytest.mark.parametrize("scores", ["{", "[null]", '[{"uuid": 7}]', '[{"uuid": "x", "score": {"y": "near"}}]', DEEP])
async def test_malformed_pair_scores_take_out_their_node_and_no_other(cluster: Cluster, scores: str) -> None:
    """Which card is near which cannot be guessed at; the node waits until it is repaired."""
    name = cluster.new_name("pairs")
    await cluster.add_node(a_node(name).with_cards(1), {"hami.io/node-nvidia-score": scores})

    told = await cluster.told("inventory.malformed", name)

    assert ("pair score" in told["error"]) or ("card 0" in told["error"])


@pytest.mark.parametrize(("cores", "shown"), [("-100", "-100"), ("1.5", "1500m"), ("1" + "0" * 30, "1000000000000E")])
async def test_a_capacity_that_makes_no_sense_takes_out_its_node_and_no_other(
    cluster: Cluster, cores: str, shown: str
) -> None:
    """Cambricon's cards are read from the capacity; the resource, the node and the value, as stored, are named."""
    name = cluster.new_name("mlu")
    resource = "cambricon.com/mlu.smlu.vcore"
    capacity = {resource: cores, "cambricon.com/mlu.smlu.vmemory": "96", "cambricon.com/vmlu": "100"}
    node: Json = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}}
    node["status"] = {"capacity": capacity, "allocatable": capacity}
    await cluster.player.api.create("/api/v1/nodes", node)
    await cluster.player.wait_seen()

    told = await cluster.told("inventory.malformed", name)

    assert told["error"].startswith(f"capacity {resource} of node {name} is {shown}, not a whole number")
