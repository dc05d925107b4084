"""The kubelet's sockets: Registration for plugins, PodResources for readers, and the calls back to a plugin."""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import grpc
from hami_kit.kubelet import deviceplugin_v1beta1_pb2 as dp
from hami_kit.kubelet import podresources_v1_pb2 as pr
from hami_kit.kubelet.deviceplugin_v1beta1_pb2_grpc import DevicePluginStub, RegistrationServicer
from hami_kit.kubelet.podresources_v1_pb2_grpc import PodResourcesListerServicer

from hami_testkit.cluster.kubelet.devices import AdmissionError, DeviceManager, Response

log = logging.getLogger(__name__)

VERSION = "v1beta1"
RATE, BURST = 100, 10
"""PodResources calls a second, and at once."""

Spawn = Callable[[Coroutine[Any, Any, None]], object]


class PluginEndpoint:
    """A registered plugin, called over its own socket."""

    def __init__(self, socket: Path, resource: str, changed: Callable[[str, dict[str, bool]], None]) -> None:
        self.resource = resource
        self.alive = True
        self.prefers = False
        self._changed = changed
        self._channel = grpc.aio.insecure_channel(f"unix:{socket}", options=[("grpc.use_local_subchannel_pool", 1)])
        self._stub = DevicePluginStub(self._channel)

    async def greet(self) -> None:
        """Ask for the plugin's options, as the kubelet does while it is still in Register."""
        self.prefers = (await self._stub.GetDevicePluginOptions(dp.Empty())).get_preferred_allocation_available

    async def watch(self) -> None:
        """Follow the plugin's list until it ends; then the plugin is dead."""
        try:
            async for answer in self._stub.ListAndWatch(dp.Empty()):
                self._changed(self.resource, {d.ID: d.health == "Healthy" for d in answer.devices})
        except grpc.aio.AioRpcError as e:
            log.info("the plugin of %s is gone: %s", self.resource, e.details())
        finally:
            self.alive = False
            self._changed(self.resource, {})
            await self._channel.close(None)

    async def preferred(self, available: list[str], must: list[str], size: int) -> list[str]:
        """Ask which IDs the plugin would rather give."""
        ask = dp.ContainerPreferredAllocationRequest(
            available_deviceIDs=available, must_include_deviceIDs=must, allocation_size=size
        )
        request = dp.PreferredAllocationRequest(container_requests=[ask])
        answer = await self._call("GetPreferredAllocation", self._stub.GetPreferredAllocation(request))
        return [i for response in answer.container_responses for i in response.deviceIDs]

    async def allocate(self, ids: list[str]) -> Response:
        """Ask for the IDs; there is no deadline, as in the real kubelet."""
        request = dp.AllocateRequest(container_requests=[dp.ContainerAllocateRequest(devices_ids=ids)])
        answer = await self._call("Allocate", self._stub.Allocate(request))
        if not answer.container_responses:
            raise AdmissionError("Allocate failed due to no containers in allocation response")
        given = answer.container_responses[0]
        return {
            "envs": dict(given.envs),
            "mounts": [
                {"container": m.container_path, "host": m.host_path, "read_only": m.read_only} for m in given.mounts
            ],
            "devices": [
                {"container": d.container_path, "host": d.host_path, "permissions": d.permissions}
                for d in given.devices
            ],
            "annotations": dict(given.annotations),
        }

    async def _call(self, name: str, call: Any) -> Any:
        try:
            return await call
        except grpc.aio.AioRpcError as e:
            code = "".join(part.capitalize() for part in e.code().name.split("_"))
            raise AdmissionError(f"{name} failed due to rpc error: code = {code} desc = {e.details()}") from e


