"""Whatever the running services are sent, one clear sentence comes back, and the next good pod is placed as ever."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
import pytest_asyncio
from hami_kit import bus as buses
from hami_kit.bus import Bus, BusSettings
from hami_kit.settings import CommonSettings
from hami_kit.telemetry import Telemetry
from hami_model.bus import subjects
from hami_testkit.builders import NodeBuilder, a_node
from hami_testkit.stack import Plan, Stack, stack

from tests.compat.over_http import BIND_TIMEOUT, Player
from tests.integration.raw_nats import raw_nats

Json = dict[str, Any]
DEADLINE = 20.0
REGISTER = "hami.io/node-nvidia-register"
ALLOCATED = "hami.io/vgpu-devices-allocated"
GPU = {"nvidia.com/gpu": "1", "nvidia.com/gpumem": "1000"}
DEEP = "[" * 5000 + "]" * 5000

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(120)]


def a_pod(name: str, limits: Json | None = None, *, annotations: Json | None = None, **spec: Any) -> Json:
    """Write a pod of one container."""
    container: Json = {"name": "main", "image": "i"}
    if limits is not None:
        container["resources"] = {"limits": limits}
    meta: Json = {"name": name, "namespace": "team-a", "annotations": annotations or {}}
    return {"metadata": meta, "spec": {"schedulerName": "hami-scheduler", "containers": [container], **spec}}


def node_object(built: NodeBuilder) -> Json:
    """Write a node as its device plugins leave it."""
    node: Json = msgspec.to_builtins(built.node())
    meta = {"name": built.name, "annotations": node["metadata"]["annotations"]}
    return {"apiVersion": "v1", "kind": "Node", "metadata": meta, "status": node["status"]}


class Cluster:
    """The running services beside one good node."""

    def __init__(self, system: Stack, player: Player, bus: Bus, http: httpx.AsyncClient) -> None:
        self.at = system.at
        self.player = player
        self.bus = bus
        self.http = http
        self._names = (f"good-{number}" for number in count())
        self._allocator = system.process("allocator")

    async def set_up(self) -> None:
        """Leave nothing of the test before; one good node with a card."""
        await self.player.clear()
        await self.add_node(a_node("good").with_cards(1, memory=8000))

    async def add_node(self, built: NodeBuilder, annotations: Json | None = None) -> None:
        """Add a node, with other annotations if so wished."""
        node = node_object(built)
        node["metadata"]["annotations"] |= annotations or {}
        await self.player.api.create("/api/v1/nodes", node)
        await self.player.wait_seen()

    async def place_a_good_pod(self, *, node: str = "good") -> None:
        """A pod is admitted, filtered and bound by the services as they run; then it goes."""
        pod = a_pod(next(self._names), GPU)
        assert (await self.player.admit(pod))["allowed"]
        stored = await self.player.create(pod)
        answer = await self.player.filter(stored, names=[node])
        assert ("", [node]) == (answer["Error"], answer["NodeNames"]), self._allocator.log_tail()
        assert "" == await self.player.bind(stored, node)
        assert node == (await self.player.pod(stored["metadata"]))["spec"]["nodeName"]
        await self.player.confirm(stored)
        await self.player.delete(stored["metadata"])

    async def told(self, kind: str, subject: str) -> Json:
        """Wait until the allocator has told this kind of news about the subject; return its data."""
        async with asyncio.timeout(DEADLINE):
            while True:
                for event in reversed(await self.bus.recent_events(limit=100)):
                    if (event.type, event.subject) == (f"io.hami.{kind}.v1", subject):
                        return dict(event.data)
                await asyncio.sleep(0.02)

    async def post(self, url: str, body: bytes) -> Json:
        """Post bytes; the status is 200 whatever they are."""
        answer = await self.http.post(url, content=body, headers={"content-type": "application/json"})
        assert 200 == answer.status_code
        result: Json = answer.json()
        return result


@asynccontextmanager
async def _running(folder: Path) -> AsyncIterator[Cluster]:
    async with stack(Plan(folder=folder, schedules=False, environment={"HAMI_BIND_TIMEOUT": BIND_TIMEOUT})) as system:
        settings = BusSettings.of(CommonSettings(nats_url=system.at.nats))
        async with (
            Player.on(system) as player,
            buses.connect(settings, name="test", telemetry=Telemetry()) as bus,
            httpx.AsyncClient(timeout=DEADLINE, trust_env=False) as http,
        ):
            yield Cluster(system, player, bus, http)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Cluster]:
    """Run the services once for this module."""
    async with _running(tmp_path_factory.mktemp("bad")) as cluster:
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
    name = f"bad-{len(written)}"
    pod = a_pod(name, {**GPU, "nvidia.com/gpumem": "7500"}, annotations={ALLOCATED: written}, nodeName="good")
    stored = await cluster.player.create(pod)

    told = await cluster.told("malformed", f"team-a/{name}")
    refused = await cluster.player.filter(a_pod("late", GPU) | {}, names=["good"])

    assert told["error"].startswith(f"annotation {ALLOCATED} of pod team-a/{name} cannot be believed: ")
    assert why in told["error"]
    assert told["error"].endswith("each NVIDIA card of good is held until it ends")
    assert {"good": "1/1 CardInsufficientMemory"} == refused["FailedNodes"]
    await cluster.player.delete(stored["metadata"])


async def test_a_bound_pod_that_claims_more_than_it_asked_for_gets_what_it_asked_for(cluster: Cluster) -> None:
    """An annotation cannot book a whole card for a pod that asked for a slice."""
    written = "good-0,NVIDIA,8000,100:;"
    notes = {ALLOCATED: written, "hami.io/bind-phase": "success"}
    stored = await cluster.player.create(a_pod("greedy", GPU, annotations=notes, nodeName="good"))

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
    "a fraction": (json.dumps([{**CARD, "count": 1.5}]), "card 0 has count 1.5, not a JSON int"),
    "one card twice": (json.dumps([CARD, CARD]), "card bad-0 is published twice"),
    "nested without end": (f'[{{"custominfo": {DEEP}}}]', "register annotation is not JSON"),
}


@pytest.mark.parametrize(("written", "why"), BAD_REGISTERS.values(), ids=BAD_REGISTERS)
async def test_a_malformed_registration_takes_out_its_node_and_no_other(
    cluster: Cluster, written: str, why: str
) -> None:
    """The node counts as unregistered, people hear why; a repaired annotation brings it back."""
    name = f"bad-{sum(written.encode()) % 100_000}"
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
    name = f"pairs-{len(scores)}"
    await cluster.add_node(a_node(name).with_cards(1), {"hami.io/node-nvidia-score": scores})

    told = await cluster.told("inventory.malformed", name)

    assert ("pair score" in told["error"]) or ("card 0" in told["error"])


@pytest.mark.parametrize(("cores", "shown"), [("-100", "-100"), ("1.5", "1500m"), ("1" + "0" * 30, "1000000000000E")])
async def test_a_capacity_that_makes_no_sense_takes_out_its_node_and_no_other(
    cluster: Cluster, cores: str, shown: str
) -> None:
    """Cambricon's cards are read from the capacity; the resource, the node and the value, as stored, are named."""
    name = f"mlu-{len(cores)}"
    resource = "cambricon.com/mlu.smlu.vcore"
    capacity = {resource: cores, "cambricon.com/mlu.smlu.vmemory": "96", "cambricon.com/vmlu": "100"}
    node: Json = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}}
    node["status"] = {"capacity": capacity, "allocatable": capacity}
    await cluster.player.api.create("/api/v1/nodes", node)
    await cluster.player.wait_seen()

    told = await cluster.told("inventory.malformed", name)

    assert told["error"].startswith(f"capacity {resource} of node {name} is {shown}, not a whole number")


