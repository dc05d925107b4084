"""A registered device plugin, called over its own socket."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping
from pathlib import Path
from typing import TypeVar

import grpc
from hami_kit.kubelet import deviceplugin_v1beta1_pb2 as dp
from hami_kit.kubelet.deviceplugin_v1beta1_pb2_grpc import DevicePluginStub

from hami_testkit.cluster.kubelet.devices import HEALTHY, NO_NUMA, AllocateFailed, Device

Answer = TypeVar("Answer")
CHANNEL = (
    ("grpc.use_local_subchannel_pool", 1),
    # Go's servers refuse the socket's path, which gRPC would name here.
    ("grpc.default_authority", "localhost"),
    ("grpc.max_receive_message_length", 16 * 1024 * 1024),
)


def in_go_words(error: grpc.aio.AioRpcError) -> str:
    """Return the error as Go prints it, which is how users find it in a pod's message."""
    code = "".join(word.capitalize() for word in error.code().name.split("_"))
    return f"rpc error: code = {'Canceled' if code == 'Cancelled' else code} desc = {error.details()}"


class PluginEndpoint:
    """The kubelet's side of one plugin."""

    def __init__(self, socket: Path, resource: str) -> None:
        self.resource = resource
        self.prefers = False
        self.prepares = False
        """It wants PreStartContainer before each start of a container."""
        self._channel = grpc.aio.insecure_channel(f"unix://{socket.absolute()}", options=CHANNEL)
        self._stub = DevicePluginStub(self._channel)

    async def greet(self) -> None:
        """Ask for the plugin's options; the kubelet does so while the plugin still waits in Register."""
        options = await self._stub.GetDevicePluginOptions(dp.Empty())
        self.prefers = options.get_preferred_allocation_available
        self.prepares = options.pre_start_required

    async def watch(self, changed: Callable[[Mapping[str, Device]], None]) -> str:
        """Tell every list that the plugin sends until it is gone; return why it went."""
        try:
            async for answer in self._stub.ListAndWatch(dp.Empty()):
                changed({d.ID: Device(d.health == HEALTHY, _numa(d)) for d in answer.devices})
        except grpc.aio.AioRpcError as error:
            return in_go_words(error)
        return "it ended its list"

    async def close(self) -> None:
        """Hang up."""
        await self._channel.close(None)

    async def preferred(self, available: Collection[str], must: Collection[str], size: int) -> list[str]:
        """Ask which IDs the plugin would rather give."""
        asked = dp.ContainerPreferredAllocationRequest(
            available_deviceIDs=available, must_include_deviceIDs=must, allocation_size=size
        )
        request = dp.PreferredAllocationRequest(container_requests=[asked])
        try:
            answer = await self._stub.GetPreferredAllocation(request)
        except grpc.aio.AioRpcError as error:
            why = f"device plugin GetPreferredAllocation rpc failed with err: {in_go_words(error)}"
            raise AllocateFailed(why) from error
        return list(answer.container_responses[0].deviceIDs) if answer.container_responses else []

    async def allocate(self, ids: Collection[str]) -> list[dp.ContainerAllocateResponse]:
        """Ask for the IDs; there is no deadline, as in the real kubelet."""
        request = dp.AllocateRequest(container_requests=[dp.ContainerAllocateRequest(devices_ids=ids)])
        try:
            return list((await self._stub.Allocate(request)).container_responses)
        except grpc.aio.AioRpcError as error:
            raise AllocateFailed(in_go_words(error)) from error

    async def prepare(self, ids: Collection[str], *, deadline: float) -> str:
        """Let the plugin prepare the start of a container; return why it could not, empty for success."""
        call: Awaitable[object] = self._stub.PreStartContainer(
            dp.PreStartContainerRequest(devices_ids=ids), timeout=deadline
        )
        try:
            await call
        except grpc.aio.AioRpcError as error:
            return in_go_words(error)
        return ""

    def __repr__(self) -> str:
        return f"<plugin of {self.resource}>"


def _numa(device: dp.Device) -> int:
    return int(device.topology.nodes[0].ID) if device.topology.nodes else NO_NUMA


async def greeted(socket: Path, resource: str, *, timeout: float = 10.0) -> PluginEndpoint:
    """Return the plugin behind a socket once it has told its options; raise gRPC's error, or TimeoutError."""
    endpoint = PluginEndpoint(socket, resource)
    try:
        async with asyncio.timeout(timeout):
            await endpoint.greet()
    except BaseException:
        await endpoint.close()
        raise
    return endpoint
