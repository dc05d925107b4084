"""A stand-in for Huawei's ascend-device-plugin with HAMi's vNPU support: one chip model on one node.

One rule: it does what the real one does, its flaws included: it calls a pod served after the *first* container's
Allocate, and takes a chip's last entry where two containers share the chip.
"""

import asyncio
import json
import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from pathlib import Path

import aiohttp
from hami_kit.kubelet import deviceplugin_v1beta1_pb2 as dp
from msgspec import Struct

from hami_testkit.cluster.client import ApiClient
from hami_testkit.cluster.kubelet.pod import annotation, containers, uid_of
from hami_testkit.cluster.plugins.handshake import Handshake
from hami_testkit.cluster.plugins.plugin import DevicePlugin, PluginRefusedError
from hami_testkit.cluster.plugins.reporting import reporting
from hami_testkit.cluster.status import ApiError, Json

SOFT_MODE = ("huawei.com/vnpu-mode", "hami-core")
DRIVER = "/usr/local/Ascend/driver"
SOFT_MOUNTS = (
    *((p, p, True) for p in ("/usr/local/bin/npu-smi", "/etc/ascend_install.info", f"{DRIVER}/lib64/driver")),
    (f"{DRIVER}/version.info", f"{DRIVER}/version.info", True),
    ("/usr/local/hami-vnpu-core", "/hami-vnpu-core", True),
    ("/usr/local/hami-vnpu-core/ld.so.preload", "/etc/ld.so.preload", True),
    ("/usr/local/hami-shared-region", "/hami-shared-region", False),
)
"""Host path, container path, read-only."""


class Chip(Struct, frozen=True, kw_only=True):
    """One chip model as the device config describes it; memory in MiB, ``split`` is slots a card."""

    word: str
    memory: int
    cores: int
    split: int


CHIPS = {
    chip.word: chip
    for chip in (
        Chip(word="Ascend910A", memory=32768, cores=30, split=15),
        Chip(word="Ascend910B2", memory=65536, cores=24, split=8),
        Chip(word="Ascend910B3", memory=65536, cores=20, split=4),
        Chip(word="Ascend910B4", memory=32768, cores=20, split=4),
        Chip(word="Ascend910B4-1", memory=65536, cores=20, split=4),
        Chip(word="Ascend910C", memory=65536, cores=20, split=4),
        Chip(word="Ascend310P", memory=21527, cores=8, split=7),
    )
}


