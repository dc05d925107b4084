"""Traces: one pod is one trace, found without a carrier; without an endpoint nothing happens."""

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from hashlib import blake2b

import pytest
from hami_kit.bus import BusSettings, Endpoint, connect, wire
from hami_kit.errors import PayloadTooLarge
from hami_kit.setting_values import Address
from hami_kit.settings import CommonSettings
from hami_kit.telemetry import (
    TRACEPARENT_ANNOTATION,
    Telemetry,
    parent_of_pod,
    parent_of_uid,
    setup,
    traceparent,
)
from hami_kit.web import serve
from hami_model.bus import subjects
from hami_model.bus.messages import BindAnswer, BindPod, Done, Refused
from hami_model.objects import Meta, Pod, PodRef
from hami_testkit.nats import NatsServer
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from .conftest import DEADLINE

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def spans() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def telemetry(spans: InMemorySpanExporter) -> Telemetry:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(spans))
    return Telemetry(provider)


def test_a_span_continues_a_traceparent(telemetry: Telemetry, spans: InMemorySpanExporter) -> None:
    """What is opened inside belongs to the same trace, and the current traceparent names it."""
    with telemetry.span("outer", parent=PARENT, kind="server", pod="p0"):
        inside = traceparent()
        with telemetry.span("inner"):
            pass

    inner, outer = spans.get_finished_spans()
    assert {0x0AF7651916CD43DD8448EB211C80319C} == {inner.context.trace_id, outer.context.trace_id}
    assert 0xB7AD6B7169203331 == outer.parent.span_id if outer.parent else None
    assert outer.context.span_id == (inner.parent.span_id if inner.parent else 0)
    assert f"00-0af7651916cd43dd8448eb211c80319c-{outer.context.span_id:016x}-01" == inside
    assert {"pod": "p0"} == dict(outer.attributes or {})
    assert "" == traceparent()


def test_a_root_ignores_what_is_current(telemetry: Telemetry, spans: InMemorySpanExporter) -> None:
    """The webhook starts a pod's trace anew, whatever called it."""
    with telemetry.span("outer"), telemetry.span("pod", root=True):
        pass

    pod, outer = spans.get_finished_spans()
    assert pod.parent is None
    assert outer.context.trace_id != pod.context.trace_id


@pytest.mark.parametrize(
    "broken", ["", "nonsense", PARENT[:-1], PARENT.replace("0af7", "XXXX"), f"00-{'0' * 32}-{'1' * 16}-01"]
)
def test_a_broken_traceparent_is_no_parent(telemetry: Telemetry, spans: InMemorySpanExporter, broken: str) -> None:
    """Whatever somebody writes into an annotation, the span is opened."""
    with telemetry.span("pod", parent=broken):
        pass

    assert spans.get_finished_spans()[0].parent is None


def test_everybody_derives_the_same_trace_from_a_uid() -> None:
    """The trace's id is blake2b-128 of the uid; the webhook's annotation wins where it is one."""
    uid = "11111111-2222-3333-4444-555555555555"
    written = Pod(metadata=Meta(uid=uid, annotations={TRACEPARENT_ANNOTATION: PARENT}))
    forged = Pod(metadata=Meta(uid=uid, annotations={TRACEPARENT_ANNOTATION: "x"}))

    assert f"00-{blake2b(uid.encode(), digest_size=16).hexdigest()}" == parent_of_uid(uid)[:35]
    assert parent_of_uid(uid) == parent_of_pod(Pod(metadata=Meta(uid=uid))) == parent_of_pod(forged)
    assert PARENT == parent_of_pod(written)
    assert parent_of_pod(Pod()) is None


def test_without_an_endpoint_nothing_happens() -> None:
    """No span, no thread, no traceparent; the sentence of the code stays the same."""
    telemetry = setup("t", CommonSettings())
    with telemetry.span("pod", parent=PARENT, kind="client", pod="p0") as span:
        span.set_attribute("a", 1)
        assert "" == traceparent()
    telemetry.close()

    assert not telemetry.exports
    for off in (
        CommonSettings(otel_endpoint="http://c:1", otel_disabled=True),
        CommonSettings(otel_endpoint="http://c:1", otel_traces_exporter="none"),
    ):
        assert not setup("t", off).exports


