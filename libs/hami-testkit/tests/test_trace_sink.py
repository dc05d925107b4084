"""The trace sink: what was exported is read back as Jaeger would write it."""

import gzip

import httpx
from hami_testkit.tracesink import KEPT, TraceSink, app
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, Status

TRACE = "ab" * 16


def a_span(
    name: str, *, number: int, parent: int = 0, trace: str = TRACE, start_us: int = 0, failed: bool = False
) -> Span:
    return Span(
        trace_id=bytes.fromhex(trace),
        span_id=number.to_bytes(8, "big"),
        parent_span_id=parent.to_bytes(8, "big") if parent else b"",
        name=name,
        start_time_unix_nano=start_us * 1000,
        end_time_unix_nano=(start_us + 5) * 1000,
        attributes=[KeyValue(key="pod", value=AnyValue(string_value="default/p"))],
        status=Status(code=Status.STATUS_CODE_ERROR if failed else Status.STATUS_CODE_OK),
    )


def an_export(service: str, *spans: Span) -> bytes:
    resource = ResourceSpans(scope_spans=[ScopeSpans(spans=spans)])
    resource.resource.attributes.append(KeyValue(key="service.name", value=AnyValue(string_value=service)))
    return ExportTraceServiceRequest(resource_spans=[resource]).SerializeToString()


def talk_to(sink: TraceSink) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app(sink)), base_url="http://sink")


async def test_an_exported_trace_is_read_as_jaeger_writes_it() -> None:
    """Two services send their parts; the answer is one trace, first started first."""
    async with talk_to(TraceSink()) as http:
        child = an_export("hami-allocator", a_span("filter", number=2, parent=1, start_us=7, failed=True))
        await http.post("/v1/traces", content=child)
        parent = gzip.compress(an_export("hami-webhook", a_span("webhook", number=1, start_us=3)))
        taken = await http.post("/v1/traces", content=parent, headers={"content-encoding": "gzip"})
        trace = (await http.get(f"/api/traces/{TRACE}")).json()["data"][0]
    first, second = trace["spans"]

    assert 200 == taken.status_code
    assert ("webhook", 3, 5, []) == (
        first["operationName"],
        first["startTime"],
        first["duration"],
        first["references"],
    )
    assert [{"refType": "CHILD_OF", "traceID": TRACE, "spanID": first["spanID"]}] == second["references"]
    assert "hami-allocator" == trace["processes"][second["processID"]]["serviceName"]
    assert {"key": "error", "type": "bool", "value": True} in second["tags"]
    assert {"key": "pod", "type": "string", "value": "default/p"} in first["tags"]


async def test_a_span_sent_twice_is_kept_once() -> None:
    """An exporter that heard no answer sends again."""
    sink = TraceSink()
    for _ in range(2):
        sink.take(an_export("hami-webhook", a_span("webhook", number=1)))

    assert ["webhook"] == [span.name for span in sink.trace(TRACE)]


async def test_a_trace_never_seen_is_not_found() -> None:
    """Jaeger's 404, with its error."""
    async with talk_to(TraceSink()) as http:
        answer = await http.get("/api/traces/1234")

    assert 404 == answer.status_code
    assert "trace not found" == answer.json()["errors"][0]["msg"]


async def test_the_newest_traces_come_first_and_as_many_as_asked_for() -> None:
    """A trace that grows is new again."""
    sink = TraceSink()
    for number in (1, 2, 3, 1):
        sink.take(an_export("s", a_span("x", number=number, trace=f"{number:032x}")))
    async with talk_to(sink) as http:
        found = (await http.get("/api/traces", params={"limit": 2})).json()["data"]

    assert [f"{1:032x}", f"{3:032x}"] == [trace["traceID"] for trace in found]


async def test_what_is_no_export_and_no_number_is_refused_with_a_sentence() -> None:
    """A bad request is the caller's fault: 400, and the sink goes on."""
    async with talk_to(TraceSink()) as http:
        garbage = await http.post("/v1/traces", content=b"no protobuf")
        unpacked = await http.post("/v1/traces", content=b"no gzip", headers={"content-encoding": "gzip"})
        limit = await http.get("/api/traces", params={"limit": "many"})

    assert [400, 400, 400] == [garbage.status_code, unpacked.status_code, limit.status_code]
    assert "OTLP" in garbage.text
    assert "limit" in limit.text


def test_only_the_last_traces_are_kept() -> None:
    """It may run for days beside a kept demo."""
    sink = TraceSink()
    for number in range(1, KEPT + 2):
        sink.take(an_export("s", a_span("x", number=1, trace=f"{number:032x}")))

    assert [] == sink.trace(f"{1:032x}")
    assert KEPT == len(sink.newest(2 * KEPT))
