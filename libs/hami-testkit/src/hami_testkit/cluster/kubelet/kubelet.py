"""One simulated node: admits its pods one after another, runs nothing, and reports as if it did.

One rule: admission is serial. While a plugin's Allocate hangs, no other pod of the node starts or stops; that is how
the real kubelet behaves, and what the node-agent must live with.

Below its root stand ``device-plugins/kubelet.sock``, ``pod-resources/kubelet.sock``, ``pods/<uid>`` as long as a pod
has containers, and ``containers/<uid>_<container>.json`` with what each container was given. How long containers run
says the pod: see ``pod.script_of``.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from urllib.parse import quote

import grpc
from hami_kit.kubelet.deviceplugin_v1beta1_pb2_grpc import add_RegistrationServicer_to_server
from hami_kit.kubelet.podresources_v1_pb2_grpc import add_PodResourcesListerServicer_to_server

from hami_testkit.cluster.client import ApiClient, Informer
from hami_testkit.cluster.kubelet import checkpoint
from hami_testkit.cluster.kubelet.books import PodBooks
from hami_testkit.cluster.kubelet.desk import Desk
from hami_testkit.cluster.kubelet.devices import DeviceManager
from hami_testkit.cluster.kubelet.given import Gifts, Given
from hami_testkit.cluster.kubelet.node import NodeReporter
from hami_testkit.cluster.kubelet.options import Options
from hami_testkit.cluster.kubelet.pod_resources import PodResources, TokenBucket
from hami_testkit.cluster.kubelet.registration import Registration
from hami_testkit.cluster.kubelet.worker import PodRun, PodWorker, Surroundings
from hami_testkit.cluster.status import Json

SOCKET = "kubelet.sock"
LONGEST_SOCKET = 107

Change = tuple[Json | None, Json | None]
"""A pod before and after; None where it was not, or is not any more."""


class Kubelet:
    """The kubelet of ``node``. Its ``root`` must be short: the path of a socket ends at 107 bytes."""

    def __init__(self, api: ApiClient, node: str, root: Path, *, options: Options | None = None) -> None:
        self.node = node
        self.root = root
        self.plugins = root / "device-plugins"
        self.pod_resources = root / "pod-resources" / SOCKET
        self._api = api
        self._options = options or Options()
        self._gifts = Gifts(root / "containers")
        self._runtime: dict[str, PodRun] = {}
        self._tasks: asyncio.TaskGroup | None = None
        self._process: asyncio.Task[None] | None = None
        self._restarts = 0
        self._workers: dict[str, PodWorker] = {}

    # Starting and stopping

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Kubelet"]:
        """Run the kubelet for the length of a block; what breaks inside it ends the block."""
        async with asyncio.TaskGroup() as self._tasks:
            await self.start()
            try:
                yield self
            finally:
                await self.stop()

    async def start(self) -> None:
        """Start the process again after ``stop``: empty the plugins' folder, open the sockets, follow the pods."""
        if self._tasks is None:
            raise RuntimeError("a kubelet starts inside `async with kubelet.running()`")
        up = asyncio.Event()
        self._process = self._tasks.create_task(self._run(up), name=f"kubelet {self.node}")
        await up.wait()

    async def stop(self) -> None:
        """End the process; containers run on, pods stay as they are in the API, no socket of ours is left."""
        if self._process is not None:
            self._process.cancel()
            await asyncio.wait({self._process})
            self._process = None

    async def restart(self, *, lose_checkpoint: bool = False) -> None:
        """Stop and start: every socket in the plugins' folder goes, and plugins must register anew."""
        await self.stop()
        if lose_checkpoint:
            (self.plugins / checkpoint.NAME).unlink(missing_ok=True)
        self._restarts += 1
        await self.start()

    async def _run(self, up: asyncio.Event) -> None:
        self._prepare_folders()
        loop = asyncio.get_running_loop()
        books = PodBooks(linger=self._options.linger, now=loop.time)
        manager = DeviceManager(self.plugins, active=books.active, seed=self._options.seed)
        changed = asyncio.Event()
        async with AsyncExitStack() as stack:
            resources = PodResources(
                manager, listed=books.listed, known=books.known,
                bucket=TokenBucket(rate=self._options.rate, burst=self._options.burst, now=loop.time),
            )  # fmt: skip
            await stack.enter_async_context(
                _serving(self.pod_resources, lambda s: add_PodResourcesListerServicer_to_server(resources, s))
            )
            tasks = await stack.enter_async_context(asyncio.TaskGroup())
            registration = Registration(
                self.plugins, manager, tasks=tasks, changed=changed.set, plugin_grace=self._options.plugin_grace
            )
            await stack.enter_async_context(
                _serving(self.plugins / SOCKET, lambda s: add_RegistrationServicer_to_server(registration, s))
            )
            up.set()
            if self._restarts:
                await asyncio.sleep(self._options.settle)
            changed.set()
            tasks.create_task(self._report_node(manager, changed), name="node status")
            await self._main_loop(tasks, manager, books)

    def _prepare_folders(self) -> None:
        for folder in (self.plugins, self.pod_resources.parent, self.root / "pods"):
            folder.mkdir(parents=True, exist_ok=True)
        for socket in (self.plugins / SOCKET, self.pod_resources):
            if len(bytes(socket.absolute())) > LONGEST_SOCKET:
                why = f"is longer than {LONGEST_SOCKET} bytes, as long as a socket's may be: choose a shorter root"
                raise ValueError(f"the path {socket.absolute()} {why}")
        for file in self.plugins.iterdir():
            if file.name != checkpoint.NAME and not file.is_dir():
                file.unlink()

    # What others see

    def given(self, namespace: str, pod: str, container: str) -> Given | None:
        """Return what a container was given by plugins; None before it has started."""
        return self._gifts.find(namespace, pod, container)

    def container_env(self, namespace: str, pod: str, container: str) -> dict[str, str]:
        """Return a container's environment, plugins' and the pod's own (which wins); empty before it has started."""
        gift = self.given(namespace, pod, container)
        return gift.env if gift else {}

    def has_containers(self, uid: str) -> bool:
        """Say whether containers of this pod still run here, even if the API server has forgotten it."""
        return uid in self._runtime

    def crash(self, namespace: str, pod: str, container: str) -> None:
        """Let a running container end with 137; it is started again as the pod's restartPolicy says."""
        for worker in self._workers.values():
            meta = worker.run.pod["metadata"]
            if (meta["namespace"], meta["name"]) == (namespace, pod):
                worker.kill(container)

    # The main loop

    async def _main_loop(self, tasks: asyncio.TaskGroup, manager: DeviceManager, books: PodBooks) -> None:
        letters: asyncio.Queue[Change] = asyncio.Queue()
        path = f"/api/v1/pods?fieldSelector={quote(f'spec.nodeName={self.node}')}"
        informer = Informer(self._api, path, lambda old, new: letters.put_nowait((old, new)))
        tasks.create_task(informer.run(), name="pods of the node")
        around = Surroundings(
            api=self._api, manager=manager, gifts=self._gifts, options=self._options, pods_folder=self.root / "pods"
        )
        desk = Desk(tasks, books, around, self._runtime, self._workers)
        tasks.create_task(desk.take_leave_of_lost(informer), name="pods lost while away")
        while True:
            await desk.handle(*await letters.get())

    async def _report_node(self, manager: DeviceManager, changed: asyncio.Event) -> None:
        reporter = NodeReporter(self._api, self.node)
        while True:
            await changed.wait()
            changed.clear()
            await reporter.report(manager.counts())


@asynccontextmanager
async def _serving(socket: Path, add: Callable[[grpc.aio.Server], None]) -> AsyncIterator[None]:
    server = grpc.aio.server()
    add(server)
    socket.unlink(missing_ok=True)
    server.add_insecure_port(f"unix://{socket.absolute()}")
    await server.start()
    try:
        yield
    finally:
        await server.stop(None)
        socket.unlink(missing_ok=True)
