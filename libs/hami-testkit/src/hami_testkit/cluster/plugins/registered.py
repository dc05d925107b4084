"""A stand-in for the plugins that HAMi brings for other vendors: they publish cards in a register annotation.

One rule: what vendors' plugins have in common stands here: find the pod by the node's lock, take the first group of
``*-devices-to-allocate`` that is left, say success when none is, open the lock. What differs is a ``Brand``.
"""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path

import aiohttp
from hami_kit.kubelet import deviceplugin_v1beta1_pb2 as dp
from msgspec import Struct

from hami_testkit.cluster.client import ApiClient
from hami_testkit.cluster.kubelet.pod import annotation
from hami_testkit.cluster.plugins.handshake import Handshake
from hami_testkit.cluster.plugins.plugin import DevicePlugin, PluginRefusedError
from hami_testkit.cluster.plugins.reporting import reporting
from hami_testkit.cluster.status import ApiError, Json

log = logging.getLogger(__name__)


class Granted(Struct, frozen=True, kw_only=True):
    """One card given to a container: its position on the node, and what the pod's annotation says."""

    index: int
    uuid: str
    memory: int
    cores: int


Cards = list[Json]
"""As they stand in the register annotation."""
Write = Callable[[Cards], str]
Answer = Callable[[list[Granted]], dp.ContainerAllocateResponse]


def as_json(cards: Cards) -> str:
    """Write cards as Go does: what is zero or false is left out, and so are spaces."""
    return json.dumps([{key: value for key, value in card.items() if value} for card in cards], separators=(",", ":"))


def as_text(cards: Cards) -> str:
    """Write cards as HAMi did before it wrote JSON."""
    return "".join(
        f"{card['id']},{card['count']},{card['devmem']},{card['devcore']},{card['type']},{card['numa']},"
        f"{'true' if card['health'] else 'false'},{card['index']},hami-core:"
        for card in cards
    )


class Brand(Struct, frozen=True, kw_only=True):
    """What one vendor's plugin reads, writes and gives to a container; an empty key = it has none."""

    word: str
    resource: str
    register: str = ""
    handshake: str = ""
    to_allocate: str
    answer: Answer
    write: Write = as_json
    mark: str = "#"
    """What stands between a card's id and the number of a slot."""
    phases: Collection[str] = ("allocating",)
    """Of pods that it takes where the node has no lock."""
    prefers: bool = False
    """It tells the kubelet which IDs it would like."""
    is_hasty: bool = False
    """It calls a pod served after the first container's Allocate, and then finds it no more for the others."""


class RegisteredPlugin:
    """The plugin of one brand on one node."""

    def __init__(self, api: ApiClient, node: str, brand: Brand, cards: Cards) -> None:
        self._handshake = Handshake(api, node, phases=brand.phases)
        self._brand = brand
        self._cards = {card["id"]: card for card in cards}
        self._one_at_a_time = asyncio.Lock()
        ids = [slot for uuid in self._cards for slot in self._slots(uuid)]
        socket = f"{brand.word.lower()}.sock"
        prefer = self._prefer if brand.prefers else None
        self._plugin = DevicePlugin(brand.resource, ids, socket=socket, allocate=self._allocate, prefer=prefer)
        self.trouble = ""
        """What it fails with, in the driver's words, once it has found a pod; empty: with nothing."""

    @property
    def cards(self) -> list[str]:
        """Return the cards' ids, in the order of the register annotation."""
        return list(self._cards)

    async def mark(self, card: str, *, healthy: bool) -> None:
        """Let a card fall ill, or recover, and publish it as the next tick would."""
        self._cards[card]["health"] = healthy
        self._plugin.mark(healthy=healthy, ids=self._slots(card))
        await self._report()

    def _slots(self, card: str) -> list[str]:
        count = self._cards[card]["count"]
        return [card] if count == 1 else [f"{card}{self._brand.mark}{slot}" for slot in range(count)]

    @asynccontextmanager
    async def running(self, folder: Path) -> AsyncIterator["RegisteredPlugin"]:
        """Publish the cards and serve them for the length of a block."""
        what = f"the {self._brand.word} cards of {self._handshake.node}"
        async with self._plugin.running(folder), reporting(self._report, what):
            yield self

    async def _report(self) -> None:
        notes: dict[str, str | None] = {
            self._brand.register: self._brand.write(list(self._cards.values())),
            self._brand.handshake: f"Reported_{datetime.now():%Y.%m.%d %H:%M:%S}",
        }
        if kept := {key: text for key, text in notes.items() if key}:
            await self._handshake.publish(kept)

    # Allocate

    async def _allocate(self, ids: list[str]) -> dp.ContainerAllocateResponse:
        async with self._one_at_a_time:
            pod = await self._handshake.pending_pod()
            try:
                granted, is_last = await self._take(pod, len(ids))
            except (ApiError, aiohttp.ClientError, PluginRefusedError) as error:
                await self._handshake.finish(pod, "failed")
                raise PluginRefusedError(str(error)) from error
            if is_last or self._brand.is_hasty:
                await self._handshake.finish(pod, "success")
            return self._brand.answer(granted)

    async def _take(self, pod: Json, count: int) -> tuple[list[Granted], bool]:
        """Take the first group that is left of the pod's; say whether it was the last."""
        groups = (annotation(pod, self._brand.to_allocate) or "").split(";")
        left = [at for at, group in enumerate(groups) if group]
        if not left:
            raise PluginRefusedError("device request not found")
        granted = [self._granted(entry) for entry in groups[left[0]].split(":") if entry]
        if len(granted) != count:
            raise PluginRefusedError("device number not matched")
        if self.trouble:
            raise PluginRefusedError(self.trouble)
        groups[left[0]] = ""
        await self._handshake.annotate(pod, {self._brand.to_allocate: ";".join(groups)})
        return granted, len(left) == 1

    async def _prefer(self, asked: dp.ContainerPreferredAllocationRequest) -> list[str]:
        """Name a free slot of each card that the container is to get; nothing where the pod cannot be found."""
        try:
            pod = await self._handshake.pending_pod()
        except PluginRefusedError as error:
            log.info("nothing is preferred: %s", error)
            return []
        groups = (annotation(pod, self._brand.to_allocate) or "").split(";")
        entries = next((group.split(":") for group in groups if group), [])
        chosen = list(asked.must_include_deviceIDs)
        for uuid in (entry.partition(",")[0] for entry in entries if entry):
            free = (slot for slot in asked.available_deviceIDs if slot.startswith(f"{uuid}{self._brand.mark}"))
            chosen += [slot for slot in free if slot not in chosen][:1]
        return chosen[: asked.allocation_size]

    def _granted(self, entry: str) -> Granted:
        uuid, _, memory, cores = entry.split(",")
        if uuid not in self._cards:
            raise PluginRefusedError(f"unknown device {uuid}")
        return Granted(index=self.cards.index(uuid), uuid=uuid, memory=int(memory), cores=int(cores))
