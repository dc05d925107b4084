"""Somebody else who asks the kubelet who has which devices, as exporters of metrics do."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
from hami_kit.kubelet import podresources_v1_pb2 as pr
from hami_kit.kubelet.podresources_v1_pb2_grpc import PodResourcesListerStub
from msgspec import Struct

PAUSE = 0.03
"""Seconds between two Lists: the kubelet answers 100 calls a second to all clients together."""


class Lists(Struct):
    """How many Lists were answered."""

    answered: int = 0


@asynccontextmanager
async def listing_all_the_time(root: Path) -> AsyncIterator[Lists]:
    """Call List again and again until the block is left."""
    lists = Lists()
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.default_authority", "localhost")]
    async with grpc.aio.insecure_channel(
        f"unix://{root / 'pod-resources' / 'kubelet.sock'}", options=options
    ) as channel:
        stub = PodResourcesListerStub(channel)

        async def ask() -> None:
            while True:
                try:
                    await stub.List(pr.ListPodResourcesRequest())
                    lists.answered += 1
                except grpc.aio.AioRpcError as refusal:
                    if refusal.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED:
                        raise
                await asyncio.sleep(PAUSE)

        asking = asyncio.create_task(ask())
        try:
            yield lists
        finally:
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
