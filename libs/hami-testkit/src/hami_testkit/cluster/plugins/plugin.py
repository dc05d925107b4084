"""A device plugin that serves: socket, registration, list, and registration anew when the kubelet has restarted.

One rule: what an Allocate answers is the owner's. Tests use it as it is, vendors' stand-ins with their own answers.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import grpc
from hami_kit.kubelet import deviceplugin_v1beta1_pb2 as dp
from hami_kit.kubelet.deviceplugin_v1beta1_pb2_grpc import (
    DevicePluginServicer,
    RegistrationStub,
    add_DevicePluginServicer_to_server,
)

from hami_testkit.cluster.status import ApiError

VERSION = "v1beta1"
LOOK_EVERY = 0.05
"""Seconds between two looks at the kubelet's socket."""

Allocate = Callable[[list[str]], Awaitable[dp.ContainerAllocateResponse | None]]
"""Answers the IDs of one container; None = an answer without a response in it."""
Prefer = Callable[[dp.ContainerPreferredAllocationRequest], Awaitable[Iterable[str]]]
Prepare = Callable[[list[str]], Awaitable[None]]


class PluginRefusedError(Exception):
    """The plugin refuses a call; the kubelet prints this text. A Go plugin's plain error has the code UNKNOWN."""

    def __init__(self, text: str, code: grpc.StatusCode = grpc.StatusCode.UNKNOWN) -> None:
        super().__init__(text)
        self.code = code


