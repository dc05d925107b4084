"""Traces and metrics of one process.

One rule: telemetry never changes what happens. Without an endpoint a span costs nothing; with one, spans leave in
batches on another thread. A pod's trace is found without a carrier: its id is derived from the pod's uid, unless the
webhook has written a ``hami.io/traceparent``.
"""

import re
import threading
from collections.abc import Mapping
from contextlib import AbstractContextManager
from hashlib import blake2b
from types import TracebackType
from typing import Literal, Protocol

from hami_model.objects import Pod
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import INVALID_SPAN, NonRecordingSpan, Span, SpanContext, SpanKind, TraceFlags, Tracer
from opentelemetry.util.types import AttributeValue
from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector

from hami_kit.errors import SettingsError

TRACEPARENT_ANNOTATION = "hami.io/traceparent"

EXPORTER = "opentelemetry.exporter.otlp.proto.http.trace_exporter"
"""The logger that tells of every attempt to send spans."""

CLOSE_TIMEOUT = 3.0
"""Seconds for the last spans to leave when a process ends."""

Kind = Literal["internal", "server", "client", "producer", "consumer"]

_TRACEPARENT = re.compile(r"00-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})")
_KINDS: Mapping[Kind, SpanKind] = {
    "internal": SpanKind.INTERNAL,
    "server": SpanKind.SERVER,
    "client": SpanKind.CLIENT,
    "producer": SpanKind.PRODUCER,
    "consumer": SpanKind.CONSUMER,
}


class TelemetrySettings(Protocol):
    """What ``setup`` reads; ``CommonSettings`` has it. The exporter reads the other OTEL_* variables by itself."""

    @property
    def otel_endpoint(self) -> str:
        """Return OTEL_EXPORTER_OTLP_ENDPOINT."""
        ...

    @property
    def otel_traces_endpoint(self) -> str:
        """Return OTEL_EXPORTER_OTLP_TRACES_ENDPOINT."""
        ...

    @property
    def otel_traces_exporter(self) -> str:
        """Return OTEL_TRACES_EXPORTER."""
        ...

    @property
    def otel_disabled(self) -> bool:
        """Return OTEL_SDK_DISABLED."""
        ...

    @property
    def otel_service_name(self) -> str:
        """Return OTEL_SERVICE_NAME."""
        ...


class Telemetry:
    """One process' tracer and its metrics registry; without a provider every span is nothing."""

    def __init__(self, provider: TracerProvider | None = None) -> None:
        self._provider = provider
        self._tracer: Tracer | None = provider.get_tracer("hami") if provider else None
        self.metrics = _registry()

    @property
    def exports(self) -> bool:
        """Say whether spans leave this process."""
        return self._tracer is not None

    def span(
        self,
        name: str,
        *,
        parent: str | None = None,
        root: bool = False,
        kind: Kind = "internal",
        **attributes: AttributeValue,
    ) -> AbstractContextManager[Span]:
        """Open a span under ``parent`` (a traceparent), as a ``root``, or else under the current one."""
        if self._tracer is None:
            return _NOTHING
        context = Context() if root else _context_of(parent)
        return self._tracer.start_as_current_span(name, context=context, kind=_KINDS[kind], attributes=attributes)

    def close(self) -> None:
        """Send what is left, for ``CLOSE_TIMEOUT`` at most; blocks."""
        if self._provider is not None:
            # the exporter's own retries outlast any deadline that one can give it
            closing = threading.Thread(target=self._provider.shutdown, name="last spans", daemon=True)
            closing.start()
            closing.join(CLOSE_TIMEOUT)


Metrics = CollectorRegistry
"""The process' own metrics: counters and histograms of a service register here, ``/metrics`` serves it."""


class _Nothing(AbstractContextManager[Span]):
    def __enter__(self) -> Span:
        return INVALID_SPAN

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        return None


_NOTHING = _Nothing()


def setup(service_name: str, settings: TelemetrySettings) -> Telemetry:
    """Return the process' telemetry: exporting where the settings name an endpoint, else near-free."""
    wanted = settings.otel_traces_endpoint or settings.otel_endpoint
    if not wanted or settings.otel_disabled or settings.otel_traces_exporter == "none":
        return Telemetry()
    # imported here: the exporter costs 0.2 s and 10 MB that a process without an endpoint need not pay
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415

    url = settings.otel_traces_endpoint or settings.otel_endpoint.rstrip("/") + "/v1/traces"
    if not re.match(r"https?://[^/]", url):
        variable = f"OTEL_EXPORTER_OTLP_{'TRACES_' if settings.otel_traces_endpoint else ''}ENDPOINT"
        raise SettingsError(variable, f'"{wanted}" is no URL; write one such as http://collector:4318')
    resource = Resource.create({"service.name": settings.otel_service_name or service_name})
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=url)))
    return Telemetry(provider)


def _registry() -> CollectorRegistry:
    registry = CollectorRegistry(auto_describe=True)
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    return registry


def traceparent() -> str:
    """Return the current span as a W3C traceparent, empty where there is none."""
    span = trace.get_current_span().get_span_context()
    if not span.is_valid:
        return ""
    return f"00-{span.trace_id:032x}-{span.span_id:016x}-{int(span.trace_flags):02x}"


def annotate(**attributes: AttributeValue) -> None:
    """Add attributes to the current span, where there is one."""
    trace.get_current_span().set_attributes(attributes)


def parent_of_uid(uid: str) -> str:
    """Return the traceparent that everybody derives from a pod's uid."""
    key = uid.encode()
    return f"00-{blake2b(key, digest_size=16).hexdigest()}-{blake2b(key, digest_size=8).hexdigest()}-01"


def parent_of_pod(pod: Pod) -> str | None:
    """Return a pod's traceparent: the webhook's annotation, else the one derived from the uid, else none."""
    written = pod.annotations.get(TRACEPARENT_ANNOTATION, "")
    if _TRACEPARENT.fullmatch(written):
        return written
    return parent_of_uid(pod.metadata.uid) if pod.metadata.uid else None


def _context_of(parent: str | None) -> Context | None:
    match = _TRACEPARENT.fullmatch(parent) if parent else None
    if match is None:
        return None
    trace_id, span_id, flags = (int(part, 16) for part in match.groups())
    remote = SpanContext(trace_id, span_id, is_remote=True, trace_flags=TraceFlags(flags & 1))
    return trace.set_span_in_context(NonRecordingSpan(remote), Context())
