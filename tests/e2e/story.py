"""What a story of two schedulers in one cluster is told with: pods by their containers' wishes, and what they got.

One rule: what a pod was given is what its kubelet would have told the container runtime, whoever served it.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

from hami_testkit.cluster.plugins.nvidia import MEMORY, MODEL, SLOTS, nvidia_plugin

from tests.e2e.hami import ALLOCATED, NODE, PHASE, PODS, Hami, Json
from tests.e2e.site import Served, Site

DEADLINE = 60.0
CARDS = 2
CONTAINERS = ("first", "a", "b", "c")
GPU = "nvidia.com/gpu"
Wish = tuple[int, int]
"""How many cards a container asks for, and how many MiB of each."""


def a_pod(name: str, *wishes: Wish, init: Wish | None = None, node: str = "") -> Json:
    """Return a pod for HAMi's scheduler, theirs or ours, with containers ``a``, ``b`` … after an init container."""
    spec = {
        "schedulerName": "hami-scheduler", "nodeSelector": {"kubernetes.io/hostname": node} if node else {},
        "containers": [_container(name, wish) for name, wish in zip(CONTAINERS[1:], wishes, strict=False)],
        "initContainers": [_container(CONTAINERS[0], init)] if init else [],
    }  # fmt: skip
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}


def _container(name: str, wish: Wish) -> Json:
    limits = {GPU: str(wish[0]), "nvidia.com/gpumem": str(wish[1])} if wish[0] else {}
    return {"name": name, "image": "app", "resources": {"limits": limits}}


def notes(obj: Json) -> Mapping[str, str]:
    """Return an object's annotations."""
    return obj["metadata"].get("annotations") or {}


def served(node: str) -> Served:
    """Return a node for our agent, with the cards that HAMi's plugin shows there."""
    facts = {"vendor": "NVIDIA", "count": SLOTS, "devmem": MEMORY, "devcore": 100, "type": MODEL, "mode": "hami-core"}
    cards = ({"id": f"GPU-{node}-{at}", "index": at, **facts, "health": True} for at in range(CARDS))
    return Served(node, tuple(cards))


class Story:
    """The cluster, with HAMi as it sees it."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.hami = Hami(site.api)

    @asynccontextmanager
    async def plugins(self) -> AsyncIterator[None]:
        """Run HAMi's device plugin on every node, for the length of a block; begin when all cards are offered."""
        async with AsyncExitStack() as stack:
            for node, kubelet in self.site.kubelets.items():
                plugin = nvidia_plugin(self.site.api, node, CARDS)
                await stack.enter_async_context(plugin.running(kubelet.plugins))
            await self.until(self._is_offered)
            yield

    async def _is_offered(self) -> bool:
        offers = {node["metadata"]["name"]: node["status"].get("allocatable") or {} for node in await self.nodes()}
        return {str(CARDS * SLOTS)} == {offers[name].get(GPU) for name in self.site.kubelets}

    async def nodes(self) -> Sequence[Json]:
        """Return all nodes."""
        return list((await self.site.api.get("/api/v1/nodes"))["items"])

    async def create(self, *pods: Json) -> None:
        """Create pods as a user does."""
        for pod in pods:
            await self.site.api.create(PODS, pod)

    async def fail(self, name: str, *, node: str) -> None:
        """Create a pod that failed on a node while its plugin was about to serve it."""
        pod = a_pod(name, (1, 1000))
        pod["metadata"]["annotations"] = {NODE: node, PHASE: "allocating", ALLOCATED: f"GPU-{node}-0,NVIDIA,1000,0:;"}
        pod["spec"]["nodeName"] = node
        await self.create(pod)
        await self.site.api.patch(f"{PODS}/{name}/status", {"status": {"phase": "Failed"}})

    async def get(self, name: str) -> Json:
        """Return a pod."""
        return await self.site.api.get(f"{PODS}/{name}")

    def gifts(self, name: str) -> dict[str, Mapping[str, str]]:
        """Return the environment that plugins gave to each of a pod's containers."""
        found = {}
        for kubelet in self.site.kubelets.values():
            for container in CONTAINERS:
                if gift := kubelet.given("default", name, container):
                    found[container] = gift.envs
        return found

    async def until(self, is_so: Callable[[], Awaitable[bool]]) -> None:
        """Wait for a condition."""
        async with asyncio.timeout(DEADLINE):
            while not await is_so():
                await asyncio.sleep(0.1)

    async def wait(self, name: str, is_so: Callable[[Json], bool]) -> Json:
        """Wait until a pod is as asked, and return it."""
        pod: Json = {}
        try:
            async with asyncio.timeout(DEADLINE):
                while not is_so(pod := await self.get(name)):
                    assert pod["status"].get("phase") != "Failed", pod["status"]
                    await asyncio.sleep(0.1)
        except TimeoutError as e:
            raise AssertionError(f"{name} did not become what was waited for: {pod}") from e
        return pod

    async def wait_served(self, *names: str) -> None:
        """Wait until pods run, whoever served them has said so, and nobody holds a node."""
        for name in names:
            await self.wait(name, _is_served)
        await self.until(self._is_open)

    async def _is_open(self) -> bool:
        return not await self.hami.locks()


def _is_served(pod: Json) -> bool:
    return pod["status"].get("phase") == "Running" and notes(pod).get(PHASE) == "success"
