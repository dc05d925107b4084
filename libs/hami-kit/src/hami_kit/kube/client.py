"""The API server as the few calls that we make, in and out as the model's own Structs.

One rule: lists are quorum reads (no resourceVersion is sent), all pages belong to one resourceVersion, and a write says
which object it means: by uid, and by resourceVersion where the caller saw one.
"""

import re
import secrets
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any, TypeVar

import msgspec
from hami_model.objects import Node, Pod, PodRef

from hami_kit.errors import KubeConflict, KubeError, KubeInvalid, KubeNotFound
from hami_kit.kube import transport
from hami_kit.kube.transport import Transport
from hami_kit.kube.wire import MERGE_PATCH, Lease, Listed, Page

T = TypeVar("T")

PAGE = 500
"""Objects of a list asked for at once."""

LIST_TIMEOUT = 60.0
"""Seconds for one page of a list."""

NODES = "/api/v1/nodes"
PODS = "/api/v1/pods"
QUOTAS = "/api/v1/resourcequotas"

_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
"""What Kubernetes takes for a name: a DNS subdomain."""

_POD = msgspec.json.Decoder(Pod)
_NODE = msgspec.json.Decoder(Node)
_PAGE = msgspec.json.Decoder(Page)
_LEASE = msgspec.json.Decoder(Lease)


class Kube:
    """One API server."""

    def __init__(self, transport: Transport) -> None:
        self.transport = transport

    @classmethod
    @asynccontextmanager
    async def connect(cls, kubeconfig: str | None) -> AsyncIterator["Kube"]:
        """Talk to the cluster of a kubeconfig, or to our own, for the length of a block."""
        async with transport.connect(kubeconfig) as opened:
            yield cls(opened)

    def guarded(self, guard: Callable[[], None]) -> "Kube":
        """Return the same API server for somebody whose right to write may end: what ``guard`` raises stops a write."""
        return Kube(self.transport.guarded(guard))

    # Reading

    async def get_pod(self, namespace: str, name: str) -> Pod:
        """Read a pod."""
        return _decode(_POD.decode, await self.transport.call("GET", _pod_path(namespace, name)), f"{namespace}/{name}")

    async def get_node(self, name: str) -> Node:
        """Read a node."""
        return _decode(_NODE.decode, await self.transport.call("GET", f"{NODES}/{_step(name)}"), name)

    async def list_pods(self, *, field_selector: str = "", label_selector: str = "") -> Listed[Pod]:
        """List pods; one that cannot be read is left out."""
        selectors = {"fieldSelector": field_selector, "labelSelector": label_selector}
        pods: list[Pod] = []
        version = ""
        async for page in self.pages(PODS, {name: text for name, text in selectors.items() if text}):
            pods += [pod for item in page.items if (pod := _or_none(_POD.decode, item)) is not None]
            version = page.resource_version
        return Listed(pods, version)

    async def list_raw(self, path: str, query: Mapping[str, str]) -> Listed[msgspec.Raw]:
        """List any resource, all pages; a page token that grew too old raises ``KubeGone``."""
        items: list[msgspec.Raw] = []
        version = ""
        async for page in self.pages(path, query):
            items += page.items
            version = page.resource_version
        return Listed(items, version)

    async def newest_version(self, path: str) -> str:
        """Return the resourceVersion up to which the API server knows a resource now."""
        answer = await self.transport.call("GET", path, query={"limit": "1"})
        return _decode(_PAGE.decode, answer, path).metadata.resource_version

    async def pages(self, path: str, query: Mapping[str, str]) -> AsyncIterator[Listed[msgspec.Raw]]:
        """List any resource page by page, all of one resourceVersion; raise ``KubeGone`` where that grew too old."""
        token = version = ""
        while True:
            asked = {**query, "limit": str(PAGE), **({"continue": token} if token else {})}
            page = _decode(
                _PAGE.decode, await self.transport.call("GET", path, query=asked, timeout=LIST_TIMEOUT), path
            )
            version, token = page.metadata.resource_version or version, page.metadata.continue_
            yield Listed(page.items or [], version)
            if not token:
                return

    # Writing

    async def bind_pod(self, pod: PodRef, node: str, *, resource_version: str, annotations: Mapping[str, str]) -> None:
        """Bind a pod to a node and write its annotations, in one write.

        ``resource_version`` fences the write; an empty one is not sent. The API server does not validate the
        annotations: the caller has checked keys and size.
        """
        meta: dict[str, Any] = {"name": pod.name, "namespace": pod.namespace, "uid": pod.uid}
        if resource_version:
            meta["resourceVersion"] = resource_version
        if annotations:
            meta["annotations"] = dict(annotations)
        target = {"apiVersion": "v1", "kind": "Node", "name": node}
        body = {"apiVersion": "v1", "kind": "Binding", "metadata": meta, "target": target}
        await self.transport.call("POST", f"{_pod_path(pod.namespace, pod.name)}/binding", body=body)

    async def patch_pod(
        self,
        pod: PodRef,
        *,
        annotations: Mapping[str, str | None] | None = None,
        labels: Mapping[str, str | None] | None = None,
        resource_version: str | None = None,
    ) -> Pod:
        """Set or remove (None) annotations and labels of exactly this pod; a namesake raises ``KubeConflict``."""
        meta = _meta(annotations, labels, resource_version) | {"uid": pod.uid}
        path = _pod_path(pod.namespace, pod.name)
        try:
            answer = await self.transport.call("PATCH", path, body={"metadata": meta}, content=MERGE_PATCH)
        except KubeInvalid as e:
            if "metadata.uid" not in str(e):
                raise
            # the API server takes another uid for an attempt to change it: what was meant is that pod and no namesake
            raise KubeConflict(f"pod {pod} is another one by now: {e}", status=409, reason="Conflict") from e
        return _decode(_POD.decode, answer, str(pod))

    async def patch_node(
        self, name: str, *, annotations: Mapping[str, str | None], resource_version: str | None = None
    ) -> Node:
        """Set or remove (None) annotations of a node."""
        body = {"metadata": _meta(annotations, None, resource_version)}
        return _decode(
            _NODE.decode,
            await self.transport.call("PATCH", f"{NODES}/{_step(name)}", body=body, content=MERGE_PATCH),
            name,
        )

    async def create_event(self, pod: PodRef, *, type: str, reason: str, message: str, component: str) -> None:  # noqa: A002
        """Tell of a pod in a Kubernetes Event; ``type`` is Normal or Warning."""
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        body = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": f"{pod.name}.{secrets.token_hex(8)}", "namespace": pod.namespace},
            "involvedObject": {
                "apiVersion": "v1",
                "kind": "Pod",
                "namespace": pod.namespace,
                "name": pod.name,
                "uid": pod.uid,
            },
            "type": type,
            "reason": reason,
            "message": message[:1024],
            "source": {"component": component},
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        }
        await self.transport.call("POST", f"/api/v1/namespaces/{_step(pod.namespace)}/events", body=body)

    # Leases

    async def get_lease(self, namespace: str, name: str) -> Lease:
        """Read a Lease."""
        answer = await self.transport.call("GET", f"{_lease_path(namespace)}/{_step(name)}", timeout=LEASE_TIMEOUT)
        return _decode(_LEASE.decode, answer, name)

    async def create_lease(self, lease: Lease) -> Lease:
        """Create a Lease; one that exists raises ``KubeConflict``."""
        path = _lease_path(lease.metadata.namespace)
        answer = await self.transport.call("POST", path, body=lease.body(), timeout=LEASE_TIMEOUT)
        return _decode(_LEASE.decode, answer, lease.metadata.name)

    async def replace_lease(self, lease: Lease) -> Lease:
        """Replace a Lease as it was read; one that changed since raises ``KubeConflict``."""
        path = f"{_lease_path(lease.metadata.namespace)}/{lease.metadata.name}"
        answer = await self.transport.call("PUT", path, body=lease.body(), timeout=LEASE_TIMEOUT)
        return _decode(_LEASE.decode, answer, lease.metadata.name)


