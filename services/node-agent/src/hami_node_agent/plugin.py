"""The kubelet's device plugin over gRPC: one socket per count resource, registered again when the kubelet restarts.

One rule: this file translates and registers; who gets what is decided at the desk.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
from hami_kit.cancelling import first_of
from hami_kit.kubelet import deviceplugin_v1beta1_pb2 as pb
from hami_kit.kubelet.deviceplugin_v1beta1_pb2_grpc import (
    DevicePluginServicer,
    RegistrationStub,
    add_DevicePluginServicer_to_server,
)

from hami_node_agent.desk import Desk, Refusal
from hami_node_agent.edits import Edits
from hami_node_agent.folder_watch import FolderNews, watching
from hami_node_agent.identity import Offer
from hami_node_agent.inventory import Inventory, replica_ids
from hami_node_agent.kubelet import LOCAL

log = logging.getLogger(__name__)

VERSION = "v1beta1"
KUBELET_SOCKET = "kubelet.sock"
LOOK_EVERY = 0.2
"""Seconds between two looks at the sockets where the kernel does not tell of them: registered again within 0.5 s, the
node keeps its allocatable devices."""

LOOK_ANYWAY = 5.0
"""Seconds between two looks where it does."""

REGISTER_TIMEOUT = 5.0

REFUSED_PAUSE = 2.0
"""Seconds between two attempts at most, while the kubelet is down and its socket still there."""

UNWATCHED = 1.0
"""Seconds for which nobody may watch our list until the kubelet is taken to have dropped us: it never dials again."""


class Plugin(DevicePluginServicer):
    """Answers the kubelet about one resource."""

    def __init__(self, desk: Desk, inventory: Inventory) -> None:
        self._desk = desk
        self._inventory = inventory
        self.watchers = 0
        """How many follow our list; the kubelet follows it as long as it believes in us."""
        self.unwatched = asyncio.Event()
        """Set while nobody does."""

    async def GetDevicePluginOptions(self, request: pb.Empty, context: Any) -> pb.DevicePluginOptions:  # noqa: N802
        """Tell the kubelet to ask for our preference: only there can we tell whose call it is."""
        return options()

    async def ListAndWatch(self, request: pb.Empty, context: Any) -> AsyncIterator[pb.ListAndWatchResponse]:  # noqa: N802
        """Send the whole list at once and again after each change."""
        self.watchers += 1
        self.unwatched.clear()
        try:
            while True:
                revision = self._inventory.revision
                yield self._list()
                await self._inventory.wait_changed(revision)
        finally:
            self.watchers -= 1
            if not self.watchers:
                self.unwatched.set()

    async def GetPreferredAllocation(  # noqa: N802
        self, request: pb.PreferredAllocationRequest, context: Any
    ) -> pb.PreferredAllocationResponse:
        """Answer the IDs of the allocated cards."""
        answers = []
        for asked in request.container_requests:
            offer = Offer(
                available=tuple(asked.available_deviceIDs),
                must_include=tuple(asked.must_include_deviceIDs),
                size=asked.allocation_size,
            )
            ids = await self._or_abort(self._desk.prefer(offer), context)
            answers.append(pb.ContainerPreferredAllocationResponse(deviceIDs=ids))
        return pb.PreferredAllocationResponse(container_responses=answers)

    async def Allocate(self, request: pb.AllocateRequest, context: Any) -> pb.AllocateResponse:  # noqa: N802
        """Answer what the container gets."""
        answers = [
            _answer(await self._or_abort(self._desk.allocate(list(asked.devices_ids)), context))
            for asked in request.container_requests
        ]
        return pb.AllocateResponse(container_responses=answers)

    async def PreStartContainer(  # noqa: N802
        self, request: pb.PreStartContainerRequest, context: Any
    ) -> pb.PreStartContainerResponse:
        """Have nothing to prepare: everything was, in Allocate."""
        return pb.PreStartContainerResponse()

    async def _or_abort(self, work: Any, context: Any) -> Any:
        try:
            return await work
        except Refusal as refusal:
            self._desk.refuse(refusal)
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, str(refusal))

    def _list(self) -> pb.ListAndWatchResponse:
        tells_numa = self._desk.resource.tells_numa()
        devices = [
            pb.Device(
                ID=device_id,
                health="Healthy" if card.healthy else "Unhealthy",
                topology=pb.TopologyInfo(nodes=[pb.NUMANode(ID=card.numa)]) if tells_numa else None,
            )
            for card in self._inventory.of_vendor(self._desk.resource.vendor)
            for device_id in replica_ids(card)
        ]
        return pb.ListAndWatchResponse(devices=devices)


def options() -> pb.DevicePluginOptions:
    """Return the same options wherever the kubelet asks for them."""
    return pb.DevicePluginOptions(pre_start_required=False, get_preferred_allocation_available=True)


def _answer(edits: Edits) -> pb.ContainerAllocateResponse:
    return pb.ContainerAllocateResponse(
        envs=edits.env,
        mounts=[
            pb.Mount(container_path=m.container_path, host_path=m.host_path, read_only=m.read_only)
            for m in edits.mounts
        ],
        devices=[
            pb.DeviceSpec(container_path=d.container_path, host_path=d.host_path, permissions="rw")
            for d in edits.devices
        ],
        annotations=edits.annotations,
        cdi_devices=[pb.CDIDevice(name=name) for name in edits.cdi],
    )


class Registered:
    """Keeps one plugin served and registered, across restarts of the kubelet, each of which ``on_kubelet`` hears of."""

    def __init__(
        self,
        plugin: Plugin,
        *,
        resource: str,
        folder: Path,
        on_kubelet: Callable[[], None],
        jitter: Callable[[float], float],
    ) -> None:
        self._plugin = plugin
        self._resource = resource
        self._folder = folder
        self._socket = folder / f"hami-{resource.replace('/', '-')}.sock"
        self._on_kubelet = on_kubelet
        self._jitter = jitter
        self.is_registered = False

    @property
    def is_followed(self) -> bool:
        """Say whether the kubelet takes the resource from us: it follows the list of whoever registered last."""
        return self._plugin.watchers > 0

    async def run(self) -> None:
        """Serve, register, and begin anew whenever the kubelet has."""
        refused = 0
        while True:
            kubelet = await self._wait_kubelet()
            self._on_kubelet()  # before it is told of us, it admits no pod that wants the resource
            async with self._serving():
                refused += 1
                if await self._register():
                    self.is_registered, refused = True, 0
                    log.info("registered %s with the kubelet", self._resource)
                    log.info("%s: registering %s again", await self._forgotten(kubelet), self._resource)
                self.is_registered = False
            await asyncio.sleep(
                self._jitter(LOOK_EVERY / 2) if not refused else min(LOOK_EVERY * refused, REFUSED_PAUSE)
            )

    @asynccontextmanager
    async def _serving(self) -> AsyncIterator[None]:
        """Serve before registering: the kubelet calls back while it is being told."""
        self._socket.unlink(missing_ok=True)
        server = grpc.aio.server()
        add_DevicePluginServicer_to_server(self._plugin, server)
        server.add_insecure_port(f"unix://{self._socket}")
        await server.start()
        try:
            yield
        finally:
            await server.stop(grace=None)
            self._socket.unlink(missing_ok=True)

    async def _register(self) -> bool:
        request = pb.RegisterRequest(
            version=VERSION, endpoint=self._socket.name, resource_name=self._resource, options=options()
        )
        async with grpc.aio.insecure_channel(f"unix://{self._folder / KUBELET_SOCKET}", options=LOCAL) as channel:
            try:
                await RegistrationStub(channel).Register(request, timeout=REGISTER_TIMEOUT)
            except grpc.aio.AioRpcError as e:
                log.warning("the kubelet does not register %s (%s: %s)", self._resource, e.code().name, e.details())
                return False
        return True

    async def _wait_kubelet(self) -> tuple[int, int]:
        if self._kubelet() is None:
            log.info("waiting for the kubelet: %s is not there", self._folder / KUBELET_SOCKET)
        while (kubelet := self._kubelet()) is None:  # noqa: ASYNC110  a file tells nobody that it is there
            await asyncio.sleep(LOOK_EVERY)
        return kubelet

    async def _forgotten(self, kubelet: tuple[int, int]) -> str:
        """Wait until the kubelet does not know us any more; say why."""
        watched = asyncio.get_running_loop().time()
        with watching(self._folder) as news:
            while self._socket.exists() and self._kubelet() in {kubelet, None}:
                if self._plugin.watchers:
                    watched = asyncio.get_running_loop().time()
                    await self._changed(news)
                elif asyncio.get_running_loop().time() - watched > UNWATCHED:
                    return "the kubelet has dropped us"
                else:
                    await asyncio.sleep(LOOK_EVERY)
        return "the kubelet has restarted, or removed our socket"

    async def _changed(self, news: FolderNews) -> None:
        """Wait until a socket came or went, nobody follows our list any more, or it is time to look anyway."""
        await first_of(news.wait(LOOK_ANYWAY if news.is_told else LOOK_EVERY), self._plugin.unwatched.wait())

    def _kubelet(self) -> tuple[int, int] | None:
        """Return what tells one start of the kubelet from the next: the inode alone is used again."""
        try:
            found = (self._folder / KUBELET_SOCKET).stat()
        except FileNotFoundError:
            return None
        return found.st_ino, found.st_ctime_ns
