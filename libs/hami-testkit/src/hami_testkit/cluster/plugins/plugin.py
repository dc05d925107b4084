"""A device plugin that serves: socket, registration, list. What an Allocate answers is the vendor's."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
from hami_kit.kubelet import deviceplugin_v1beta1_pb2 as dp
from hami_kit.kubelet.deviceplugin_v1beta1_pb2_grpc import (
    DevicePluginServicer,
    RegistrationStub,
    add_DevicePluginServicer_to_server,
)

Answer = Callable[[list[str]], Awaitable[dp.ContainerAllocateResponse]]


class PluginRefusedError(Exception):
    """The plugin refuses an Allocate; the kubelet fails the pod with this text."""


class Servicer(DevicePluginServicer):
    """The plugin's side of the protocol, without preferences."""

    def __init__(self, ids: Sequence[str], answer: Answer) -> None:
        self._ids = ids
        self._answer = answer
        self._one_at_a_time = asyncio.Lock()
        self.closed = asyncio.Event()

    async def GetDevicePluginOptions(self, request: dp.Empty, context: Any) -> dp.DevicePluginOptions:  # noqa: N802
        """Say that nothing is preferred."""
        return dp.DevicePluginOptions()

    async def ListAndWatch(self, request: dp.Empty, context: Any) -> AsyncIterator[dp.ListAndWatchResponse]:  # noqa: N802
        """Tell the list once; nothing changes."""
        yield dp.ListAndWatchResponse(devices=[dp.Device(ID=i, health="Healthy") for i in self._ids])
        await self.closed.wait()

    async def GetPreferredAllocation(  # noqa: N802
        self, request: dp.PreferredAllocationRequest, context: Any
    ) -> dp.PreferredAllocationResponse:
        """Refuse, as these plugins do."""
        return await context.abort(grpc.StatusCode.UNIMPLEMENTED, "not offered")  # type: ignore[no-any-return]

    async def PreStartContainer(  # noqa: N802
        self, request: dp.PreStartContainerRequest, context: Any
    ) -> dp.PreStartContainerResponse:
        """Do nothing; the option is not set."""
        return dp.PreStartContainerResponse()

    async def Allocate(self, request: dp.AllocateRequest, context: Any) -> dp.AllocateResponse:  # noqa: N802
        """Answer one container."""
        async with self._one_at_a_time:
            try:
                answers = [await self._answer(list(ask.devices_ids)) for ask in request.container_requests]
            except PluginRefusedError as e:
                await context.abort(grpc.StatusCode.UNKNOWN, str(e))
        return dp.AllocateResponse(container_responses=answers)


@asynccontextmanager
async def serving(
    folder: Path, *, resource: str, socket: str, ids: Sequence[str], answer: Answer
) -> AsyncIterator[None]:
    """Serve and register a plugin in a kubelet's ``device-plugins`` folder for the length of a block."""
    servicer = Servicer(ids, answer)
    server = grpc.aio.server()
    add_DevicePluginServicer_to_server(servicer, server)
    path = folder / socket
    path.unlink(missing_ok=True)
    server.add_insecure_port(f"unix:{path}")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"unix:{folder / 'kubelet.sock'}") as channel:
            request = dp.RegisterRequest(version="v1beta1", endpoint=socket, resource_name=resource)
            await RegistrationStub(channel).Register(request)
        yield
    finally:
        servicer.closed.set()
        await server.stop(grace=None)
        path.unlink(missing_ok=True)
