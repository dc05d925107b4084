"""A node with a kubelet on a stand-in API server, pods bound to it by hand, and device plugins that a test scripts."""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
from hami_kit.kubelet import deviceplugin_v1beta1_pb2 as dp
from hami_kit.kubelet import podresources_v1_pb2 as pr
from hami_kit.kubelet.podresources_v1_pb2_grpc import PodResourcesListerStub
from hami_testkit.cluster import Standin
from hami_testkit.cluster.client import ApiClient
from hami_testkit.cluster.kubelet import Kubelet, Options
from hami_testkit.cluster.plugins.plugin import DevicePlugin
from hami_testkit.cluster.status import ApiError

Json = dict[str, Any]
NODE = "n1"
GPU = "example.com/gpu"
QUICK = Options(linger=0.4, settle=0.5, prestart_pauses=(0.05,), restart_pause=0.05)
DEADLINE = 20.0


async def until(is_so: Callable[[], Awaitable[bool] | bool]) -> None:
    """Wait for a condition."""
    async with asyncio.timeout(DEADLINE):
        while True:
            found = is_so()
            if await found if isinstance(found, Awaitable) else found:
                return
            await asyncio.sleep(0.01)


def a_container(name: str = "main", *, limits: dict[str, int] | None = None, **fields: Any) -> Json:
    wanted = {resource: str(count) for resource, count in (limits or {}).items()}
    return {"name": name, "image": "app", "resources": {"limits": wanted} if wanted else {}, **fields}


def a_pod(
    name: str,
    *containers: Json,
    init: Sequence[Json] = (),
    annotations: dict[str, str] | None = None,
    restart: str = "Always",
) -> Json:
    meta: Json = {"name": name, "namespace": "default", "annotations": annotations or {}}
    spec = {"containers": list(containers), "initContainers": list(init), "restartPolicy": restart}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec}


def a_gpu_pod(name: str, count: int = 1, **fields: Any) -> Json:
    return a_pod(name, a_container(limits={GPU: count}), **fields)


def path_of(name: str) -> str:
    return f"/api/v1/namespaces/default/pods/{name}"


class ScriptedPlugin:
    """A device plugin that writes down every call, and answers what the test says."""

    def __init__(
        self, ids: Iterable[str], *, resource: str = GPU, prefers: bool = False, prepares: bool = False
    ) -> None:
        self.calls: list[tuple[str, tuple[str, ...]]] = []
        self.sizes: list[int] = []
        self.on_allocate: Callable[[list[str]], Awaitable[dp.ContainerAllocateResponse | None]] = self.answer
        self.on_prefer: Callable[[dp.ContainerPreferredAllocationRequest], Awaitable[Iterable[str]]] = self.first
        self.on_prepare: Callable[[list[str]], Awaitable[None]] = self.nothing
        self.device_plugin = DevicePlugin(
            resource, ids, socket=f"{resource.partition('/')[2]}.sock", allocate=self._allocate,
            prefer=self._prefer if prefers else None, prepare=self._prepare if prepares else None,
        )  # fmt: skip

    @property
    def allocated(self) -> list[tuple[str, ...]]:
        return [ids for call, ids in self.calls if call == "Allocate"]

    @property
    def names(self) -> list[str]:
        return [call for call, _ in self.calls]

    async def answer(self, ids: list[str]) -> dp.ContainerAllocateResponse:
        return dp.ContainerAllocateResponse(envs={"GPU_IDS": ",".join(sorted(ids))})

    async def first(self, asked: dp.ContainerPreferredAllocationRequest) -> Iterable[str]:
        left = sorted(set(asked.available_deviceIDs) - set(asked.must_include_deviceIDs))
        return [*asked.must_include_deviceIDs, *left][: asked.allocation_size]

    async def nothing(self, ids: list[str]) -> None:
        return

    async def _allocate(self, ids: list[str]) -> dp.ContainerAllocateResponse | None:
        self.calls.append(("Allocate", tuple(sorted(ids))))
        return await self.on_allocate(ids)

    async def _prefer(self, asked: dp.ContainerPreferredAllocationRequest) -> Iterable[str]:
        self.calls.append(("GetPreferredAllocation", tuple(sorted(asked.must_include_deviceIDs))))
        self.sizes.append(asked.allocation_size)
        return await self.on_prefer(asked)

    async def _prepare(self, ids: list[str]) -> None:
        self.calls.append(("PreStartContainer", tuple(sorted(ids))))
        await self.on_prepare(ids)


class Gate:
    """Makes a plugin's Allocate hang until the test opens it; ``entered`` tells that it was called."""

    def __init__(self, plugin: ScriptedPlugin) -> None:
        self.entered = asyncio.Event()
        self.opened = asyncio.Event()
        self._plugin = plugin
        plugin.on_allocate = self._wait

    async def _wait(self, ids: list[str]) -> dp.ContainerAllocateResponse:
        self.entered.set()
        await self.opened.wait()
        return await self._plugin.answer(ids)