# What reviews and schedulers' calls say

BODIES = {
    "empty": b"",
    "cut short": b'{"Pod": {"meta',
    "null": b"null",
    "a list": b"[]",
    "no text": b'{"kind": "\xff", "\xff": 1}',
    "nested without end": b'{"x": ' + DEEP.encode() * 20 + b"}",
    "a megabyte of blanks": b" " * 1_000_000,
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
async def test_a_malformed_body_is_one_sentence(cluster: Cluster, body: bytes) -> None:
    """The webhook answers inside a review, filter and bind in Error; all with HTTP 200."""
    review = (await cluster.post(f"{cluster.at.webhook}/webhook", body))["response"]
    filtered = await cluster.post(f"{cluster.at.extender}/filter", body)
    bound = await cluster.post(f"{cluster.at.extender}/bind", body)

    assert (False, 400) == (review["allowed"], review["status"]["code"])
    assert review["status"]["message"].startswith("the body is no AdmissionReview: ")
    assert filtered["Error"].startswith("the request body is no JSON object: ")
    assert (None, None) == (filtered["NodeNames"], filtered["Nodes"])
    assert bound["Error"].startswith("the request body is no JSON object: ")


async def test_a_node_that_nobody_knows_is_unregistered(cluster: Cluster) -> None:
    """Names that mean nothing are told one by one, also when they are no names at all."""
    names = ["", "nowhere", "x" * 5000, "a.b*c>", "good"]

    answer = await cluster.player.filter(a_pod("lost", {**GPU, "nvidia.com/gpumem": "9000"}), names=names)

    assert {**dict.fromkeys(names[:-1], "node unregistered"), "good": "1/1 CardInsufficientMemory"} == answer[
        "FailedNodes"
    ]


async def test_a_pod_that_nobody_knows_is_not_bound(cluster: Cluster) -> None:
    """The sentence names the pod."""
    stranger = a_pod("stranger", GPU)
    stranger["metadata"]["uid"] = "no-such-uid"

    error = await cluster.player.bind(stranger, "good")

    assert 'pods "stranger" not found' == error


# What limits say

MANY = "1" + "0" * 30
COUNT = "write a whole number of cards from 0 to 2147483647, such as"
BAD_LIMITS: dict[str, tuple[Json, str]] = {
    "gpu -1": ({"nvidia.com/gpu": "-1"}, f"nvidia.com/gpu -1 in container main cannot be read: {COUNT} 1"),
    "gpu 1.5": ({"nvidia.com/gpu": "1.5"}, f"nvidia.com/gpu 1.5 in container main cannot be read: {COUNT} 2"),
    "gpu 10^30": ({"nvidia.com/gpu": MANY}, f"nvidia.com/gpu {MANY} in container main cannot be read: {COUNT} 1"),
    "gpu a word": ({"nvidia.com/gpu": "one"}, f"nvidia.com/gpu one in container main cannot be read: {COUNT} 1"),
    "gpumem -1": (
        {**GPU, "nvidia.com/gpumem": "-1"},
        "nvidia.com/gpumem -1 in container main cannot be read: write a whole number of MiB from 0 to 16777215, such "
        "as 1",
    ),
    "gpumem 16Gi": (
        {**GPU, "nvidia.com/gpumem": "16Gi"},
        "nvidia.com/gpumem 16Gi in container main is too much: nvidia.com/gpumem counts MiB: write 16384",
    ),
    "gpumem in bytes": (
        {**GPU, "nvidia.com/gpumem": "17179869184"},
        "nvidia.com/gpumem 17179869184 in container main is too much: nvidia.com/gpumem counts MiB: write 16384",
    ),
    "gpumem 10^30": (
        {**GPU, "nvidia.com/gpumem": MANY},
        f"nvidia.com/gpumem {MANY} in container main cannot be read: write a whole number of MiB from 0 to 16777215",
    ),
    "gpucores 1.5": (
        {**GPU, "nvidia.com/gpucores": "1.5"},
        "nvidia.com/gpucores 1.5 in container main cannot be read: write a whole number of percent of a card's cores",
    ),
    "mlu memory in bytes": (
        {"cambricon.com/vmlu": "1", "cambricon.com/mlu.smlu.vmemory": "16Gi"},
        "counts units of 256 MiB: write 64",
    ),
}


@pytest.mark.parametrize(("limits", "sentence"), BAD_LIMITS.values(), ids=BAD_LIMITS)
async def test_a_limit_that_cannot_be_meant_is_denied(cluster: Cluster, limits: Json, sentence: str) -> None:
    """Field, value, container and way out; a pod that came past admission hears the same from filter."""
    pod = a_pod("wrong", limits)

    denied = await cluster.player.admit(pod)
    filtered = await cluster.player.filter(pod, names=["good"])

    assert (False, 403) == (denied["allowed"], denied["code"])
    assert sentence in denied["message"]
    assert denied["message"] == filtered["Error"]


async def test_both_forms_of_memory_are_admitted_with_a_warning(cluster: Cluster) -> None:
    """HAMi compat: the explicit amount wins; the user is told so."""
    review = await _review(cluster, a_pod("both", {**GPU, "nvidia.com/gpumem-percentage": "50"}))

    assert review["allowed"]
    assert [
        "container main sets both nvidia.com/gpumem and nvidia.com/gpumem-percentage: nvidia.com/gpumem wins"
    ] == review["warnings"]


async def test_an_mlu_type_is_ignored_with_a_warning(cluster: Cluster) -> None:
    """HAMi compat: the annotation does nothing, and its user hears what does."""
    limits = {"cambricon.com/vmlu": "1", "cambricon.com/mlu.smlu.vmemory": "16"}
    review = await _review(cluster, a_pod("mlu", limits, annotations={"cambricon.com/use-mlutype": "MLU370"}))

    assert review["allowed"]
    assert [
        "annotation cambricon.com/use-mlutype is ignored: all MLUs of a node look alike; choose nodes by label, or "
        "cards by cambricon.com/use-gpuuuid"
    ] == review["warnings"]


async def _review(cluster: Cluster, pod: Json) -> Json:
    request = {"uid": "u", "namespace": "team-a", "object": pod}
    review = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}
    response: Json = (await cluster.post(f"{cluster.at.webhook}/webhook", json.dumps(review).encode()))["response"]
    return response