class Registration(RegistrationServicer):
    """``kubelet.sock``: plugins come here; the kubelet calls back before it answers."""

    def __init__(self, folder: Path, manager: DeviceManager, changed: Callable[[], None], spawn: Spawn) -> None:
        self._folder = folder
        self._manager = manager
        self._changed = changed
        self._spawn = spawn

    async def Register(self, request: dp.RegisterRequest, context: Any) -> dp.Empty:  # noqa: N802 - the protocol's name
        """Take a plugin in."""
        if request.version != VERSION:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"requested API version {request.version!r}")
        endpoint = PluginEndpoint(self._folder / request.endpoint, request.resource_name, self._devices)
        try:
            await endpoint.greet()
        except grpc.aio.AioRpcError as e:
            await context.abort(grpc.StatusCode.INTERNAL, f"failed to dial device plugin: {e.details()}")
        self._manager.attach(request.resource_name, endpoint)
        self._spawn(endpoint.watch())
        return dp.Empty()

    def _devices(self, resource: str, devices: dict[str, bool]) -> None:
        if devices:
            self._manager.set_devices(resource, devices)
        self._changed()


class TokenBucket:
    """The rate limit of PodResources."""

    def __init__(self) -> None:
        self._tokens, self._at = float(BURST), time.monotonic()

    def take_nowait(self) -> bool:
        """Take a token, if there is one."""
        now = time.monotonic()
        self._tokens, self._at = min(BURST, self._tokens + (now - self._at) * RATE), now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


class PodResources(PodResourcesListerServicer):
    """``pod-resources/kubelet.sock``: who has which IDs. ``pods`` gives (uid, pod object) of what is to be shown."""

    def __init__(
        self,
        manager: DeviceManager,
        pods: Callable[[], list[dict[str, Any]]],
        known: Callable[[], list[dict[str, Any]]],
    ) -> None:
        self._manager = manager
        self._pods = pods
        self._known = known
        self._bucket = TokenBucket()

    async def _admit(self, context: Any) -> None:
        if not self._bucket.take_nowait():
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "rejected by rate limit")

    async def List(self, request: pr.ListPodResourcesRequest, context: Any) -> pr.ListPodResourcesResponse:  # noqa: N802
        """Show the active pods; rebuilds the books, as the real one does."""
        await self._admit(context)
        await asyncio.sleep(0)
        pods = self._pods()
        self._manager.forget_ended(p["metadata"]["uid"] for p in pods)
        return pr.ListPodResourcesResponse(pod_resources=[self._show(p) for p in pods])

    async def Get(self, request: pr.GetPodResourcesRequest, context: Any) -> pr.GetPodResourcesResponse:  # noqa: N802
        """Show one pod; rebuilds nothing. A rejected pod is found, empty, until it is seen as Failed."""
        await self._admit(context)
        for pod in self._known():
            meta = pod["metadata"]
            if (meta["namespace"], meta["name"]) == (request.pod_namespace, request.pod_name):
                return pr.GetPodResourcesResponse(pod_resources=self._show(pod))
        return await context.abort(  # type: ignore[no-any-return]
            grpc.StatusCode.UNKNOWN, f"pod {request.pod_name} in namespace {request.pod_namespace} not found"
        )

    async def GetAllocatableResources(  # noqa: N802
        self, request: pr.AllocatableResourcesRequest, context: Any
    ) -> pr.AllocatableResourcesResponse:
        """Show all healthy IDs."""
        await self._admit(context)
        devices = [
            pr.ContainerDevices(resource_name=resource, device_ids=[i])
            for resource, ids in self._manager.healthy().items()
            for i in ids
        ]
        return pr.AllocatableResourcesResponse(devices=devices)

    def _show(self, pod: dict[str, Any]) -> pr.PodResources:
        spec, meta = pod["spec"], pod["metadata"]
        sidecars = [c for c in spec.get("initContainers") or [] if c.get("restartPolicy") == "Always"]
        containers = [
            pr.ContainerResources(
                name=c["name"],
                devices=[
                    pr.ContainerDevices(resource_name=resource, device_ids=[i])
                    for resource, ids in self._manager.of_container(meta["uid"], c["name"]).items()
                    for i in ids
                ],
            )
            for c in [*sidecars, *spec["containers"]]
        ]
        return pr.PodResources(name=meta["name"], namespace=meta["namespace"], containers=containers)
