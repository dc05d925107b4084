"""A stand-in for AWS's Neuron device plugin: devices and their cores, as two resources of one node.

It publishes no annotation: the kubelet counts devices and cores, and the node's label says the instance type. Its pod
is the one in waiting that has ids and is not marked allocated, and it marks it after its first Allocate. How AWS's
plugin shares out the ids of a pod among containers is not known here: each gets as many as it asks for, in order.
"""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from hami_kit.kubelet import deviceplugin_v1beta1_pb2 as dp

from hami_testkit.cluster.client import ApiClient
from hami_testkit.cluster.kubelet.pod import annotation, uid_of
from hami_testkit.cluster.plugins.handshake import Handshake
from hami_testkit.cluster.plugins.plugin import DevicePlugin, PluginRefusedError, files, one_at_a_time
from hami_testkit.cluster.status import Json

DEVICE, CORE = "aws.amazon.com/neuron", "aws.amazon.com/neuroncore"
IDS, ALLOCATED, RESOURCE_TYPE = "AWS_NEURON_IDS", "NEURON_ALLOCATED", "NEURON_RESOURCE_TYPE"
INSTANCE_TYPE = "node.kubernetes.io/instance-type"


class NeuronPlugin:
    """The plugin of one node, whose devices have ``cores`` each."""

    def __init__(
        self, api: ApiClient, node: str, cards: int, *, cores: int = 2, instance: str = "trn1.32xlarge"
    ) -> None:
        self._handshake = Handshake(api, node)
        self._instance = instance
        self._given: dict[str, int] = {}
        """How many of a pod's ids are given, by its uid."""
        allocate = one_at_a_time(self._allocate)
        self._plugins = [
            DevicePlugin(DEVICE, map(str, range(cards)), socket="neuron.sock", allocate=allocate),
            DevicePlugin(CORE, map(str, range(cards * cores)), socket="neuroncore.sock", allocate=allocate),
        ]
        self._cores = cores

    @asynccontextmanager
    async def running(self, folder: Path) -> AsyncIterator["NeuronPlugin"]:
        """Label the node and serve for the length of a block."""
        meta = {"labels": {INSTANCE_TYPE: self._instance}}
        await self._handshake.api.patch(self._handshake.path, {"metadata": meta})
        async with AsyncExitStack() as stack:
            for plugin in self._plugins:
                await stack.enter_async_context(plugin.running(folder))
            yield self

    async def _allocate(self, ids: list[str]) -> dp.ContainerAllocateResponse:
        pod = await self._pending()
        await self._handshake.annotate(pod, {ALLOCATED: "true"})
        return self._answer(pod, len(ids))

    async def _pending(self) -> Json:
        """Return the pod that has ids which are not given yet; one that is marked already first."""
        waiting = [pod for pod in await self._handshake.pods(phase="Pending") if self._left(pod)]
        started = [pod for pod in waiting if uid_of(pod) in self._given]
        fresh = [pod for pod in waiting if annotation(pod, ALLOCATED) == "false"]
        if not started and not fresh:
            raise PluginRefusedError(f"no pod on node {self._handshake.node} waits for Neuron devices")
        return (started or fresh)[0]

    def _left(self, pod: Json) -> list[str]:
        ids = (annotation(pod, IDS) or "").split(",")
        return [] if ids == [""] else ids[self._given.get(uid_of(pod), 0) :]

    def _answer(self, pod: Json, count: int) -> dp.ContainerAllocateResponse:
        given = self._left(pod)[:count]
        self._given[uid_of(pod)] = self._given.get(uid_of(pod), 0) + len(given)
        by_core = annotation(pod, RESOURCE_TYPE) == CORE
        devices = dict.fromkeys(int(number) // self._cores if by_core else int(number) for number in given)
        response = files(f"/dev/neuron{device}" for device in devices)
        response.envs["NEURON_RT_VISIBLE_CORES" if by_core else "AWS_NEURON_VISIBLE_DEVICES"] = ",".join(given)
        return response