# What quotas say


BAD_QUOTAS = {
    "memory in bytes": ("nvidia.com/gpumem", "10Gi", "10Gi", "counts MiB: write 10240"),
    "memory in bytes, as a number": ("nvidia.com/gpumem", "10737418240", "10737418240", "counts MiB: write 10240"),
    "memory of MLUs in bytes": ("cambricon.com/mlu.smlu.vmemory", "16Gi", "16Gi", "units of 256 MiB: write 64"),
    "a fraction of memory": (
        "nvidia.com/gpumem",
        "1.5",
        "1500m",
        "sets no limit: write a whole number of MiB, such as 2",
    ),
    "a fraction of cores": ("nvidia.com/gpucores", "0.5", "500m", "sets no limit: write a whole number of percent"),
}


@pytest.mark.parametrize(("resource", "written", "shown", "way_out"), BAD_QUOTAS.values(), ids=BAD_QUOTAS)
async def test_a_quota_that_cannot_be_meant_is_told(
    cluster: Cluster, resource: str, written: str, shown: str, way_out: str
) -> None:
    """HAMi compat: it limits as HAMi would, which is not at all; its author hears which key, value and way out."""
    name = f"quota-{len(resource)}-{len(written)}"
    await cluster.player.set_quota({"namespace": "team-a", "hard": {f"limits.{resource}": written}}, name)

    told = await cluster.told("malformed", f"team-a/{name}")

    assert told["error"].startswith(f"ResourceQuota team-a/{name}: limits.{resource} {shown} ")
    assert way_out in told["error"]


