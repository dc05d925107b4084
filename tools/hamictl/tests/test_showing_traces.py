"""``hamictl trace POD``: the pod's way as a tree, from the API server's annotation and Jaeger's spans."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hami_kit.setting_values import Address
from hami_kit.telemetry import TRACEPARENT_ANNOTATION
from hami_kit.web import serve
from hami_testkit.cluster import Standin
from hami_testkit.cluster.resources import PODS
from hami_testkit.tracesink import TraceSink, app
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, Status
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from .conftest import Prompt

TRACE = "ab" * 16
NOWHERE = Address("127.0.0.1", 0)


def a_span(name: str, *, number: int, parent: int = 0, start_ms: float = 0, failed: bool = False) -> Span:
    start = int(start_ms * 1_000_000)
    return Span(
        trace_id=bytes.fromhex(TRACE),
        span_id=number.to_bytes(8, "big"),
        parent_span_id=parent.to_bytes(8, "big") if parent else b"",
        name=name,
        start_time_unix_nano=start,
        end_time_unix_nano=start + 1_500_000,
        status=Status(code=Status.STATUS_CODE_ERROR if failed else Status.STATUS_CODE_OK),
    )


@pytest.fixture
async def sink(prompt: Prompt) -> AsyncIterator[TraceSink]:
    sink = TraceSink()
    async with serve(app(sink), NOWHERE) as at:
        prompt.export("HAMI_TRACES_URL", f"http://127.0.0.1:{at.port}")
        yield sink


@pytest.fixture
async def cluster(prompt: Prompt, tmp_path: Path) -> AsyncIterator[Standin]:
    """An API server with the pod ``p``, whose annotation names the trace."""
    annotations = {TRACEPARENT_ANNOTATION: f"00-{TRACE}-{1:016x}-01"}
    meta = {"name": "p", "namespace": "default", "annotations": annotations}
    async with Standin.start() as cluster:
        prompt.export("KUBECONFIG", cluster.kubeconfig(tmp_path / "kubeconfig"))
        pod = {"metadata": meta, "spec": {"containers": [{"name": "main", "image": "app"}]}}
        await cluster.registry.create(PODS, pod, namespace="default")
        yield cluster


def tell(sink: TraceSink, service: str, *spans: Span) -> None:
    resource = ResourceSpans(scope_spans=[ScopeSpans(spans=spans)])
    resource.resource.attributes.append(KeyValue(key="service.name", value=AnyValue(string_value=service)))
    sink.take(ExportTraceServiceRequest(resource_spans=[resource]).SerializeToString())


def a_way(sink: TraceSink) -> None:
    tell(sink, "hami-webhook", a_span("webhook", number=1))
    tell(sink, "hami-extender", a_span("filter", number=2, parent=1, start_ms=7, failed=True))
    tell(sink, "hami-node-agent", a_span("Allocate", number=4, parent=3, start_ms=20))


async def test_a_trace_is_a_tree_with_times(prompt: Prompt, cluster: Standin, sink: TraceSink) -> None:
    """Each span under the one that caused it; what failed, and what has no parent, says so."""
    a_way(sink)

    said = await prompt.hamictl("trace", "p")

    assert 0 == said.code
    assert [
        "webhook  1.5 ms  at +0.0 ms, hami-webhook",
        "└── filter  1.5 ms  at +7.0 ms, hami-extender  failed",
        "Allocate  1.5 ms  at +20.0 ms, hami-node-agent  (its parent has not arrived)",
    ] == [line.rstrip() for line in said.out.splitlines()]


async def test_programs_get_the_tree(prompt: Prompt, cluster: Standin, sink: TraceSink) -> None:
    """Name, service, times, children; failed and orphan as they are."""
    a_way(sink)

    webhook, allocate = (await prompt.hamictl("trace", "default/p", "-o", "json")).json

    assert ("webhook", "hami-webhook", 1.5, 0.0, False) == tuple(
        webhook[key] for key in ("name", "service", "ms", "after_ms", "orphan")
    )
    assert [("filter", True)] == [(child["name"], child["failed"]) for child in webhook["children"]]
    assert (True, []) == (allocate["orphan"], allocate["children"])


async def test_a_trace_that_has_not_arrived(prompt: Prompt, cluster: Standin, sink: TraceSink) -> None:
    """It may come, or nobody exports."""
    said = await prompt.hamictl("trace", "p")

    assert 1 == said.code
    assert f"no trace {TRACE}" in said.sentence
    assert "traces are not exported" in said.sentence


async def test_a_pod_that_is_not_there(prompt: Prompt, cluster: Standin, sink: TraceSink) -> None:
    """The name with its namespace."""
    said = await prompt.hamictl("trace", "p", "-n", "team-a")

    assert (1, "there is no pod team-a/p: check its name and its namespace (-n)") == (said.code, said.sentence)


@pytest.mark.parametrize(("url", "code", "words"), [
    ("", 2, "HAMI_TRACES_URL is not set"),
    ("jaeger:16686", 2, 'HAMI_TRACES_URL: "jaeger:16686" is no address'),
    ("http://[jaeger", 1, "nothing that answers as Jaeger does is at http://[jaeger"),
    ("http://127.0.0.1:1", 1, "nothing that answers as Jaeger does is at http://127.0.0.1:1"),
])  # fmt: skip
async def test_traces_that_cannot_be_read(prompt: Prompt, cluster: Standin, url: str, code: int, words: str) -> None:
    """The address and what is wrong with it."""
    prompt.export("HAMI_TRACES_URL", url)
    said = await prompt.hamictl("trace", "p")

    assert code == said.code
    assert words in said.sentence


@pytest.mark.parametrize("body", [b"<html>", b"{}", b'{"data": null}', b'{"data": []}', b'{"data": [{"spans": [{}]}]}'])
async def test_a_server_that_is_no_jaeger(prompt: Prompt, cluster: Standin, body: bytes) -> None:
    """Somebody answers there, but not that."""

    async def answer(_request: Request) -> Response:
        return Response(body)

    async with serve(Starlette(routes=[Route("/{any:path}", answer)]), NOWHERE) as at:
        prompt.export("HAMI_TRACES_URL", f"http://127.0.0.1:{at.port}")
        said = await prompt.hamictl("trace", "p")

    assert 1 == said.code
    assert "does not answer as Jaeger does" in said.sentence


@pytest.mark.parametrize(("text", "words"), [
    (None, "is no file"),
    ("bad: [", "cannot be used"),
    ("{}", "cannot be used"),
])  # fmt: skip
async def test_a_kubeconfig_that_cannot_be_read(
    prompt: Prompt, sink: TraceSink, tmp_path: Path, text: str | None, words: str
) -> None:
    """The variable, the file, and what to name instead."""
    file = tmp_path / "config"
    if text is not None:
        file.write_text(text)
    prompt.export("KUBECONFIG", file)
    said = await prompt.hamictl("trace", "p")

    assert 2 == said.code
    assert said.sentence.startswith(f'KUBECONFIG: "{file}" {words}')
    assert said.sentence.endswith("name a readable kubeconfig file")


async def test_no_kubeconfig_and_no_pod_of_our_own(prompt: Prompt, sink: TraceSink) -> None:
    """Neither the variable nor ~/.kube/config nor a pod's service account."""
    said = await prompt.hamictl("trace", "p")

    assert 2 == said.code
    assert said.sentence.startswith("KUBECONFIG: is not set and this is no pod")


async def test_an_api_server_that_is_away(prompt: Prompt, sink: TraceSink, tmp_path: Path) -> None:
    """The kubeconfig leads to where nobody answers."""
    async with Standin.start() as cluster:
        prompt.export("KUBECONFIG", cluster.kubeconfig(tmp_path / "kubeconfig"))
    said = await prompt.hamictl("trace", "p")

    assert 1 == said.code
    assert f"pod default/p cannot be read (KUBECONFIG={tmp_path / 'kubeconfig'})" in said.sentence