LEASE_TIMEOUT = 3.0
"""Seconds for one call about a Lease: a renewal that hangs must not use up the Lease."""


def _pod_path(namespace: str, name: str) -> str:
    return f"/api/v1/namespaces/{_step(namespace)}/pods/{_step(name)}"


def _lease_path(namespace: str) -> str:
    return f"/apis/coordination.k8s.io/v1/namespaces/{_step(namespace)}/leases"


def _step(name: str) -> str:
    """Return a name as one step of a path; what can be no name is not there. Names come over the bus too."""
    if not _NAME.fullmatch(name):
        raise KubeNotFound(f'"{name}" not found: no object can be named so', status=404, reason="NotFound")
    return name


def _meta(
    annotations: Mapping[str, str | None] | None, labels: Mapping[str, str | None] | None, version: str | None
) -> dict[str, Any]:
    meta: dict[str, Any] = {}
    if annotations:
        meta["annotations"] = dict(annotations)
    if labels:
        meta["labels"] = dict(labels)
    if version is not None:
        meta["resourceVersion"] = version
    return meta


def _decode(read: Callable[[bytes], T], body: bytes, what: str) -> T:
    try:
        return read(body)
    except msgspec.DecodeError as e:
        raise KubeError(f"{what} as the API server shows it cannot be read: {e}") from e


def _or_none(read: Callable[[Any], T], raw: msgspec.Raw) -> T | None:
    try:
        return read(raw)
    except msgspec.DecodeError:
        return None