async def test_a_quota_in_the_right_unit_is_told_of_by_nobody_and_holds(cluster: Cluster) -> None:
    """The denial says the numbers."""
    await cluster.player.set_quota({"namespace": "team-a", "hard": {"limits.nvidia.com/gpumem": "1500"}})
    await cluster.player.wait_seen()

    denied = await cluster.player.admit(a_pod("big", {**GPU, "nvidia.com/gpumem": "2000"}))

    assert (
        "exceeding resource quota: namespace team-a uses 0 of 1500 nvidia.com/gpumem, the pod asks for 2000: ask for "
        "less or raise the quota"
    ) == denied["message"]


# What comes over the bus

GARBAGE = {
    "nothing": b"",
    "no JSON": b"hello",
    "no text": b'{"type": "\xff"}',
    "null": b"null",
    "a list": b"[]",
    "another type": b'{"type": "pizza.v1"}',
    "a type that is no text": b'{"type": 7}',
    "wrong fields": b'{"type": "filter_pod.v1", "pod": 1, "nodes": {}, "node": [], "devices": 1e400}',
    "nested without end": b'{"x": ' + DEEP.encode() + b"}",
    "a megabyte": b'"' + b"x" * 1_000_000 + b'"',
}
ASKED = [
    *(subjects.FILTER, subjects.BIND, subjects.QUOTA, subjects.EXPLAIN, subjects.SIMULATE, subjects.SNAPSHOT),
    *(subjects.of_node("good", what) for what in ("inventory", "confirm", "refuse")),
]
TOLD = [
    *ASKED,
    *(subjects.of_node("good", what) for what in ("heartbeat", "allocation", "withdraw", "report")),
    *(subjects.of_node("x" * 300, "heartbeat"), subjects.LEADER, subjects.event("reserved")),
]


