"""Stand-ins for Kunlun's two device plugins: whole XPUs, and shares of them (vXPUs).

The one for whole cards publishes no annotation and takes no lock: the kubelet counts cards, and a pod's annotation says
their numbers, for its last container with cards. Which pod asks it is told by what waits, the oldest first; what a
container is given (device files) is made up.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
from hami_kit.kubelet import deviceplugin_v1beta1_pb2 as dp

from hami_testkit.cluster.client import ApiClient
from hami_testkit.cluster.kubelet.pod import annotation, uid_of
from hami_testkit.cluster.plugins.handshake import Handshake
from hami_testkit.cluster.plugins.plugin import DevicePlugin, PluginRefusedError
from hami_testkit.cluster.plugins.registered import Brand, Granted, RegisteredPlugin
from hami_testkit.cluster.status import ApiError, Json

XPU, VXPU = "kunlunxin.com/xpu", "kunlunxin.com/vxpu"
NUMBERS = "BAIDU_COM_DEVICE_IDX"
MEMORY = 98304
"""MiB of a card."""


def vxpu_plugin(api: ApiClient, node: str, cards: int, *, slots: int = 4) -> RegisteredPlugin:
    """Return the plugin of one node whose cards are shared."""
    listed = [
        {"id": f"XPU-{node}-{at}", "index": at, "count": slots, "devmem": MEMORY, "devcore": 100, "type": "XPU",
         "numa": int(at >= cards / 2), "health": True}
        for at in range(cards)
    ]  # fmt: skip
    return RegisteredPlugin(api, node, _BRAND, listed)


class XpuPlugin:
    """The plugin of one node whose cards are given whole."""

    def __init__(self, api: ApiClient, node: str, cards: int) -> None:
        self._handshake = Handshake(api, node)
        self._one_at_a_time = asyncio.Lock()
        self._served: set[str] = set()
        self._plugin = DevicePlugin(XPU, map(str, range(cards)), socket="xpu.sock", allocate=self._allocate)

    @asynccontextmanager
    async def running(self, folder: Path) -> AsyncIterator["XpuPlugin"]:
        """Serve for the length of a block."""
        async with self._plugin.running(folder):
            yield self

    async def _allocate(self, ids: list[str]) -> dp.ContainerAllocateResponse:
        async with self._one_at_a_time:
            try:
                waiting = [pod for pod in await self._handshake.pods(phase="Pending") if self._waits(pod, len(ids))]
            except (ApiError, aiohttp.ClientError) as error:
                raise PluginRefusedError(str(error)) from error
            if not waiting:
                raise PluginRefusedError(f"no pod on node {self._handshake.node} waits for {len(ids)} XPUs")
            pod = min(waiting, key=lambda each: str(each["metadata"].get("creationTimestamp")))
            self._served.add(uid_of(pod))
            numbers = (annotation(pod, NUMBERS) or "").split(",")
            return _answer([f"/dev/xpu{number}" for number in numbers])

    def _waits(self, pod: Json, count: int) -> bool:
        numbers = annotation(pod, NUMBERS) or ""
        return bool(numbers) and numbers.count(",") + 1 == count and uid_of(pod) not in self._served


def _answer(paths: list[str]) -> dp.ContainerAllocateResponse:
    response = dp.ContainerAllocateResponse()
    for path in paths:
        response.devices.append(dp.DeviceSpec(host_path=path, container_path=path, permissions="rw"))
    return response


def _shares(granted: list[Granted]) -> dp.ContainerAllocateResponse:
    return _answer([f"/dev/xpu{card.index}" for card in granted])


_BRAND = Brand(
    word="XPU",
    resource=VXPU,
    register="hami.io/node-register-xpu",
    handshake="hami.io/node-handshake-xpu",
    to_allocate="hami.io/xpu-devices-to-allocate",
    answer=_shares,
)
