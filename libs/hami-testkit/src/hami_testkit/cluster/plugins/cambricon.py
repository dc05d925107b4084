"""A stand-in for Cambricon's device plugin in ``dynamic-smlu`` mode.

It publishes no annotation: the scheduler reads the node's capacity of cores and memory. At Allocate it takes the pod
that is bound here and marked ``CAMBRICON_DSMLU_ASSIGNED=false``, sets the mark to ``true`` and removes the lock, which
has no owner.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from hami_kit.kubelet import deviceplugin_v1beta1_pb2 as dp

from hami_testkit.cluster.kubelet.client import ApiClient, ApiError, Json
from hami_testkit.cluster.plugins.handshake import Handshake, annotations_of
from hami_testkit.cluster.plugins.plugin import PluginRefusedError, serving

COUNT, CORES, MEMORY = "cambricon.com/vmlu", "cambricon.com/mlu.smlu.vcore", "cambricon.com/mlu.smlu.vmemory"
LOCK = "cambricon.com/dsmlu.lock"
ASSIGNED, PROFILE = "CAMBRICON_DSMLU_ASSIGNED", "CAMBRICON_DSMLU_PROFILE"
SLICES = 100
"""vmlu a card: the smallest slice is one percent of its cores."""


class CambriconPlugin:
    """The plugin of one node; each card has ``memory`` MiB."""

    def __init__(self, api: ApiClient, node: str, cards: int, memory: int = 24576) -> None:
        self._handshake = Handshake(api, node)
        self._cards = cards
        self._memory = memory

    @asynccontextmanager
    async def running(self, folder: Path) -> AsyncIterator[None]:
        """Publish capacity and serve for the length of a block."""
        ids = [f"{self._handshake.node}-mlu-{card}-{i}" for card in range(self._cards) for i in range(SLICES)]
        amounts = {CORES: str(self._cards * 100), MEMORY: str(self._cards * self._memory // 256)}
        status = {"status": {"capacity": amounts, "allocatable": amounts}}
        await self._handshake.api.merge(f"/api/v1/nodes/{self._handshake.node}/status", status)
        async with serving(folder, resource=COUNT, socket="cambricon.sock", ids=ids, answer=self._answer):
            yield

    async def _answer(self, ids: list[str]) -> dp.ContainerAllocateResponse:
        try:
            pod = await self._waiting_pod()
            profile = annotations_of(pod)[PROFILE]
            await self._handshake.annotate(pod, {ASSIGNED: "true"})
            await self._handshake.api.merge(
                f"/api/v1/nodes/{self._handshake.node}", {"metadata": {"annotations": {LOCK: None}}}
            )
        except ApiError as e:
            raise PluginRefusedError(str(e)) from e
        card = profile.split("_")[0]
        return dp.ContainerAllocateResponse(envs={"CAMBRICON_VISIBLE_DEVICES": card, PROFILE: profile})

    async def _waiting_pod(self) -> Json:
        for pod in await self._handshake.pods():
            notes = annotations_of(pod)
            if notes.get(ASSIGNED) == "false" and PROFILE in notes and pod["status"].get("phase") == "Pending":
                return pod
        raise PluginRefusedError(f"no pod waits for an MLU on node {self._handshake.node}")
