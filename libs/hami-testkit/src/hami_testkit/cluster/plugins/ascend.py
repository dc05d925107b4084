"""A stand-in for Huawei's ascend-device-plugin with HAMi's vNPU support: one chip model on one node."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path

from hami_kit.kubelet import deviceplugin_v1beta1_pb2 as dp
from msgspec import Struct

from hami_testkit.cluster.kubelet.client import ApiClient, ApiError, Json
from hami_testkit.cluster.plugins.handshake import Handshake, annotations_of
from hami_testkit.cluster.plugins.plugin import PluginRefusedError, serving

REPORT_EVERY = 30.0
"""Seconds between two registrations, as the real plugin has it."""


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
    """The plugin of one chip model on one node."""

    def __init__(self, api: ApiClient, node: str, word: str, cards: int) -> None:
        self._handshake = Handshake(api, node)
        self._chip = CHIPS[word]
        self._cards = [f"{word}-{node}-{i}" for i in range(cards)]

    @asynccontextmanager
    async def running(self, folder: Path) -> AsyncIterator[None]:
        """Publish the cards and serve them for the length of a block."""
        ids = [f"{card}-{i}" for card in self._cards for i in range(self._chip.split)]
        word = self._chip.word
        async with serving(folder, resource=f"huawei.com/{word}", socket=f"{word}.sock", ids=ids, answer=self._answer):
            await self._report()
            reporting = asyncio.create_task(self._report_for_ever())
            try:
                yield
            finally:
                reporting.cancel()
                await asyncio.gather(reporting, return_exceptions=True)

    async def _report_for_ever(self) -> None:
        while True:
            await asyncio.sleep(REPORT_EVERY)
            await self._report()

    async def _report(self) -> None:
        word, stamp = self._chip.word, datetime.now().strftime("%Y.%m.%d %H:%M:%S")
        notes = {
            f"hami.io/node-register-{word}": json.dumps([self._card(i) for i in range(len(self._cards))]),
            f"hami.io/node-handshake-{word}": f"Reported_{stamp}",
        }
        await self._handshake.api.merge(f"/api/v1/nodes/{self._handshake.node}", {"metadata": {"annotations": notes}})

    def _card(self, index: int) -> Json:
        chip = self._chip
        card: Json = {"id": self._cards[index], "count": chip.split, "devmem": chip.memory, "devcore": chip.cores}
        card |= {"type": chip.word, "health": True}
        if index:
            card["index"] = index
        if chip.word.startswith("Ascend910"):
            card["custominfo"] = {"NetworkID": 0 if index <= 3 or chip.word == "Ascend910C" else 1}
        return card

    async def _answer(self, ids: list[str]) -> dp.ContainerAllocateResponse:
        try:
            pod = await self._handshake.pending_pod()
        except ApiError as e:
            raise PluginRefusedError(str(e)) from e
        try:
            response = await self._serve(pod, len(ids))
        except PluginRefusedError:
            await self._handshake.finish(pod, "failed")
            raise
        await self._handshake.finish(pod, "success")
        return response

    async def _serve(self, pod: Json, count: int) -> dp.ContainerAllocateResponse:
        word, notes = self._chip.word, annotations_of(pod)
        key = f"hami.io/{word}-devices-to-allocate"
        groups = notes.get(key, "").split(";")
        position = next((i for i, group in enumerate(groups) if group), None)
        if position is None:
            raise PluginRefusedError("device request not found")
        cards = [entry.split(",")[0] for entry in groups[position].split(":") if entry]
        if len(cards) != count:
            raise PluginRefusedError("device number not matched")
        runtime = {entry["UUID"]: entry for entry in json.loads(notes.get(f"huawei.com/{word}") or "[]")}
        if any(card not in runtime for card in cards):
            raise PluginRefusedError(f"annotation huawei.com/{word} does not tell of {','.join(cards)}")
        groups[position] = ""
        await self._handshake.annotate(pod, {key: ";".join(groups)})
        soft = notes.get("huawei.com/vnpu-mode") == "hami-core"
        return dp.ContainerAllocateResponse(envs=self._envs(cards, [runtime[card] for card in cards], soft=soft))

    def _envs(self, cards: list[str], runtime: list[Json], *, soft: bool) -> dict[str, str]:
        physical = [str(self._cards.index(card)) for card in cards]
        envs = {"ASCEND_VISIBLE_DEVICES": ",".join(physical)}
        if soft:
            envs["NPU_MEM_QUOTA"] = str(runtime[0].get("memory", 0))
            if runtime[0].get("core"):
                envs["NPU_PRIORITY"] = str(runtime[0]["core"])
            envs["NPU_GLOBAL_SHM_PATH"] = f"/hami-shared-region/{physical[0]}_global_registry"
            envs["NPU_LOCAL_SHM_PATH"] = "/hami-vnpu-shmem/vnpu_local_shmem"
        elif template := next((entry["temp"] for entry in runtime if entry.get("temp")), ""):
            envs["ASCEND_VNPU_SPECS"] = template
        return envs
