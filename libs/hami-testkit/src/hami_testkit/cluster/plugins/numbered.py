"""A stand-in for plugins that publish no annotation and take no lock: Kunlun's for whole cards, Moore Threads'.

The kubelet counts what such a node has, and a pod's annotation says the numbers of its cards, for its last container
with any. Which pod asks is told by what waits, the oldest first; what a container is given (device files) is made up.
"""

from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from hami_kit.kubelet import deviceplugin_v1beta1_pb2 as dp

from hami_testkit.cluster.client import ApiClient
from hami_testkit.cluster.kubelet.pod import annotation, uid_of
from hami_testkit.cluster.plugins.handshake import Handshake
from hami_testkit.cluster.plugins.plugin import DevicePlugin, PluginRefusedError, files, nothing, one_at_a_time
from hami_testkit.cluster.status import Json


class NumberedPlugin:
    """The plugin of one node: ``amounts`` by resource, the first counting cards; ``numbers`` is the pods' key."""

    def __init__(self, api: ApiClient, node: str, *, amounts: Mapping[str, int], numbers: str, file: str) -> None:
        self._handshake = Handshake(api, node)
        self._served: Counter[str] = Counter()
        """By pod: how many of its containers have their cards."""
        self._cards, *others = amounts
        self._numbers, self._file = numbers, file
        answers = {self._cards: one_at_a_time(self._allocate), **dict.fromkeys(others, nothing)}
        self._plugins = [
            DevicePlugin(name, map(str, range(amounts[name])), socket=f"{name.replace('/', '-')}.sock", allocate=answer)
            for name, answer in answers.items()
        ]

    @asynccontextmanager
    async def running(self, folder: Path) -> AsyncIterator["NumberedPlugin"]:
        """Serve for the length of a block."""
        async with AsyncExitStack() as stack:
            for plugin in self._plugins:
                await stack.enter_async_context(plugin.running(folder))
            yield self

    async def _allocate(self, ids: list[str]) -> dp.ContainerAllocateResponse:
        waiting = [pod for pod in await self._handshake.pods(phase="Pending") if self._waits(pod, len(ids))]
        if not waiting:
            node = self._handshake.node
            raise PluginRefusedError(f"no pod on node {node} waits for {len(ids)} of {self._cards}")
        pod = min(waiting, key=lambda each: str(each["metadata"].get("creationTimestamp")))
        self._served[uid_of(pod)] += 1
        return files(f"{self._file}{number}" for number in self._listed(pod))

    def _waits(self, pod: Json, count: int) -> bool:
        spec = pod["spec"]
        containers = [*spec.get("initContainers", []), *spec["containers"]]
        asking = [c for c in containers if self._cards in c.get("resources", {}).get("limits", {})]
        return len(self._listed(pod)) == count and self._served[uid_of(pod)] < len(asking)

    def _listed(self, pod: Json) -> list[str]:
        return [number for number in (annotation(pod, self._numbers) or "").split(",") if number]
