"""What goes over the wire to the API server beside the model's own objects, and what its refusals mean."""

from typing import Any, Generic, TypeVar

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

    type: str
    object: msgspec.Raw


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


def refusal_of(status: msgspec.Raw) -> KubeError:
    """Return the error that the Status object of a watch is."""
    body = bytes(status)
    try:
        code = _STATUS.decode(body).code
    except msgspec.DecodeError:
        code = 0
    return refusal(code or 500, body)
