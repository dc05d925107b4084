"""PodResources: who has which IDs, for whoever asks at ``pod-resources/kubelet.sock``."""

from collections.abc import Callable, Iterable
from typing import Any

import grpc
from hami_kit.kubelet import podresources_v1_pb2 as pr
from hami_kit.kubelet.podresources_v1_pb2_grpc import PodResourcesListerServicer

from hami_testkit.cluster.kubelet.devices import DeviceManager
from hami_testkit.cluster.kubelet.pod import Role, containers, uid_of
from hami_testkit.cluster.status import Json


class TokenBucket:
    """A rate limit: so many calls a second, and so many at once."""

    def __init__(self, *, rate: float, burst: int, now: Callable[[], float]) -> None:
        self._rate, self._burst, self._now = rate, burst, now
        self._tokens, self._at = float(burst), now()

    def take_nowait(self) -> bool:
        """Take a token, if there is one."""
        now = self._now()
        self._tokens, self._at = min(self._burst, self._tokens + (now - self._at) * self._rate), now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


class PodResources(PodResourcesListerServicer):
    """The three calls. ``listed`` gives the pods that List shows, ``known`` those that Get finds."""

    def __init__(
        self,
        manager: DeviceManager,
        *,
        listed: Callable[[], Iterable[Json]],
        known: Callable[[], Iterable[Json]],
        bucket: TokenBucket,
    ) -> None:
        self._manager = manager
        self._listed = listed
        self._known = known
        self._bucket = bucket

    async def List(self, request: pr.ListPodResourcesRequest, context: Any) -> pr.ListPodResourcesResponse:  # noqa: N802
        """Show the active pods; this makes the kubelet recount its IDs."""
        await self._limit(context)
        self._manager.recount()
        return pr.ListPodResourcesResponse(pod_resources=[self._show(pod) for pod in self._listed()])

    async def Get(self, request: pr.GetPodResourcesRequest, context: Any) -> pr.GetPodResourcesResponse:  # noqa: N802
        """Show one pod; this recounts nothing."""
        await self._limit(context)
        asked = (request.pod_namespace, request.pod_name)
        found = [p for p in self._known() if (p["metadata"]["namespace"], p["metadata"]["name"]) == asked]
        if not found:
            why = f"pod {request.pod_name} in namespace {request.pod_namespace} not found"
            await context.abort(grpc.StatusCode.UNKNOWN, why)
        return pr.GetPodResourcesResponse(pod_resources=self._show(found[0]))

    async def GetAllocatableResources(  # noqa: N802
        self, request: pr.AllocatableResourcesRequest, context: Any
    ) -> pr.AllocatableResourcesResponse:
        """Show all healthy IDs."""
        await self._limit(context)
        return pr.AllocatableResourcesResponse(devices=_devices(self._manager.healthy().items()))

    async def _limit(self, context: Any) -> None:
        if not self._bucket.take_nowait():
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "rejected by rate limit")

    def _show(self, pod: Json) -> pr.PodResources:
        shown = [c["name"] for c, role in containers(pod) if role is not Role.INIT]
        return pr.PodResources(
            name=pod["metadata"]["name"],
            namespace=pod["metadata"]["namespace"],
            containers=[
                pr.ContainerResources(
                    name=name, devices=_devices(self._manager.of_container(uid_of(pod), name).items())
                )
                for name in shown
            ],
        )


def _devices(ids: Iterable[tuple[str, Iterable[str]]]) -> list[pr.ContainerDevices]:
    """Return one entry per ID, as the kubelet does."""
    return [pr.ContainerDevices(resource_name=r, device_ids=[i]) for r, of_it in ids for i in sorted(of_it)]
