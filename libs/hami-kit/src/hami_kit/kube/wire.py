"""What goes over the wire to the API server beside the model's own objects, and what its refusals mean."""

from typing import Any, Generic, Literal, TypeVar

import msgspec
from hami_model.objects import Meta
from msgspec import Struct, field

from hami_kit.errors import (
    KubeConflict,
    KubeError,
    KubeForbidden,
    KubeGone,
    KubeInvalid,
    KubeNotFound,
    KubeUnavailable,
)

T = TypeVar("T")

MERGE_PATCH = "application/merge-patch+json"
JSON = "application/json"


class Answer(Struct, frozen=True):
    """What the API server answered; ``date`` is its header, in HTTP's own writing."""

    body: bytes
    date: str = ""


class Listed(Struct, Generic[T], frozen=True):
    """A whole list, all pages, as of one resourceVersion."""

    items: list[T]
    resource_version: str


class ListMeta(Struct, frozen=True, rename="camel"):
    """Metadata of a page."""

    resource_version: str = ""
    continue_: str = field(default="", name="continue")


class Page(Struct, frozen=True):
    """A page of a list; its items stay raw."""

    metadata: ListMeta = field(default_factory=ListMeta)
    items: list[msgspec.Raw] | None = None


class WatchLine(Struct, frozen=True):
    """One line of a watch."""

    type: Literal["ADDED", "MODIFIED", "DELETED", "BOOKMARK", "ERROR"]
    object: msgspec.Raw


class Identity(Struct, frozen=True, rename="camel"):
    """Which object it is, and as of when: what can be read even where the rest of an object cannot."""

    name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}" if self.namespace else self.name or "an object"


class Identified(Struct, frozen=True):
    """Any object, as far as it says which it is."""

    metadata: Identity = field(default_factory=Identity)


class Status(Struct, frozen=True, rename="camel"):
    """The API server's refusal."""

    code: int = 0
    reason: str = ""
    message: str = ""


class LeaseSpec(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """Who holds a Lease; times as RFC 3339 with microseconds."""

    holder_identity: str | None = None
    lease_duration_seconds: int | None = None
    acquire_time: str | None = None
    renew_time: str | None = None
    lease_transitions: int | None = None


class Lease(Struct, frozen=True, kw_only=True, rename="camel"):
    """A Lease of coordination.k8s.io/v1."""

    metadata: Meta = field(default_factory=Meta)
    spec: LeaseSpec = field(default_factory=LeaseSpec)

    def body(self) -> dict[str, Any]:
        """Write the Lease as the API server reads it."""
        meta = {"name": self.metadata.name, "namespace": self.metadata.namespace}
        if self.metadata.resource_version:
            meta["resourceVersion"] = self.metadata.resource_version
        kind = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease"}
        return {**kind, "metadata": meta, "spec": msgspec.to_builtins(self.spec)}


_STATUS = msgspec.json.Decoder(Status)
_LINE = msgspec.json.Decoder(WatchLine)
_IDENTIFIED = msgspec.json.Decoder(Identified)
_BY_CODE: dict[int, type[KubeError]] = {
    401: KubeForbidden,
    403: KubeForbidden,
    404: KubeNotFound,
    409: KubeConflict,
    410: KubeGone,
    422: KubeInvalid,
}


def refusal(status: int, body: bytes, *, retry_after: str | None = None) -> KubeError:
    """Return the error that an answer of the API server is; 429 and 5xx may be asked again."""
    try:
        told = _STATUS.decode(body)
    except msgspec.DecodeError:
        told = Status(message=body[:200].decode(errors="replace"))
    kind = _BY_CODE.get(status, KubeUnavailable if status == 429 or status >= 500 else KubeError)
    seconds = float(retry_after) if retry_after and retry_after.isdigit() else None
    message = told.message or f"the API server answered {status}"
    return kind(message, status=status, reason=told.reason, retry_after=seconds)


def read_line(line: bytes) -> WatchLine:
    """Read a line of a watch; one that is none, or an ERROR, raises ``KubeGone``: a list can say what it cannot."""
    try:
        read = _LINE.decode(line)
    except msgspec.DecodeError as e:
        raise KubeGone(f"a line of the watch cannot be read: {e}") from e
    if read.type == "ERROR":
        told = refusal(_code(read.object), bytes(read.object))
        raise KubeGone(str(told), status=told.status, reason=told.reason)
    return read


def identity_of(raw: msgspec.Raw) -> Identity:
    """Return which object it is, as far as that can be read."""
    try:
        return _IDENTIFIED.decode(raw).metadata
    except msgspec.DecodeError:
        return Identity()


def is_before(version: str, other: str) -> bool:
    """Say whether one resourceVersion is older than another of the same resource; unknown ones are not."""
    return version.isdigit() and other.isdigit() and int(version) < int(other)


def _code(status: msgspec.Raw) -> int:
    try:
        return _STATUS.decode(status).code or 500
    except msgspec.DecodeError:
        return 500
