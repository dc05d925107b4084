"""One pod, one trace: from admission over the decision and the Binding to its devices, on a running system."""

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from hami_kit import bus as buses
from hami_kit import traces
from hami_kit.bus import BusSettings
from hami_kit.settings import CommonSettings
from hami_kit.telemetry import TRACEPARENT_ANNOTATION, Telemetry
from hami_kit.traces import Branch, TraceUnavailable
from hami_testkit.stack import Agent, Plan, Stack, stack

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(120)]

Json = dict[str, Any]
DEADLINE = 30.0
WAY = {"webhook", "filter", "bind", "Allocate", "confirm"}
NODES = """
apiVersion: v1
kind: NodeList
items: [{metadata: {name: gpu-a}}]
"""
CARDS = "\n".join(
    f"- {{vendor: NVIDIA, id: GPU-{i}, index: {i}, count: 10, devmem: 40000, devcore: 100, type: NVIDIA A40,"
    " numa: 0, mode: hami-core, health: true}"
    for i in (0, 1)
)


@asynccontextmanager
async def a_system(*, with_traces: bool) -> AsyncIterator[Stack]:
    """Run every part as a process, with one node of two simulated cards."""
    # a short path: the kubelet's sockets stand below it
    with tempfile.TemporaryDirectory(prefix="hami-") as name:
        folder = Path(name)
        nodes, cards = folder / "nodes.yaml", folder / "gpu-a.yaml"
        nodes.write_text(NODES)
        cards.write_text(CARDS)
        agents = [Agent(node="gpu-a", cards=cards)]
        async with stack(Plan(folder=folder / "s", nodes=nodes, agents=agents, traces=with_traces)) as running:
            yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def system() -> AsyncIterator[Stack]:
    async with a_system(with_traces=True) as running:
        yield running


def a_pod(name: str, *containers: str) -> Json:
    limits = {"nvidia.com/gpu": "1", "nvidia.com/gpumem": "1000"}
    asking = [{"name": c, "image": "app", "resources": {"limits": limits}} for c in containers]
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {"containers": asking}}


async def run_pod(system: Stack, pod: Json) -> Json:
    """Apply a pod through the API and return it as it is once it runs."""
    pods = "/api/v1/namespaces/default/pods"
    async with httpx.AsyncClient(base_url=system.at.api, trust_env=False) as api, asyncio.timeout(DEADLINE):
        assert 201 == (await api.post(pods, json=pod)).status_code
        while True:
            seen: Json = (await api.get(f"{pods}/{pod['metadata']['name']}")).json()
            if seen["status"].get("phase") == "Running":
                return seen
            await asyncio.sleep(0.02)


async def spans_of(system: Stack, pod: Json, *, allocates: int) -> list[Json]:
    """Return the spans of the pod's trace, once its whole way has arrived."""
    trace_id = pod["metadata"]["annotations"][TRACEPARENT_ANNOTATION].split("-")[1]
    async with asyncio.timeout(DEADLINE):
        while True:
            try:
                found = await traces.fetch(system.at.traces, trace_id)
            except TraceUnavailable:
                found = []
            names = [span["operationName"] for span in found]
            if set(names) >= WAY and names.count("Allocate") >= allocates and not orphans(traces.tree(found)):
                return found
            await asyncio.sleep(0.05)


def orphans(roots: list[Branch]) -> list[str]:
    return [root.name for root in roots if root.orphan]


async def ways(system: Stack) -> set[str]:
    """Return the ids of all traces in which a step of some pod's way stands."""
    async with httpx.AsyncClient(base_url=system.at.traces, trust_env=False) as sink:
        every = (await sink.get("/api/traces", params={"limit": 1000})).json()["data"]
    return {one["traceID"] for one in every if WAY & {span["operationName"] for span in one["spans"]}}


async def test_a_pods_way_is_one_trace_without_a_gap(system: Stack) -> None:
    """Webhook, filter, bind, Allocate and confirm share one trace id, and every span's parent is in it."""
    before = await ways(system)
    pod = await run_pod(system, a_pod("single", "main"))
    spans = await spans_of(system, pod, allocates=1)

    assert {spans[0]["traceID"]} == await ways(system) - before
    assert ["webhook"] == [root.name for root in traces.tree(spans)]
    assert {"hami-webhook", "hami-extender", "hami-allocator", "hami-node-agent"} == {s["service"] for s in spans}
    assert ["Allocate"] == [s["operationName"] for s in spans if s["operationName"] == "Allocate"]


async def test_what_integrations_hear_of_a_pod_names_its_trace(system: Stack) -> None:
    """CloudEvents carry the traceparent that the webhook wrote, not another."""
    pod = await run_pod(system, a_pod("heard", "main"))
    written = pod["metadata"]["annotations"][TRACEPARENT_ANNOTATION]
    settings = BusSettings.of(CommonSettings(nats_url=system.at.nats))
    async with buses.connect(settings, name="test", telemetry=Telemetry()) as bus, asyncio.timeout(DEADLINE):
        told: dict[str, str] = {}
        while not told.keys() >= {"io.hami.reserved.v1", "io.hami.bound.v1", "io.hami.active.v1"}:
            events = await bus.recent_events(limit=100) if bus.is_connected else []
            told = {event.type: event.traceparent for event in events if event.subject == "default/heard"}
            await asyncio.sleep(0.02)

    assert {written} == set(told.values())
    await spans_of(system, pod, allocates=1)  # whoever counts traces after this counts none that is still on its way


async def test_two_containers_have_two_allocates_in_the_pods_one_trace(system: Stack) -> None:
    """The kubelet asks for one container after the other; both answers belong to the pod."""
    before = await ways(system)
    pod = await run_pod(system, a_pod("double", "trainer", "server"))
    spans = await spans_of(system, pod, allocates=2)

    assert {spans[0]["traceID"]} == await ways(system) - before
    assert 2 == [span["operationName"] for span in spans].count("Allocate")
    assert ["webhook"] == [root.name for root in traces.tree(spans)]


async def test_without_an_endpoint_no_traceparent_is_written() -> None:
    """Nobody asked for traces, so the pod stays free of them."""
    async with a_system(with_traces=False) as silent:
        pod = await run_pod(silent, a_pod("untraced", "main"))

    assert TRACEPARENT_ANNOTATION not in pod["metadata"]["annotations"]
