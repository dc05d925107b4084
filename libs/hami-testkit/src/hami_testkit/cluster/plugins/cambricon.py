"""A stand-in for Cambricon's device plugin in ``dynamic-smlu`` mode, with the vendor's container runtime.

It publishes no annotation: cards are counted in the node's capacity of cores (100 a card) and memory (256 MiB a unit).
The kubelet asks it twice for a container, once for cores and once for memory: the first Allocate makes the slice that
``CAMBRICON_DSMLU_PROFILE`` describes, the second gives the same answer, marks the pod assigned and removes the lock.

One rule: it does what the real one does. It knows its pod by ``CAMBRICON_DSMLU_ASSIGNED=false`` among the pending ones
of its node, refuses when that is not exactly one pod with one container, and never reads whose lock it removes. A pod
that asks for cores or memory alone is served, and never marked.
"""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from hami_kit.kubelet import deviceplugin_v1beta1_pb2 as dp
from msgspec import Struct

from hami_testkit.cluster.client import ApiClient
from hami_testkit.cluster.kubelet.pod import annotation, wanted
from hami_testkit.cluster.plugins.handshake import Handshake
from hami_testkit.cluster.plugins.plugin import DevicePlugin, PluginRefusedError, nothing, one_at_a_time
from hami_testkit.cluster.status import Json

COUNT, CORES, MEMORY = "cambricon.com/vmlu", "cambricon.com/mlu.smlu.vcore", "cambricon.com/mlu.smlu.vmemory"
REAL_COUNT = "cambricon.com/real-mlu-counts"
LOCK = "cambricon.com/dsmlu.lock"
ASSIGNED, PROFILE, INSTANCE = "CAMBRICON_DSMLU_ASSIGNED", "CAMBRICON_DSMLU_PROFILE", "CAMBRICON_DSMLU_PROFILE_INSTANCE"
UNIT = 256
"""MiB in one unit of memory."""
SLICES = 100
"""vmlu and units of cores a card."""


class Slice(Struct, frozen=True):
    """What was made for a pod whose second Allocate is still to come."""

    pod: str
    name: str
    response: dp.ContainerAllocateResponse


class CambriconPlugin:
    """The plugin of one node; each card has ``memory`` MiB.

    ``counts``: ``vmlu`` is advertised too. The real plugin does not; HAMi's mock device plugin, or a scheduler that
    ignores the resource, makes up for it.
    """

    def __init__(self, api: ApiClient, node: str, cards: int, memory: int = 24576, *, counts: bool = True) -> None:
        self._handshake = Handshake(api, node)
        self._cards = [f"MLU-{node}-{i}" for i in range(cards)]
        self._allocate = one_at_a_time(self._serve)
        self._slice: Slice | None = None
        self._made = 0
        units = {CORES: SLICES, MEMORY: memory // UNIT}
        self._plugins = [self._plugin(resource, count) for resource, count in units.items()]
        self._plugins.append(DevicePlugin(REAL_COUNT, self._cards, socket="real-mlu-counts.sock", allocate=nothing))
        if counts:
            ids = [f"{card}-vmlu-{i}" for card in self._cards for i in range(SLICES)]
            self._plugins.append(DevicePlugin(COUNT, ids, socket="vmlu.sock", allocate=nothing))

    def _plugin(self, resource: str, count: int) -> DevicePlugin:
        profile = resource.rpartition(".")[2]
        ids = [f"{card}-{profile}-{i + 1}" for card in self._cards for i in range(count)]
        return DevicePlugin(resource, ids, socket=f"{profile}.sock", allocate=self._allocate)

    @asynccontextmanager
    async def running(self, folder: Path) -> AsyncIterator["CambriconPlugin"]:
        """Remove a lock left over, register, and serve for the length of a block."""
        await self._handshake.publish({LOCK: None})
        async with AsyncExitStack() as stack:
            for plugin in self._plugins:
                await stack.enter_async_context(plugin.running(folder))
            yield self

    async def _serve(self, ids: list[str]) -> dp.ContainerAllocateResponse:
        pod = await self._candidate()
        if self._slice is not None and self._slice.pod == pod["metadata"]["name"]:
            return await self._complete(pod, self._slice)
        self._slice = self._make(pod)
        return self._slice.response

    async def _candidate(self) -> Json:
        waiting = [
            pod
            for pod in await self._handshake.pods(phase="Pending")
            if annotation(pod, ASSIGNED) == "false" and _asking(pod)
        ]
        if len(waiting) != 1:
            self._slice = None
            found = (
                "number of dynamic smlu candidate pods large than one"
                if waiting
                else "no dynamic smlu candidate pod found"
            )
            raise PluginRefusedError(f"failed to get dynamic smlu candidate pods, err {found}")
        if _asking(waiting[0]) > 1:
            raise PluginRefusedError("number of containers of dynamic smlu candidate pod large than one")
        return waiting[0]

    def _make(self, pod: Json) -> Slice:
        """Make the slice of the pod's profile: card, percent of cores, units of memory."""
        written = annotation(pod, PROFILE)
        if written is None:
            raise PluginRefusedError(f"get profile from annotation pod annotation {PROFILE} not found")
        parts = written.split("_")
        if len(parts) != 3 or not all(part.isdigit() for part in parts):
            raise PluginRefusedError(f"get profile from annotation invalid pod annotation {written}")
        card = int(parts[0])
        if card >= len(self._cards):
            raise PluginRefusedError(f"failed GetDeviceUUIDByIndex {card}")
        self._made += 1
        paths = (f"/dev/cambricon_dev{card}", f"/dev/cambricon_ipcm{card}")
        devices = ",".join((*paths, f"/dev/cambricon-caps/cap_dev{card}_mi{self._made}"))
        response = dp.ContainerAllocateResponse(envs={"VIRTUAL_DEVICES": devices})
        handle = self._made << 8 | card
        return Slice(pod["metadata"]["name"], f"{self._made}_{handle}_{card}_{self._made}", response)

    async def _complete(self, pod: Json, made: Slice) -> dp.ContainerAllocateResponse:
        self._slice = None
        await self._handshake.annotate(pod, {ASSIGNED: "true", INSTANCE: made.name})
        await self._handshake.publish({LOCK: None})
        return made.response


def _asking(pod: Json) -> int:
    """Return how many containers ask for cores or memory; init containers are not looked at."""
    return sum(any(wanted(c).get(name) for name in (CORES, MEMORY)) for c in pod["spec"]["containers"])
