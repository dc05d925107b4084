"""Talking to the kubelet: what PodResources shows, what its checkpoint remembers.

One rule: List makes the kubelet rebuild its books, so it is called only in GetPreferredAllocation and before serving,
and always awaited to its end; Get rebuilds nothing.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any, Protocol

import grpc
import msgspec
from hami_kit.kubelet import podresources_v1_pb2 as pb
from hami_kit.kubelet.podresources_v1_pb2_grpc import PodResourcesListerStub
from msgspec import Struct

log = logging.getLogger(__name__)

CALL_TIMEOUT = 5.0
"""Seconds for a Get: it takes milliseconds, or the kubelet is gone."""


RATE_LIMIT_TRIES = 10
RATE_LIMIT_PAUSE = 0.03
"""The kubelet takes 100 calls a second in bursts of 10: who is refused comes again soon."""


class ListedPod(Struct, frozen=True, kw_only=True):
    """A pod as PodResources shows it: container -> resource -> IDs. There is no uid."""

    namespace: str
    name: str
    containers: dict[str, dict[str, frozenset[str]]]

    def shown(self, resource: str) -> dict[str, frozenset[str]]:
        """Return the IDs of one resource by container."""
        return {name: ids.get(resource, frozenset()) for name, ids in self.containers.items()}

    @property
    def holdings(self) -> list[tuple[str, str, tuple[str, ...]]]:
        """Return container, resource and IDs, one by one."""
        return [(c, r, tuple(sorted(ids))) for c, resources in self.containers.items() for r, ids in resources.items()]

    @property
    def ids(self) -> frozenset[str]:
        """Return every ID that the pod shows."""
        return frozenset(i for _, _, ids in self.holdings for i in ids)


class KubeletUnreachable(Exception):
    """PodResources did not answer, or refused to for now."""


class Sights(Protocol):
    """The kubelet's view of who has which IDs; both raise ``KubeletUnreachable``."""

    async def list_pods(self) -> tuple[ListedPod, ...]:
        """Return every active pod."""
        ...

    async def get_pod(self, namespace: str, name: str) -> ListedPod | None:
        """Return one pod, or None where the kubelet has not admitted it, or has forgotten it."""
        ...


class PodResources:
    """What PodResources shows, over its socket."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket
        self._channel: grpc.aio.Channel | None = None

    async def list_pods(self) -> tuple[ListedPod, ...]:
        """Return every active pod. Waits for the kubelet to finish, even when the caller is cancelled."""
        answer = await asyncio.shield(asyncio.ensure_future(self._list()))
        return tuple(_listed(pod) for pod in answer.pod_resources)

    async def get_pod(self, namespace: str, name: str) -> ListedPod | None:
        """Return one pod, or None where the kubelet has not admitted it, or has forgotten it."""
        request = pb.GetPodResourcesRequest(pod_name=name, pod_namespace=namespace)
        try:
            answer = await self._patiently(lambda: self._stub().Get(request, timeout=CALL_TIMEOUT))
        except grpc.aio.AioRpcError as e:
            if e.code() in {grpc.StatusCode.UNKNOWN, grpc.StatusCode.NOT_FOUND}:
                return None
            raise KubeletUnreachable(_sentence(e)) from e
        return _listed(answer.pod_resources)

    async def close(self) -> None:
        """Close the connection; the next call opens a new one."""
        if self._channel is not None:
            await self._channel.close(None)
            self._channel = None

    async def _list(self) -> pb.ListPodResourcesResponse:
        try:
            answer: pb.ListPodResourcesResponse = await self._patiently(
                lambda: self._stub().List(pb.ListPodResourcesRequest())
            )
        except grpc.aio.AioRpcError as e:
            raise KubeletUnreachable(_sentence(e)) from e
        return answer

    async def _patiently(self, call: Callable[[], Awaitable[Any]]) -> Any:
        """Call again, soon, where the kubelet's rate limit stands against it."""
        for _ in range(RATE_LIMIT_TRIES):
            try:
                return await call()
            except grpc.aio.AioRpcError as e:
                if e.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED:
                    raise
            await asyncio.sleep(RATE_LIMIT_PAUSE)
        return await call()

    def _stub(self) -> Any:
        if self._channel is None:
            self._channel = grpc.aio.insecure_channel(f"unix://{self._socket}", options=LOCAL)
        return PodResourcesListerStub(self._channel)


LOCAL = (
    ("grpc.max_receive_message_length", 16 * 1024 * 1024),
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 500),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_http_proxy", 0),
    # gRPC would name the socket's path as the authority, which Go's servers refuse.
    ("grpc.default_authority", "localhost"),
)


class CheckpointEntry(Struct, frozen=True, rename="pascal"):
    """One container's IDs as the kubelet remembers them."""

    pod_uid: str = msgspec.field(name="PodUID")
    container_name: str = ""
    resource_name: str = ""
    device_ids: dict[str, list[str]] | None = msgspec.field(name="DeviceIDs", default=None)

    @property
    def ids(self) -> tuple[str, ...]:
        """Return the IDs of every NUMA node."""
        return tuple(i for ids in (self.device_ids or {}).values() for i in ids)


class _Data(Struct, frozen=True, rename="pascal"):
    pod_device_entries: list[CheckpointEntry] | None = None


class _Checkpoint(Struct, frozen=True, rename="pascal"):
    data: _Data = _Data()


def read_checkpoint(folder: Path, resources: Iterable[str]) -> tuple[CheckpointEntry, ...]:
    """Return what the kubelet's checkpoint says of these resources; nothing where it cannot be read."""
    try:
        return checkpoint(folder, resources)
    except ValueError as e:
        log.warning("%s", e)
        return ()


def checkpoint(folder: Path, resources: Iterable[str]) -> tuple[CheckpointEntry, ...]:
    """Return the same, nothing where there is none; raise ``ValueError`` where there is one that cannot be read."""
    path = folder / "kubelet_internal_checkpoint"
    try:
        entries = msgspec.json.decode(path.read_bytes(), type=_Checkpoint).data.pod_device_entries or []
    except FileNotFoundError:
        return ()
    except (OSError, msgspec.DecodeError) as e:
        raise ValueError(f"the kubelet's checkpoint {path} cannot be read: {e}") from e
    wanted = set(resources)
    return tuple(entry for entry in entries if entry.resource_name in wanted)


def _listed(pod: pb.PodResources) -> ListedPod:
    containers: dict[str, dict[str, frozenset[str]]] = {}
    for container in pod.containers:
        mine = containers.setdefault(container.name, {})
        for devices in container.devices:
            mine[devices.resource_name] = mine.get(devices.resource_name, frozenset()) | set(devices.device_ids)
    return ListedPod(namespace=pod.namespace, name=pod.name, containers=containers)


def _sentence(e: grpc.aio.AioRpcError) -> str:
    return f"the kubelet's PodResources answered {e.code().name}: {e.details()}"
