"""What we rely on from kube-scheduler, one behaviour per test, with a fake extender.

The stand-in's scheduler answers by default; with HAMI_TEST_KUBECONFIG and HAMI_TEST_KUBE_SCHEDULER (a binary) set, the
same tests run a real kube-scheduler on the real server.
"""

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from hami_testkit.cluster import Standin
from hami_testkit.cluster.access import connect
from hami_testkit.cluster.client import ApiClient
from hami_testkit.cluster.scheduler import KubeScheduler

from tests.integration.scheduler_bench import (
    BINARY,
    CORE,
    GPU,
    HTTP_TIMEOUT,
    NODES,
    REAL,
    Cluster,
    FakeExtender,
    Json,
    a_pod,
    an_extender,
    event_of,
    fail_all,
    fit,
    fit_first,
    is_bound,
    pod_where,
    verdict,
)

pytestmark = pytest.mark.skipif(bool(REAL) and not BINARY, reason="HAMI_TEST_KUBE_SCHEDULER names no binary")


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    async with AsyncExitStack() as stack:
        url = ""
        if REAL:
            api = await stack.enter_async_context(connect(Path(REAL)))
        else:
            url = (await stack.enter_async_context(Standin.start())).url
            api = await stack.enter_async_context(ApiClient.connect(url))
        for name in NODES:
            capacity = {"cpu": "4", "memory": "8Gi", "pods": "110"}
            await api.create(f"{CORE}/nodes", {"metadata": {"name": name}, "status": {"capacity": capacity}})
        yield Cluster(api, url, tmp_path)
        for name in NODES:
            await api.delete(f"{CORE}/nodes/{name}")


@pytest.fixture
async def api(cluster: Cluster) -> ApiClient:
    return cluster.api


@pytest.fixture
async def pods(api: ApiClient) -> AsyncIterator[str]:
    """The path of pods in a namespace of this test alone."""
    name = f"contract-{uuid.uuid4().hex[:8]}"
    await api.create(f"{CORE}/namespaces", {"metadata": {"name": name}})
    yield f"{CORE}/namespaces/{name}/pods"
    await api.delete(f"{CORE}/namespaces/{name}/pods", {"gracePeriodSeconds": 0})
    await api.delete(f"{CORE}/namespaces/{name}")


@pytest.fixture
async def extender(api: ApiClient) -> AsyncIterator[FakeExtender]:
    fake = FakeExtender(api)
    app = web.Application()
    app.router.add_post("/scheduler/filter", fake.filter)
    app.router.add_post("/scheduler/bind", fake.take_bind)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    fake.url = f"http://127.0.0.1:{runner.addresses[0][1]}/scheduler"
    yield fake
    await runner.cleanup()


@pytest.fixture
async def scheduler(cluster: Cluster, extender: FakeExtender) -> AsyncIterator[KubeScheduler | None]:
    async with cluster.scheduling(an_extender(extender)) as running:
        yield running


async def test_the_extender_is_asked_in_the_wire_format(
    api: ApiClient, pods: str, extender: FakeExtender, scheduler: KubeScheduler | None
) -> None:
    """Capitalised keys, Nodes null, NodeNames of every node, and a pod without kind and apiVersion."""
    made = await api.create(pods, a_pod())

    bound = await pod_where(api, pods, is_bound)

    asked = extender.filters[0]
    assert {"Pod", "Nodes", "NodeNames"} == set(asked)
    assert (None, sorted(NODES)) == (asked["Nodes"], sorted(asked["NodeNames"]))
    assert (False, False) == ("kind" in asked["Pod"], "apiVersion" in asked["Pod"])
    assert made["metadata"]["uid"] == asked["Pod"]["metadata"]["uid"]
    assert {GPU: "1"} == asked["Pod"]["spec"]["containers"][0]["resources"]["limits"]
    assert "application/json" == extender.headers[0]
    named = {"PodName": "p0", "PodNamespace": made["metadata"]["namespace"], "PodUID": made["metadata"]["uid"]}
    assert {**named, "Node": "node-a"} == extender.binds[0]
    assert "node-a" == bound["spec"]["nodeName"]


async def test_a_bound_pod_is_announced(
    api: ApiClient, pods: str, extender: FakeExtender, scheduler: KubeScheduler | None
) -> None:
    """The event Scheduled names pod and node."""
    await api.create(pods, a_pod())

    event = await event_of(api, pods, "Scheduled")

    namespace = pods.split("/")[-2]
    assert f"Successfully assigned {namespace}/p0 to node-a" == event["message"]


