"""A cluster of a given size, half full, made in the stand-in API server as kubelets, plugins and binds would leave it.

One rule: nothing is told to the allocator; it reads nodes and bound pods from the API server like anywhere else.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import msgspec
from hami_kit.bus import Bus
from hami_model.bus import subjects
from hami_model.bus.messages import AskSnapshot, NodeUse, Snapshot, SnapshotAnswer
from hami_testkit.builders import a_node
from hami_testkit.stack import Addresses
from msgspec import Struct

Json = dict[str, Any]

CARDS = 8
MEMORY = 81920
MODEL = "NVIDIA A100-SXM4-80GB"
PODS_PER_NODE = 2
"""Each holds half of the node's cards by a share of their memory; the shares of the two average one half."""

NAMESPACE = "team-a"
CALLS_AT_ONCE = 16
DEADLINE = 300.0
"""Seconds for the allocator to read 10,000 pods on a busy machine."""


def name_of(index: int) -> str:
    """Return a node's name, as long as clouds give them."""
    return f"gpu-node-{index:05d}.cluster.local"


def node(index: int) -> Json:
    """Return a node that its device plugin has registered."""
    built = a_node(name_of(index)).with_cards(CARDS, memory=MEMORY, model=MODEL, mode="hami-core").node()
    made: Json = msgspec.to_builtins(built)
    made["metadata"] = {"name": name_of(index), "annotations": made["metadata"]["annotations"]}
    made["metadata"]["annotations"]["hami.io/node-handshake"] = "Reported_2026.01.01 00:00:00"
    return {"apiVersion": "v1", "kind": "Node", **made}


class Held(Struct, frozen=True):
    """What a pod asks for, and what is written on it once it holds that."""

    asked: dict[str, str]
    annotations: dict[str, str]


def held(index: int, cards: range, percent: int) -> Held:
    """Return what a bound and served pod holds that shares these cards of a node."""
    memory = MEMORY * percent // 100
    given = "".join(f"{name_of(index)}-{card},NVIDIA,{memory},{percent}:" for card in cards) + ";"
    return Held(
        {"nvidia.com/gpu": str(len(cards)), "nvidia.com/gpumem": str(memory), "nvidia.com/gpucores": str(percent)},
        {
            "hami.io/vgpu-node": name_of(index),
            "hami.io/vgpu-time": "1767225600",
            "hami.io/bind-phase": "success",
            "hami.io/vgpu-devices-allocated": given,
            "hami.io/vgpu-devices-to-allocate": ";",
        },
    )


def holder(index: int, half: int) -> Json:
    """Return a bound and served pod that holds part of four cards; the two of a node hold one half on average."""
    low = 30 + index % 20
    mine = held(index, range(half * CARDS // 2, (half + 1) * CARDS // 2), low if half == 0 else 100 - low)
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"holder-{index}-{half}",
            "namespace": NAMESPACE,
            "annotations": mine.annotations,
            "labels": {"hami.io/vgpu-node": name_of(index)},
        },
        "spec": {
            "schedulerName": "hami-scheduler",
            "nodeName": name_of(index),
            "containers": [
                {"name": "main", "image": "train", "resources": {"limits": mine.asked, "requests": mine.asked}}
            ],
        },
    }


async def fill(at: Addresses, size: int) -> None:
    """Create nodes and bound pods, and wait until the allocator has seen all of them."""
    async with _api() as session:
        last = {
            "nodes": await _create(session, f"{at.api}/api/v1/nodes", (node(i) for i in range(size))),
            "pods": await _create(
                session,
                f"{at.api}/api/v1/namespaces/{NAMESPACE}/pods",
                (holder(i, half) for i in range(size) for half in range(PODS_PER_NODE)),
            ),
        }
        await _wait_seen(session, at, last)


@asynccontextmanager
async def _api() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=CALLS_AT_ONCE)) as session:
        yield session


async def _create(session: aiohttp.ClientSession, url: str, objects: Iterable[Json]) -> int:
    """Create objects, several at a time; return the newest resourceVersion."""
    left, newest = iter(objects), 0

    async def worker() -> None:
        nonlocal newest
        for body in left:
            async with session.post(url, json=body) as answer:
                stored = await answer.json()
                assert answer.status < 300, stored
                newest = max(newest, int(stored["metadata"]["resourceVersion"]))

    await asyncio.gather(*(worker() for _ in range(CALLS_AT_ONCE)))
    return newest


async def _wait_seen(session: aiohttp.ClientSession, at: Addresses, wanted: Mapping[str, int]) -> None:
    async with asyncio.timeout(DEADLINE):
        while not all([await _seen(session, at, kind) >= version for kind, version in wanted.items()]):
            await asyncio.sleep(0.2)


async def _seen(session: aiohttp.ClientSession, at: Addresses, kind: str) -> int:
    async with session.get(f"{at.allocator}/readyz") as answer:
        return int((await answer.json())["checks"]["synced"].get(kind) or 0)


async def fullness(bus: Bus) -> float:
    """Return which part of the fleet's memory is booked, as the allocator's books say."""
    cards = [use for node in await _books(bus) for use in node.devices]
    return sum(use.used_memory for use in cards) / sum(use.device.memory for use in cards)


async def _books(bus: Bus) -> list[NodeUse]:
    nodes: list[NodeUse] = []
    question: AskSnapshot | None = AskSnapshot()
    while question is not None:
        page = await bus.request(subjects.SNAPSHOT, question, SnapshotAnswer, timeout=10)
        assert isinstance(page, Snapshot), page
        nodes += page.nodes
        question = AskSnapshot(after=page.next) if page.next else None
    return nodes
