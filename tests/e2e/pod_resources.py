"""What the kubelet tells of devices to whoever asks, as exporters of metrics do."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
from hami_kit.kubelet import podresources_v1_pb2 as pr
from hami_kit.kubelet.podresources_v1_pb2_grpc import PodResourcesListerStub
from msgspec import Struct

PAUSE = 0.03
"""Seconds between two calls: the kubelet answers 100 a second to all clients together."""
EXCUSED = (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE)
"""It was asked too often, or is on its way up."""


class Lists(Struct):
    """How many Lists were answered."""

    answered: int = 0


async def wait_offered(root: Path, count: int) -> None:
    """Wait until the kubelet itself, whose report to the API server may be old, can give so many devices."""
    async with _stub(root) as stub:
        while True:
            found = await _answer(stub.GetAllocatableResources(pr.AllocatableResourcesRequest()))
            if found is not None and sum(len(device.device_ids) for device in found.devices) == count:
                return
            await asyncio.sleep(PAUSE)


@asynccontextmanager
async def listing_all_the_time(root: Path) -> AsyncIterator[Lists]:
    """Call List again and again until the block is left."""
    lists = Lists()

    async def ask(stub: Any) -> None:
        while True:
            lists.answered += await _answer(stub.List(pr.ListPodResourcesRequest())) is not None
            await asyncio.sleep(PAUSE)

    async with _stub(root) as stub:
        asking = asyncio.create_task(ask(stub))
        try:
            yield lists
        finally:
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)


@asynccontextmanager
async def _stub(root: Path) -> AsyncIterator[Any]:
    options = [
        ("grpc.use_local_subchannel_pool", 1), ("grpc.default_authority", "localhost"),
        ("grpc.max_reconnect_backoff_ms", 500),
    ]  # fmt: skip
    socket = root / "pod-resources" / "kubelet.sock"
    async with grpc.aio.insecure_channel(f"unix://{socket}", options=options) as channel:
        yield PodResourcesListerStub(channel)


async def _answer(call: Any) -> Any:
    """Return the answer, or None where it is excused that there is none."""
    try:
        return await call
    except grpc.aio.AioRpcError as refusal:
        if refusal.code() not in EXCUSED:
            raise
        return None