class DevicePlugin(DevicePluginServicer):
    """One resource of one node. Without ``prefer`` and ``prepare`` the kubelet is told not to ask for them."""

    def __init__(
        self,
        resource: str,
        ids: Iterable[str],
        *,
        socket: str,
        allocate: Allocate,
        prefer: Prefer | None = None,
        prepare: Prepare | None = None,
    ) -> None:
        self.resource = resource
        self._health = dict.fromkeys(ids, True)
        self._socket = socket
        self._allocate = allocate
        self._prefer = prefer
        self._prepare = prepare
        self._changed = asyncio.Event()
        self._serves = False

    # What it offers

    def offer(self, ids: Iterable[str]) -> None:
        """Offer these IDs, healthy, instead of the ones so far."""
        self._health = dict.fromkeys(ids, True)
        self._tell()

    def mark(self, *, healthy: bool, ids: Iterable[str]) -> None:
        """Change the health of some IDs."""
        self._health |= dict.fromkeys(ids, healthy)
        self._tell()

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    # Serving

    @asynccontextmanager
    async def running(self, folder: Path) -> AsyncIterator["DevicePlugin"]:
        """Serve in a kubelet's ``device-plugins`` folder for the length of a block; leaving it, the plugin dies."""
        async with asyncio.TaskGroup() as tasks:
            registered = asyncio.Event()
            work = tasks.create_task(self._keep_registered(folder, registered), name=f"plugin of {self.resource}")
            await registered.wait()
            try:
                yield self
            finally:
                work.cancel()

    async def _keep_registered(self, folder: Path, registered: asyncio.Event) -> None:
        while True:
            kubelet = await _wait_kubelet(folder)
            async with self._serving(folder / self._socket):
                if not await self._register(folder):
                    await asyncio.sleep(LOOK_EVERY)
                    continue
                registered.set()
                while _identity(folder) == kubelet and (folder / self._socket).exists():
                    await asyncio.sleep(LOOK_EVERY)

    @asynccontextmanager
    async def _serving(self, path: Path) -> AsyncIterator[None]:
        server = grpc.aio.server()
        add_DevicePluginServicer_to_server(self, server)
        path.unlink(missing_ok=True)
        server.add_insecure_port(f"unix://{path.absolute()}")
        await server.start()
        self._serves = True
        try:
            yield
        finally:
            self._serves = False
            self._tell()
            await server.stop(None)
            path.unlink(missing_ok=True)

    async def _register(self, folder: Path) -> bool:
        options = await self.GetDevicePluginOptions(dp.Empty(), None)
        request = dp.RegisterRequest(
            version=VERSION, endpoint=self._socket, resource_name=self.resource, options=options
        )
        where = f"unix://{(folder / 'kubelet.sock').absolute()}"
        async with grpc.aio.insecure_channel(where, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
            try:
                await RegistrationStub(channel).Register(request)
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.UNAVAILABLE:
                    raise PluginRefusedError(f"the kubelet refused {self.resource}: {error.details()}") from error
                return False
        return True

    # The kubelet's calls

    async def GetDevicePluginOptions(self, request: dp.Empty, context: Any) -> dp.DevicePluginOptions:  # noqa: N802
        """Say what to ask for."""
        return dp.DevicePluginOptions(
            get_preferred_allocation_available=self._prefer is not None, pre_start_required=self._prepare is not None
        )

    async def ListAndWatch(self, request: dp.Empty, context: Any) -> AsyncIterator[dp.ListAndWatchResponse]:  # noqa: N802
        """Tell the list, and again after each change."""
        while self._serves:
            changed = self._changed
            yield dp.ListAndWatchResponse(
                devices=[dp.Device(ID=i, health="Healthy" if ok else "Unhealthy") for i, ok in self._health.items()]
            )
            await changed.wait()

    async def GetPreferredAllocation(  # noqa: N802
        self, request: dp.PreferredAllocationRequest, context: Any
    ) -> dp.PreferredAllocationResponse:
        """Ask the owner."""
        answer = dp.PreferredAllocationResponse()
        for asked in request.container_requests:
            if self._prefer is None:
                await context.abort(grpc.StatusCode.UNKNOWN, "not supported")
            else:
                ids = await _or_abort(self._prefer(asked), context)
                answer.container_responses.append(dp.ContainerPreferredAllocationResponse(deviceIDs=ids))
        return answer

    async def Allocate(self, request: dp.AllocateRequest, context: Any) -> dp.AllocateResponse:  # noqa: N802
        """Ask the owner."""
        answers = [await _or_abort(self._allocate(list(a.devices_ids)), context) for a in request.container_requests]
        return dp.AllocateResponse(container_responses=[a for a in answers if a is not None])

    async def PreStartContainer(  # noqa: N802
        self, request: dp.PreStartContainerRequest, context: Any
    ) -> dp.PreStartContainerResponse:
        """Let the owner prepare."""
        if self._prepare is not None:
            await _or_abort(self._prepare(list(request.devices_ids)), context)
        return dp.PreStartContainerResponse()


async def _or_abort(answer: Awaitable[Any], context: Any) -> Any:
    try:
        return await answer
    except PluginRefusedError as refusal:
        await context.abort(refusal.code, str(refusal))


def _identity(folder: Path) -> tuple[int, int] | None:
    """Return what tells one kubelet's socket from the next one's: inode numbers alone are used again."""
    try:
        found = (folder / "kubelet.sock").stat()
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_ctime_ns


async def _wait_kubelet(folder: Path) -> tuple[int, int]:
    while True:
        if found := _identity(folder):
            return found
        await asyncio.sleep(LOOK_EVERY)


def one_at_a_time(allocate: Allocate) -> Allocate:
    """Let containers wait for each other, and be refused with what the API server says where it does not answer."""
    turn = asyncio.Lock()

    async def in_turn(ids: list[str]) -> dp.ContainerAllocateResponse | None:
        async with turn:
            try:
                return await allocate(ids)
            except (ApiError, aiohttp.ClientError) as error:
                raise PluginRefusedError(str(error)) from error

    return in_turn


def files(paths: Iterable[str]) -> dp.ContainerAllocateResponse:
    """Give device files, under the same names."""
    response = dp.ContainerAllocateResponse()
    for path in paths:
        response.devices.append(dp.DeviceSpec(host_path=path, container_path=path, permissions="rw"))
    return response


async def nothing(ids: list[str]) -> dp.ContainerAllocateResponse:
    """Give nothing: the resource is there to be counted."""
    return dp.ContainerAllocateResponse()