async def test_a_trace_goes_over_the_bus(nats: NatsServer, telemetry: Telemetry, spans: InMemorySpanExporter) -> None:
    """The handler's span is a child of the asker's, in another process too: the header carries it."""

    async def bind(_message: BindPod) -> Done:
        with telemetry.span("deciding"):
            return Done()

    async with connect(BusSettings(url=nats.url), name="t", telemetry=telemetry) as bus:
        await bus.wait_connected()
        with telemetry.span("subscribing"):
            await bus.serve("allocator", [Endpoint("bind", subjects.BIND, BindPod, bind)])
        question = BindPod(pod=PodRef("default", "p0", "u"), node="n1")
        with telemetry.span("asking", parent=PARENT):
            await bus.request(subjects.BIND, question, BindAnswer, timeout=DEADLINE)

    named = {span.name: span for span in spans.get_finished_spans()}
    asking, served, deciding = named["asking"], named["bind"], named["deciding"]
    assert asking.context.trace_id == served.context.trace_id == deciding.context.trace_id
    assert asking.context.span_id == (served.parent.span_id if served.parent else 0)
    assert served.context.span_id == (deciding.parent.span_id if deciding.parent else 0)
    assert asking.context.trace_id != named["subscribing"].context.trace_id


async def test_a_traced_message_that_is_too_large_by_its_header_is_refused(
    nats: NatsServer, telemetry: Telemetry
) -> None:
    """NATS counts the traceparent too, and cuts the connection of whoever sends a byte too many."""
    bare = len(wire.encode(BindPod(pod=PodRef("default", "p0", "u"), node="")))

    async def bind(message: BindPod) -> Refused:
        return Refused(error=message.node)

    async def ask(bytes_less: int) -> None:
        text = "n" * (subjects.MAX_PAYLOAD - bare - 4 - bytes_less)
        question = BindPod(pod=PodRef("default", "p0", "u"), node=text)
        await bus.request(subjects.BIND, question, BindAnswer, timeout=DEADLINE)

    async with connect(BusSettings(url=nats.url), name="t", telemetry=telemetry) as bus:
        await bus.wait_connected()
        await bus.serve("allocator", [Endpoint("bind", subjects.BIND, BindPod, bind)])
        with telemetry.span("asking", parent=PARENT):
            with pytest.raises(PayloadTooLarge):
                await ask(bytes_less=0)
            await ask(bytes_less=200)


@asynccontextmanager
async def a_collector(heard: asyncio.Queue[ExportTraceServiceRequest]) -> AsyncIterator[str]:
    async def export(request: Request) -> Response:
        message = ExportTraceServiceRequest()
        message.ParseFromString(await request.body())
        await heard.put(message)
        return Response(media_type="application/x-protobuf")

    app = Starlette(routes=[Route("/v1/traces", export, methods=["POST"])])
    async with serve(app, Address("127.0.0.1", 0)) as address:
        yield f"http://{address}"


async def test_spans_leave_for_the_collector() -> None:
    """With an endpoint they go out over OTLP/HTTP under the service's name, at the latest when it closes."""
    heard: asyncio.Queue[ExportTraceServiceRequest] = asyncio.Queue()
    async with a_collector(heard) as url:
        telemetry = setup("hami-test", CommonSettings(otel_endpoint=url))
        assert telemetry.exports
        with telemetry.span("pod", parent=PARENT):
            pass
        async with asyncio.timeout(DEADLINE):
            await asyncio.to_thread(telemetry.close)
            message = await heard.get()

    (resource,) = message.resource_spans
    attributes = {pair.key: pair.value.string_value for pair in resource.resource.attributes}
    assert "hami-test" == attributes["service.name"]
    assert "pod" == resource.scope_spans[0].spans[0].name


async def test_a_collector_that_is_gone_delays_nobody(caplog: pytest.LogCaptureFixture) -> None:
    """Spans that cannot be sent are lost, and closing takes seconds at most."""
    caplog.set_level("CRITICAL", "opentelemetry")
    telemetry = setup("hami-test", CommonSettings(otel_endpoint="http://127.0.0.1:9"))
    with telemetry.span("pod"):
        pass
    async with asyncio.timeout(DEADLINE):
        await asyncio.to_thread(telemetry.close)
    for thread in threading.enumerate():  # it gives up by itself, and leaves nothing to the next test
        if thread.name == "last spans":
            await asyncio.to_thread(thread.join)
