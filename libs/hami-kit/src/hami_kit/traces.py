"""One pod's trace as a tree, read from Jaeger's query API.

One rule: a span whose parent never arrived is shown at the root, marked, rather than lost.
"""

from collections import defaultdict
from typing import Annotated, Any

import httpx
import msgspec
from msgspec import Meta, Struct

from hami_kit.errors import BoundaryError


class TraceUnavailable(BoundaryError):
    """The trace cannot be read: nothing answers, or it is not there (yet)."""

    retriable = True


class Branch(Struct, frozen=True, kw_only=True):
    """A span with those it caused; ``ms`` is its own duration, ``after_ms`` when it began after the trace did."""

    name: str
    service: str
    ms: float
    after_ms: float
    children: list["Branch"]
    failed: bool = False
    orphan: bool = False


class _Process(Struct, rename="camel"):
    service_name: str


class _Span(Struct, rename={"id": "spanID", "name": "operationName", "start": "startTime", "process": "processID"}):
    id: str
    name: str
    start: int
    duration: int
    process: str
    references: list[dict[str, Any]] | None = None
    tags: list[dict[str, Any]] | None = None


class _Trace(Struct):
    spans: list[_Span]
    processes: dict[str, _Process]


class _Answer(Struct):
    """What we read of Jaeger's answer."""

    data: Annotated[list[_Trace], Meta(min_length=1)]


async def fetch(url: str, trace_id: str) -> list[dict[str, Any]]:
    """Return the spans of a trace as Jaeger writes them; raise ``TraceUnavailable`` where there are none."""
    address = f"{url.rstrip('/')}/api/traces/{trace_id}"
    try:
        async with httpx.AsyncClient(timeout=5, trust_env=False) as client:
            answer = await client.get(address)
    except (httpx.HTTPError, httpx.InvalidURL) as e:
        raise TraceUnavailable(f"nothing that answers as Jaeger does is at {url} ({e or type(e).__name__})") from e
    if answer.status_code == 404:
        raise TraceUnavailable(f"no trace {trace_id} at {url}: it may not have arrived yet, or traces are not exported")
    if answer.status_code != 200:
        raise TraceUnavailable(f"{address} answered {answer.status_code}")
    try:
        msgspec.json.decode(answer.content, type=_Answer)
    except msgspec.DecodeError as e:
        raise TraceUnavailable(f"{address} does not answer as Jaeger does: {e}") from e
    traces = answer.json()["data"]
    services = {key: p["serviceName"] for key, p in traces[0]["processes"].items()}
    return [{**span, "service": services.get(span["processID"], "")} for span in traces[0]["spans"]]


def tree(spans: list[dict[str, Any]]) -> list[Branch]:
    """Order spans into their tree, first started first."""
    ordered = sorted(spans, key=lambda s: (s["startTime"], s["spanID"]))
    known = {span["spanID"] for span in ordered}
    below: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    for span in ordered:
        below[parent if (parent := _parent(span)) in known else ""].append(span)
    start = ordered[0]["startTime"] if ordered else 0

    def branch(span: dict[str, Any], *, at_root: bool = False) -> Branch:
        return Branch(
            name=span["operationName"],
            service=span["service"],
            ms=span["duration"] / 1000,
            after_ms=(span["startTime"] - start) / 1000,
            children=[branch(child) for child in below.get(span["spanID"], [])],
            failed=any(tag.get("key") == "error" and tag.get("value") for tag in span.get("tags") or []),
            orphan=at_root and bool(_parent(span)),
        )

    return [branch(span, at_root=True) for span in below[""]]


def _parent(span: dict[str, Any]) -> str:
    return next((str(r.get("spanID")) for r in span.get("references") or [] if r.get("refType") == "CHILD_OF"), "")