async def test_only_pods_that_name_a_managed_resource_meet_the_extender(
    api: ApiClient, pods: str, extender: FakeExtender, scheduler: KubeScheduler | None
) -> None:
    """A pod without devices is bound by the scheduler itself."""
    await api.create(pods, a_pod(limits={"cpu": "1"}))

    await pod_where(api, pods, is_bound)

    assert ([], []) == (extender.filters, extender.binds)


async def test_an_init_container_names_a_managed_resource_too(
    api: ApiClient, pods: str, extender: FakeExtender, scheduler: KubeScheduler | None
) -> None:
    """A device asked for by an init container brings the pod to the extender."""
    init = {"name": "init", "image": "busybox", "resources": {"limits": {GPU: 1}}}
    await api.create(pods, a_pod(limits={}, initContainers=[init]))

    await pod_where(api, pods, is_bound)

    assert 1 == len(extender.filters)


async def test_a_pod_of_another_scheduler_is_left_alone(
    api: ApiClient, pods: str, extender: FakeExtender, scheduler: KubeScheduler | None
) -> None:
    """Who names another scheduler, or is gated, is not tried."""
    await api.create(pods, a_pod("other", schedulerName="somebody-else"))
    await api.create(pods, a_pod("gated", schedulingGates=[{"name": "contract.hami.io/gate"}]))
    await api.create(pods, a_pod())

    await pod_where(api, pods, is_bound)

    assert {"p0"} == {asked["Pod"]["metadata"]["name"] for asked in extender.filters}


async def test_the_extender_is_not_asked_when_no_node_passes(
    api: ApiClient, pods: str, extender: FakeExtender, scheduler: KubeScheduler | None
) -> None:
    """Cordoned nodes and short resources are the scheduler's own refusals; the extender hears of nothing."""
    await api.patch(f"{CORE}/nodes/node-a", {"spec": {"unschedulable": True}})
    await api.create(pods, a_pod(limits={GPU: 1, "cpu": "64"}))

    refused = await pod_where(api, pods, lambda pod: bool(verdict(pod)[0]))

    reason, message = verdict(refused)
    assert "Unschedulable" == reason
    assert message.startswith("0/2 nodes are available: 1 Insufficient cpu, 1 node(s) were unschedulable.")
    assert [] == extender.filters


async def test_equal_refusals_are_counted_together(
    api: ApiClient, pods: str, extender: FakeExtender, scheduler: KubeScheduler | None
) -> None:
    """All nodes in FailedNodes: Unschedulable, with the extender's words and how many nodes said them."""
    extender.on_filter = fail_all
    await api.create(pods, a_pod())

    refused = await pod_where(api, pods, lambda pod: bool(verdict(pod)[0]))

    reason, message = verdict(refused)
    assert "Unschedulable" == reason
    assert message.startswith("0/2 nodes are available: 2 CardInsufficientMemory.")
    assert "preemption: 0/2 nodes are available: 2 No preemption victims found for incoming pod." in message
    assert "Warning" == (await event_of(api, pods, "FailedScheduling", "2 CardInsufficientMemory"))["type"]


@pytest.mark.parametrize("change", ["a node's annotation", "a bound pod's end"])
async def test_a_change_of_the_cluster_brings_an_unschedulable_pod_back(
    api: ApiClient, pods: str, extender: FakeExtender, scheduler: KubeScheduler | None, change: str
) -> None:
    """Nothing happens until a node changes or a pod leaves; then the pod is tried again."""
    await api.create(pods, a_pod("tenant"))
    await pod_where(api, pods, is_bound, "tenant")
    extender.on_filter = fail_all
    await api.create(pods, a_pod())
    await pod_where(api, pods, lambda pod: verdict(pod)[0] == "Unschedulable")
    extender.on_filter = fit_first

    if change == "a bound pod's end":
        await api.delete(f"{pods}/tenant", {"gracePeriodSeconds": 0})
    else:
        await api.patch(f"{CORE}/nodes/node-a", {"metadata": {"annotations": {"hami.io/node-nvidia-register": "x"}}})

    await pod_where(api, pods, is_bound)


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ({**fit(), "Error": "no leader"}, "no leader"),
        (web.HTTPInternalServerError(), "code 500"),
        (fit("node-x"), 'claims a filtered node "node-x" which is not found in the input node list'),
    ],
    ids=["Error", "HTTP 500", "unknown node"],
)
async def test_a_bad_filter_answer_is_an_error_and_retried(
    api: ApiClient, pods: str, extender: FakeExtender, scheduler: KubeScheduler | None, answer: Any, text: str
) -> None:
    """The pod is told SchedulerError with the text, and tried again after its back-off."""
    bad = web.Response(status=answer.status) if isinstance(answer, web.HTTPException) else answer
    extender.on_filter = lambda asked: bad if len(extender.filters) == 1 else fit_first(asked)
    await api.create(pods, a_pod())

    refused = await pod_where(api, pods, lambda pod: bool(verdict(pod)[0]))

    assert ("SchedulerError", True) == (verdict(refused)[0], text in verdict(refused)[1]), verdict(refused)
    await pod_where(api, pods, is_bound)


