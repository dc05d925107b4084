"""kube-scheduler's extender API: Go field names, every field always present, names read in any case.

One rule: a logical failure is HTTP 200 with ``Error`` set (HAMi v2.10); it translates and decides nothing.
"""

from collections.abc import Mapping, Sequence
from typing import TypeVar

import msgspec
from hami_model.objects import Node, Pod
from msgspec import Struct

T = TypeVar("T")


MAX_BODY = 64 * 1024 * 1024
"""Bytes: thousands of whole nodes. HAMi cuts at 1 MiB, which a few dozen of them exceed."""


class BadArgsError(Exception):
    """The body is not what kube-scheduler sends; the text goes into ``Error``."""


class FilterArgs(Struct, frozen=True):
    """``/filter``: the pod, and either node names or whole nodes (autoscalers).

    ``raw_nodes`` are the node objects as they came, so that the answer can hand one back untouched.
    """

    pod: Pod
    node_names: list[str] | None
    nodes: list[Node] | None
    raw_nodes: list[msgspec.Raw] | None


class BindArgs(Struct, frozen=True):
    """``/bind``: which pod to which node."""

    pod_name: str
    pod_namespace: str
    pod_uid: str
    node: str


class _NodeList(Struct, frozen=True):
    items: list[msgspec.Raw] | None = None


_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What decoding raises for bytes that are no JSON, no text, or nested without end."""

_FIELDS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_POD = msgspec.json.Decoder(Pod)
_NAMES = msgspec.json.Decoder(list[str] | None)
_NODES = msgspec.json.Decoder(_NodeList | None)
_NODE = msgspec.json.Decoder(Node)
_TEXT = msgspec.json.Decoder(str)
_NULL = msgspec.Raw(b"null")


def _fields(body: bytes) -> dict[str, msgspec.Raw]:
    """Split a body into its top-level fields, names folded as Go folds them."""
    if len(body) > MAX_BODY:
        raise BadArgsError(f"the request body has more than the {MAX_BODY} bytes that are read")
    try:
        return {name.lower(): value for name, value in _FIELDS.decode(body or b"null").items()}
    except _UNREADABLE as e:
        raise BadArgsError(f"the request body is no JSON object: {e}") from e


def read_filter(body: bytes) -> FilterArgs:
    """Read the body of ``/filter``; raise ``BadArgsError`` naming the field that is wrong."""
    fields = _fields(body)
    pod = fields.get("pod", _NULL)
    if bytes(pod) == b"null":
        raise BadArgsError("extender args missing pod")
    listed = _decoded("Nodes", _NODES, fields.get("nodes", _NULL))
    raw_nodes = None if listed is None else (listed.items or [])
    return FilterArgs(
        _decoded("Pod", _POD, pod),
        _decoded("NodeNames", _NAMES, fields.get("nodenames", _NULL)),
        None if raw_nodes is None else [_decoded(f"Nodes.items[{i}]", _NODE, raw) for i, raw in enumerate(raw_nodes)],
        raw_nodes,
    )


def _decoded(field: str, decoder: msgspec.json.Decoder[T], raw: msgspec.Raw) -> T:
    try:
        return decoder.decode(raw)
    except _UNREADABLE as e:
        raise BadArgsError(f"the extender args cannot be read: {field}: {e}") from e


def read_bind(body: bytes) -> BindArgs:
    """Read the body of ``/bind``; raise ``BadArgsError`` naming the field that is wrong."""
    fields = _fields(body)
    values = []
    for name in ("PodName", "PodNamespace", "PodUID", "Node"):
        try:
            value = _TEXT.decode(fields.get(name.lower(), _NULL))
        except _UNREADABLE as e:
            raise BadArgsError(f"the extender binding args lack {name}: {e}") from e
        if not value:
            raise BadArgsError(f"the extender binding args have an empty {name}")
        values.append(value)
    return BindArgs(*values)


def filter_result(
    *,
    node_names: Sequence[str] | None = None,
    nodes: Sequence[msgspec.Raw] | None = None,
    failed: Mapping[str, str] | None = None,
    error: str = "",
) -> bytes:
    """Write the answer to ``/filter``."""
    return msgspec.json.encode(
        {
            "Nodes": None if nodes is None else {"metadata": {}, "items": nodes},
            "NodeNames": node_names,
            "FailedNodes": failed,
            "FailedAndUnresolvableNodes": None,
            "Error": error,
        }
    )


def bind_result(error: str = "") -> bytes:
    """Write the answer to ``/bind``: an empty error means bound."""
    return msgspec.json.encode({"Error": error})
