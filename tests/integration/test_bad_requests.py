"""Whatever is asked of the running services, one clear sentence comes back, and the next good pod is placed as ever."""

import json
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from hami_model.bus import subjects

from tests.integration.bad_input import DEEP, GPU, Cluster, Json, a_pod, running_services
from tests.integration.raw_nats import raw_nats

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


async def test_a_call_that_the_bus_does_not_carry_is_one_sentence(cluster: Cluster) -> None:
    """The size, the limit and the way out; nothing is cut silently."""
    answer = await cluster.player.filter(a_pod("long", GPU), names=["n" * 9_000_000])

    assert "the bus carries 8388608; ask for less at a time" in answer["Error"]


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
    name = cluster.new_name("quota")
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


async def test_a_heartbeat_says_nothing_of_cards_that_another_plugin_serves(cluster: Cluster) -> None:
    """The node's cards are a foreign plugin's, whose word on health stands: the good pod that follows finds one."""
    beat = {"type": "heartbeat.v1", "node": "good", "agent": "a", "digest": "", "unhealthy": ["good-0"]}

    async with raw_nats(cluster.at.nats) as nats:
        await nats.publish(subjects.of_node("good", "heartbeat"), json.dumps(beat).encode())


async def test_a_node_may_speak_for_itself_only(cluster: Cluster) -> None:
    """The subject is what NATS rights guard, so a message for another node is refused."""
    told = {"type": "inventory.v1", "node": "good", "agent": "a", "digest": "d", "vendors": ["NVIDIA"], "devices": []}

    async with raw_nats(cluster.at.nats) as nats:
        answer = json.loads(await nats.ask(subjects.of_node("evil", "inventory"), json.dumps(told).encode()))

    assert 'is "good", but only evil may speak there' in answer["error"]