class AscendPlugin:
    """The plugin of one chip model on one node. ``soft``: the node splits in software (``hami-core``)."""

    def __init__(self, api: ApiClient, node: str, word: str, cards: int, *, soft: bool = False) -> None:
        self._handshake = Handshake(api, node)
        self._chip = CHIPS[word]
        self._soft = soft
        self._healthy = {f"{word}-{node}-{i}": True for i in range(cards)}
        self._one_at_a_time = asyncio.Lock()
        ids = [i for card in self._healthy for i in self._ids(card)]
        self._plugin = DevicePlugin(f"huawei.com/{word}", ids, socket=f"{word}.sock", allocate=self._allocate)
        self._hook_path = Path()

    @property
    def cards(self) -> list[str]:
        """Return the cards' UUIDs; the position is the physical id."""
        return list(self._healthy)

    async def mark(self, card: str, *, healthy: bool) -> None:
        """Let a card fall ill, or recover, and publish it as the next tick would."""
        self._healthy[card] = healthy
        self._plugin.mark(healthy=healthy, ids=self._ids(card))
        await self._report()

    def _ids(self, card: str) -> list[str]:
        return [f"{card}-{i}" for i in range(self._chip.split)]

    @asynccontextmanager
    async def running(self, folder: Path) -> AsyncIterator["AscendPlugin"]:
        """Publish the cards and serve them for the length of a block; containers' folders stand beside ``folder``."""
        self._hook_path = folder.parent / "hami-vnpu-core"
        what = f"the {self._chip.word} cards of {self._handshake.node}"
        async with self._plugin.running(folder), reporting(self._report, what):
            yield self

    # The node's annotations

    async def _report(self) -> None:
        word = self._chip.word
        stamp = datetime.now() + timedelta(seconds=1)
        await self._handshake.publish(
            {
                f"hami.io/node-register-{word}": json.dumps([self._card(i) for i in range(len(self._healthy))]),
                f"hami.io/node-handshake-{word}": f"Reported_{stamp:%Y.%m.%d %H:%M:%S}",
                "hami-vnpu-core": "true" if self._soft else "false",
            }
        )

    def _card(self, index: int) -> Json:
        """Return a card as Go writes it: whatever is zero or false is left out."""
        chip, uuid = self._chip, self.cards[index]
        card: Json = {"id": uuid, "index": index, "count": chip.split, "devmem": chip.memory}
        card |= {"devcore": 100 if self._soft else chip.cores, "type": chip.word, "health": self._healthy[uuid]}
        card = {key: value for key, value in card.items() if value}
        if chip.word.startswith("Ascend910"):
            card["custominfo"] = {"NetworkID": 0 if index <= 3 or chip.word == "Ascend910C" else 1}
        return card

    # Allocate

    async def _allocate(self, ids: list[str]) -> dp.ContainerAllocateResponse:
        async with self._one_at_a_time:
            pod = await self._handshake.pending_pod()
            try:
                response = await self._serve(pod, len(ids))
            except (ApiError, aiohttp.ClientError, PluginRefusedError, ValueError) as error:
                await self._handshake.finish(pod, "failed")
                raise PluginRefusedError(str(error)) from error
            await self._handshake.finish(pod, "success")
            return response

    async def _serve(self, pod: Json, count: int) -> dp.ContainerAllocateResponse:
        word = self._chip.word
        key = f"hami.io/{word}-devices-to-allocate"
        groups = (annotation(pod, key) or "").split(";")
        position = next((i for i, group in enumerate(groups) if group), None)
        if position is None:
            raise PluginRefusedError("device request not found")
        cards = [entry.split(",")[0] for entry in groups[position].split(":") if entry]
        if len(cards) != count:
            raise PluginRefusedError("device number not matched")
        written = annotation(pod, f"huawei.com/{word}")
        if written is None:
            raise PluginRefusedError(f"annotation huawei.com/{word} not found")
        runtime = {entry["UUID"]: entry for entry in json.loads(written)}
        if unknown := [card for card in cards if card not in runtime or card not in self._healthy]:
            raise PluginRefusedError(f"unknown device {','.join(unknown)}")
        groups[position] = ""
        # each rewriting appends a separator, as the real plugin's does
        await self._handshake.annotate(pod, {key: "".join(f"{group};" for group in groups)})
        return self._response(pod, position, [(card, runtime[card]) for card in cards])

    def _response(self, pod: Json, position: int, granted: Sequence[tuple[str, Json]]) -> dp.ContainerAllocateResponse:
        physical = [str(self.cards.index(card)) for card, _ in granted]
        response = dp.ContainerAllocateResponse(envs={"ASCEND_VISIBLE_DEVICES": ",".join(physical)})
        if annotation(pod, SOFT_MODE[0]) != SOFT_MODE[1]:
            if template := next((entry["temp"] for _, entry in granted if entry.get("temp")), ""):
                response.envs["ASCEND_VNPU_SPECS"] = template
            return response
        first = granted[0][1]
        response.envs["NPU_MEM_QUOTA"] = str(first.get("memory", 0))
        if first.get("core"):
            response.envs["NPU_PRIORITY"] = str(first["core"])
        response.envs["NPU_GLOBAL_SHM_PATH"] = f"/hami-shared-region/{physical[0]}_global_registry"
        response.envs["NPU_LOCAL_SHM_PATH"] = "/hami-vnpu-shmem/vnpu_local_shmem"
        own = (str(self._own_folder(pod, position)), "/hami-vnpu-shmem", False)
        response.mounts.extend(
            dp.Mount(host_path=host, container_path=inside, read_only=ro) for host, inside, ro in (*SOFT_MOUNTS, own)
        )
        return response

    def _own_folder(self, pod: Json, position: int) -> Path:
        """Make the container's folder anew; groups count init containers first."""
        name = containers(pod)[position][0]["name"]
        folder = self._hook_path / "containers" / f"{uid_of(pod)}_{name}"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True, mode=0o777)
        return folder