@pytest.mark.parametrize("data", GARBAGE.values(), ids=GARBAGE)
async def test_garbage_on_the_bus_is_refused_with_a_sentence(cluster: Cluster, data: bytes) -> None:
    """Every question gets an answer that names the subject; what was only told is dropped."""
    async with raw_nats(cluster.at.nats) as nats:
        for subject in TOLD:
            await nats.publish(subject, data)
        answers = {subject: json.loads(await nats.ask(subject, data)) for subject in ASKED}

    for subject, answer in answers.items():
        assert ("refused.v1", False) == (answer["type"], answer.get("retriable", False))
        assert answer["error"].startswith(f"{subject}: the message cannot be read: "), answer


BAD_CARDS = {
    "memory beyond numbers": ({"memory": 10**30}, f"card 0 has devmem {10**30}"),
    "memory beyond what is read": ({"memory": 2**40}, f"card 0 has devmem {2**40}"),
    "slots beyond what is read": ({"slots": 2**40}, f"card 0 has count {2**40}"),
    "a negative index": ({"index": -1}, "card 0 has index -1"),
    "an id with a comma": ({"id": "a,b"}, "card 0 has the id 'a,b': it must not be empty nor hold any of , : ;"),
    "no id": ({"id": ""}, "card 0 has the id ''"),
}


@pytest.mark.parametrize(("facts", "why"), BAD_CARDS.values(), ids=BAD_CARDS)
async def test_an_inventory_of_impossible_cards_is_refused(cluster: Cluster, facts: Json, why: str) -> None:
    """An agent's message is checked as an annotation is: card, field and value are named."""
    card = {"id": "odd-0", "vendor": "NVIDIA", "slots": 10, "memory": 8000, "cores": 100, "model": "A", **facts}
    told = {
        "type": "inventory.v1",
        "node": "odd",
        "agent": "a",
        "digest": "d",
        "vendors": ["NVIDIA"],
        "devices": [card],
    }
    await cluster.player.api.create("/api/v1/nodes", {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "odd"}})
    await cluster.player.wait_seen()

    async with raw_nats(cluster.at.nats) as nats:
        answer = json.loads(
            await nats.ask(subjects.of_node("odd", "inventory"), json.dumps({**told, "devices": [card]}).encode())
        )
    filtered = await cluster.player.filter(a_pod("asks", GPU), names=["odd"])

    assert "refused.v1" == answer["type"]
    assert answer["error"].startswith(f"the inventory of node odd cannot be believed: {why}")
    assert {"odd": "node unregistered"} == filtered["FailedNodes"]


async def test_a_node_may_speak_for_itself_only(cluster: Cluster) -> None:
    """The subject is what NATS rights guard, so a message for another node is refused."""
    told = {"type": "inventory.v1", "node": "good", "agent": "a", "digest": "d", "vendors": ["NVIDIA"], "devices": []}

    async with raw_nats(cluster.at.nats) as nats:
        answer = json.loads(await nats.ask(subjects.of_node("evil", "inventory"), json.dumps(told).encode()))

    assert 'is "good", but only evil may speak there' in answer["error"]
