"""A trace sink for the demo and the tests: takes OTLP over HTTP, answers as Jaeger's query API does.

One rule: it keeps the last ``KEPT`` traces in memory and nothing else. ``POST /v1/traces`` (protobuf),
``GET /api/traces/{id}`` and ``GET /api/traces?limit=`` (Jaeger's JSON, so that its readers work unchanged).
"""

import argparse
import asyncio
import gzip
from collections import OrderedDict
from typing import Any

import uvicorn
from google.protobuf.message import DecodeError
from msgspec import Struct
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

KEPT = 2000


class Span(Struct, frozen=True, kw_only=True):
    """One finished span; times in microseconds since the epoch, as Jaeger has them. ``parent`` is empty at a root."""

    trace: str
    id: str
    parent: str
    name: str
    service: str
    start: int
    duration: int
    tags: dict[str, Any]
    failed: bool


class TraceSink:
    """The traces seen, by id."""

    def __init__(self) -> None:
        self._traces: OrderedDict[str, dict[str, Span]] = OrderedDict()

    def take(self, body: bytes) -> None:
        """Take one OTLP export request; raise ``DecodeError`` of protobuf for a body that is none."""
        request = ExportTraceServiceRequest.FromString(body)
        for resource in request.resource_spans:
            attributes = {a.key: _plain(a.value) for a in resource.resource.attributes}
            service = str(attributes.get("service.name", ""))
            for scope in resource.scope_spans:
                for raw in scope.spans:
                    self._keep(_span(raw, service))

    def _keep(self, span: Span) -> None:
        self._traces.setdefault(span.trace, {})[span.id] = span
        self._traces.move_to_end(span.trace)
        while len(self._traces) > KEPT:
            self._traces.popitem(last=False)

    def trace(self, trace_id: str) -> list[Span]:
        """Return the spans of a trace, first started first; empty for one never seen."""
        return sorted(self._traces.get(trace_id, {}).values(), key=lambda s: (s.start, s.id))

    def newest(self, limit: int) -> list[str]:
        """Return the ids of the traces that changed last, newest first."""
        return list(reversed(self._traces))[:limit]


def _span(raw: Any, service: str) -> Span:
    return Span(
        trace=raw.trace_id.hex(),
        id=raw.span_id.hex(),
        parent=raw.parent_span_id.hex(),
        name=raw.name,
        service=service,
        start=raw.start_time_unix_nano // 1000,
        duration=(raw.end_time_unix_nano - raw.start_time_unix_nano) // 1000,
        tags={a.key: _plain(a.value) for a in raw.attributes},
        failed=raw.status.code == 2,
    )


def _plain(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    return getattr(value, kind) if kind in {"string_value", "int_value", "double_value", "bool_value"} else str(value)


def jaeger(trace_id: str, spans: list[Span]) -> dict[str, Any]:
    """Write a trace as Jaeger's query API does."""
    services = list(dict.fromkeys(s.service for s in spans))
    return {
        "traceID": trace_id,
        "spans": [_jaeger_span(s, f"p{services.index(s.service) + 1}") for s in spans],
        "processes": {f"p{i}": {"serviceName": name, "tags": []} for i, name in enumerate(services, 1)},
        "warnings": None,
    }


def _jaeger_span(span: Span, process: str) -> dict[str, Any]:
    parent = [{"refType": "CHILD_OF", "traceID": span.trace, "spanID": span.parent}] if span.parent else []
    tags = [{"key": k, "type": _kind(v), "value": v} for k, v in span.tags.items()]
    if span.failed:
        tags.append({"key": "error", "type": "bool", "value": True})
    return {
        "traceID": span.trace,
        "spanID": span.id,
        "operationName": span.name,
        "references": parent,
        "startTime": span.start,
        "duration": span.duration,
        "tags": tags,
        "logs": [],
        "processID": process,
        "warnings": None,
    }


def _kind(value: object) -> str:
    return {bool: "bool", int: "int64", float: "float64"}.get(type(value), "string")


def app(sink: TraceSink) -> Starlette:
    """Return the sink as an ASGI application."""

    async def take(request: Request) -> Response:
        body = await request.body()
        try:
            sink.take(gzip.decompress(body) if request.headers.get("content-encoding") == "gzip" else body)
        except (DecodeError, OSError, EOFError) as e:
            return _bad(f"the body is no OTLP trace export in protobuf: {e}")
        return Response(ExportTraceServiceResponse().SerializeToString(), media_type="application/x-protobuf")

    async def one(request: Request) -> Response:
        trace_id = request.path_params["id"].lower().zfill(32)
        spans = sink.trace(trace_id)
        if not spans:
            error = {"code": 404, "msg": "trace not found", "traceID": trace_id}
            return JSONResponse({"data": None, "total": 0, "errors": [error]}, status_code=404)
        return JSONResponse({"data": [jaeger(trace_id, spans)], "total": 1, "limit": 0, "offset": 0, "errors": None})

    async def many(request: Request) -> Response:
        text = request.query_params.get("limit", "20")
        if not text.isdecimal():
            return _bad(f'limit "{text}" is no number: write how many traces are wanted')
        limit = int(text)
        data = [jaeger(i, sink.trace(i)) for i in sink.newest(limit)]
        return JSONResponse({"data": data, "total": len(data), "limit": limit, "offset": 0, "errors": None})

    return Starlette(
        routes=[
            Route("/v1/traces", take, methods=["POST"]),
            Route("/api/traces/{id}", one),
            Route("/api/traces", many),
        ]
    )


def _bad(sentence: str) -> JSONResponse:
    return JSONResponse({"data": None, "errors": [{"code": 400, "msg": sentence}]}, status_code=400)


def main() -> None:
    """Serve the sink until told to stop."""
    parser = argparse.ArgumentParser(description="Take OTLP traces over HTTP, answer Jaeger's /api/traces/{id}")
    parser.add_argument("--listen", default="127.0.0.1:4318", help="host:port")
    host, _, port = parser.parse_args().listen.rpartition(":")
    server = uvicorn.Server(uvicorn.Config(app(TraceSink()), host=host, port=int(port), log_level="warning"))
    asyncio.run(server.serve())


if __name__ == "__main__":
    main()