async def test_a_hanging_filter_stops_every_other_pod(
    api: ApiClient, pods: str, extender: FakeExtender, scheduler: KubeScheduler | None
) -> None:
    """The scheduling cycle is serial: the next pod is tried only after httpTimeout."""
    clock = asyncio.get_running_loop().time
    tried: dict[str, float] = {}

    async def hang_first(asked: Json) -> Json:
        tried.setdefault(asked["Pod"]["metadata"]["name"], clock())
        if asked["Pod"]["metadata"]["name"] == "p0":
            await asyncio.Event().wait()
        return fit_first(asked)

    extender.on_filter = hang_first
    await api.create(pods, a_pod())
    await extender.wait_for(lambda: bool(extender.filters))
    await api.create(pods, a_pod("p1"))

    await pod_where(api, pods, is_bound, "p1")

    assert tried["p1"] - tried["p0"] >= HTTP_TIMEOUT * 0.9


async def test_binds_run_beside_each_other(
    api: ApiClient, pods: str, extender: FakeExtender, scheduler: KubeScheduler | None
) -> None:
    """A slow bind keeps no other pod from being scheduled and bound."""
    both = asyncio.Barrier(2)

    async def bind_together(asked: Json) -> Json:
        await both.wait()
        return await extender.bind(asked)

    extender.on_bind = bind_together
    for name in ("p0", "p1"):
        await api.create(pods, a_pod(name))

    for name in ("p0", "p1"):
        await pod_where(api, pods, is_bound, name)
    assert 2 == len(extender.binds)


async def test_a_failed_bind_repeats_the_whole_cycle(
    api: ApiClient, pods: str, extender: FakeExtender, scheduler: KubeScheduler | None
) -> None:
    """An Error at bind is told as FailedScheduling; filter is asked again before the next bind."""
    extender.on_bind = lambda asked: {"Error": "node lock busy"} if len(extender.binds) == 1 else extender.bind(asked)
    await api.create(pods, a_pod())

    await pod_where(api, pods, is_bound)

    await event_of(api, pods, "FailedScheduling", "node lock busy")
    assert (2, 2) == (len(extender.filters), len(extender.binds))


async def test_a_bind_that_lands_late_is_not_repeated(
    api: ApiClient, pods: str, extender: FakeExtender, scheduler: KubeScheduler | None
) -> None:
    """The answer times out, the pod is then seen bound: an event, and no second cycle."""
    late: list[Json] = []

    async def too_late(asked: Json) -> Json:
        late.append(asked)
        await asyncio.Event().wait()
        return {}

    extender.on_bind = too_late
    await api.create(pods, a_pod())
    await event_of(api, pods, "FailedScheduling")

    await extender.bind(late[0])
    tried = len(extender.filters)
    await api.create(pods, a_pod("next", limits={"cpu": "1"}))
    await pod_where(api, pods, is_bound, "next")

    assert len(extender.filters) <= tried + 1


async def test_a_bind_claimed_but_not_done_is_never_repeated(
    api: ApiClient, pods: str, extender: FakeExtender, scheduler: KubeScheduler | None
) -> None:
    """The pod stays assumed: announced as Scheduled, pending for ever, not tried again by any change."""
    extender.on_bind = lambda _: {"Error": ""}
    await api.create(pods, a_pod())
    await event_of(api, pods, "Scheduled")

    await api.patch(f"{CORE}/nodes/node-a", {"metadata": {"annotations": {"changed": "1"}}})
    await api.create(pods, a_pod("next", limits={"cpu": "1"}))
    await pod_where(api, pods, is_bound, "next")

    assert 1 == len(extender.filters)
    assert not is_bound(await api.get(f"{pods}/p0"))


async def test_an_ignorable_extender_is_passed_over(cluster: Cluster, extender: FakeExtender, pods: str) -> None:
    """With ignorable true a failing filter leaves all nodes and a failing bind falls to the default binder."""
    extender.on_filter = lambda _: {**fit(), "Error": "no leader"}
    extender.on_bind = lambda _: {"Error": "no leader"}

    async with cluster.scheduling(an_extender(extender, ignorable=True)):
        await cluster.api.create(pods, a_pod())
        await pod_where(cluster.api, pods, is_bound)

    assert 1 == len(extender.binds)