class OneNode:
    """The node, as a test sees it."""

    def __init__(self, cluster: Standin, api: ApiClient, root: Path, options: Options) -> None:
        self.cluster = cluster
        self.api = api
        self.kubelet = Kubelet(api, NODE, root, options=options)

    @asynccontextmanager
    async def plugin(self, plugin: ScriptedPlugin, *, offers: int | None = None) -> AsyncIterator[ScriptedPlugin]:
        """Serve a plugin, and wait until the node offers what it has."""
        async with plugin.device_plugin.running(self.kubelet.plugins):
            if offers is not None:
                await self.wait_offer(plugin.device_plugin.resource, offers)
            yield plugin

    async def apply(self, *pods: Json) -> list[Json]:
        """Create pods and bind them here, in order."""
        made = [await self.api.create("/api/v1/namespaces/default/pods", pod) for pod in pods]
        for pod in made:
            await self.bind(pod)
        return made

    async def bind(self, pod: Json, annotations: dict[str, str] | None = None) -> None:
        meta = {"name": pod["metadata"]["name"], "uid": pod["metadata"]["uid"], "annotations": annotations or {}}
        target = {"kind": "Node", "name": NODE}
        body = {"apiVersion": "v1", "kind": "Binding", "metadata": meta, "target": target}
        await self.api.create(f"{path_of(pod['metadata']['name'])}/binding", body)

    async def status(self, name: str) -> Json:
        status: Json = (await self.api.get(path_of(name)))["status"]
        return status

    async def wait_phase(self, name: str, phase: str) -> Json:
        """Wait until a pod is in a phase; return its status."""

        status: Json = {}

        async def is_so() -> bool:
            nonlocal status
            status = await self.status(name)
            if status.get("phase") in {"Failed", "Succeeded"} and status["phase"] != phase:
                raise AssertionError(f"pod {name} is {status['phase']}, not {phase}: {status.get('message')}")
            return bool(status.get("phase") == phase)

        await until(is_so)
        return status

    async def delete(self, name: str, *, grace: int | None = None) -> None:
        await self.api.delete(path_of(name), {"gracePeriodSeconds": grace} if grace is not None else None)

    async def wait_gone(self, name: str) -> None:
        async def is_so() -> bool:
            try:
                await self.api.get(path_of(name))
            except ApiError as refusal:
                return refusal.code == 404
            return False

        await until(is_so)

    async def counts(self, resource: str = GPU) -> tuple[str | None, str | None]:
        """Return what the node says of a resource: capacity and allocatable."""
        status = (await self.api.get(f"/api/v1/nodes/{NODE}")).get("status") or {}
        return tuple((status.get(field) or {}).get(resource) for field in ("capacity", "allocatable"))  # type: ignore[return-value]

    async def wait_offer(self, resource: str, count: int, *, capacity: int | None = None) -> None:
        """Wait until the node offers so many of a resource."""

        async def is_so() -> bool:
            found = await self.counts(resource)
            return found[1] == str(count) and capacity in (None, int(found[0] or -1))

        await until(is_so)

    def env(self, pod: str, container: str = "main") -> dict[str, str]:
        return self.kubelet.container_env("default", pod, container)

    @asynccontextmanager
    async def pod_resources(self) -> AsyncIterator["PodResourcesView"]:
        async with grpc.aio.insecure_channel(
            f"unix://{self.kubelet.pod_resources}", options=[("grpc.use_local_subchannel_pool", 1)]
        ) as channel:
            yield PodResourcesView(PodResourcesListerStub(channel))


class PodResourcesView:
    """What PodResources shows, as plain values: pod -> container -> IDs."""

    def __init__(self, stub: Any) -> None:
        self._stub = stub

    async def listed(self) -> dict[str, dict[str, list[str]]]:
        answer = await self._stub.List(pr.ListPodResourcesRequest())
        return {pod.name: _devices(pod) for pod in answer.pod_resources}

    async def found(self, pod: str) -> dict[str, list[str]] | grpc.StatusCode:
        request = pr.GetPodResourcesRequest(pod_name=pod, pod_namespace="default")
        try:
            return _devices((await self._stub.Get(request)).pod_resources)
        except grpc.aio.AioRpcError as error:
            return error.code()

    async def allocatable(self) -> list[str]:
        answer = await self._stub.GetAllocatableResources(pr.AllocatableResourcesRequest())
        return [i for device in answer.devices for i in device.device_ids]


def _devices(pod: Any) -> dict[str, list[str]]:
    return {c.name: sorted(i for device in c.devices for i in device.device_ids) for c in pod.containers}


@asynccontextmanager
async def one_node(options: Options = QUICK) -> AsyncIterator[OneNode]:
    """Run a node with its kubelet; its folder is short, since the paths of sockets are."""
    raw = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE}}
    with tempfile.TemporaryDirectory(prefix="k-") as folder:
        async with Standin.start(nodes=[raw]) as cluster, ApiClient.connect(cluster.url) as api:
            node = OneNode(cluster, api, Path(folder), options)
            async with node.kubelet.running():
                yield node
