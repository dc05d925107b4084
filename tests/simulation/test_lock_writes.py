"""Lock writes that come late or out of turn: a plugin takes the pod that it reads there for the one to serve."""

import asyncio
from collections.abc import Coroutine
from random import Random
from typing import Any

import pytest
from hami_allocator.lock_keeper import LockKeeper
from hami_allocator.node_locks import NodeLocks
from hami_allocator.retry import Backoff
from hami_kit.kube import Kube
from hami_model.errors import DomainError
from hami_model.objects import PodRef
from hami_model.vendor import MUTEX_LOCK

from tests.simulation.api import Api, SimTransport
from tests.simulation.virtual_time import ProcessClock, VirtualLoop
from tests.simulation.weather import Weather

FIRST, SECOND = PodRef("team-a", "first", "uid-1"), PodRef("team-a", "second", "uid-2")


class Bench:
    """One node on an API server, and a keeper of locks."""

    def __init__(self, loop: VirtualLoop) -> None:
        weather = Weather(Random(1))
        weather.calm_down()
        self.api = Api(loop, Random(1), weather)
        self.api.store.create("nodes", {"metadata": {"name": "node-1", "uid": "n"}}, sender="admin")
        kube = Kube(SimTransport(self.api, "allocator"))  # type: ignore[arg-type]
        self.keeper = LockKeeper(
            NodeLocks(timeout=300), kube, ProcessClock(loop, skew=0), Backoff(), lambda _node: None
        )

    def change_node(self, number: int) -> None:
        notes = {"annotations": {"other": str(number)}}
        self.api.store.patch_meta("nodes", ("", "node-1"), notes, sender="somebody")

    @property
    def owner(self) -> str:
        notes = self.api.store.get("nodes", ("", "node-1"))["metadata"].get("annotations", {})
        return str(notes.get(MUTEX_LOCK.key, "")).rpartition(",")[2]

    async def take(self, pod: PodRef) -> None:
        await self.keeper.take("node-1", [MUTEX_LOCK], pod, deadline=asyncio.get_running_loop().time() + 20)


def told(story: Coroutine[Any, Any, None], loop: VirtualLoop) -> None:
    try:
        loop.run_until_complete(story)
    finally:
        loop.wind_up([])


def test_a_pod_that_ended_does_not_write_its_lock_over_the_next_ones() -> None:
    """Its write is tried again because the node changed; by then the next pod in line may be bound."""
    loop = VirtualLoop()

    async def story() -> None:
        bench = Bench(loop)
        for number in range(40):
            loop.after(number * 0.004, bench.change_node, number)
        first = asyncio.ensure_future(bench.take(FIRST))
        await asyncio.sleep(0.05)
        await bench.keeper.open(FIRST.uid)
        await bench.take(SECOND)
        with pytest.raises(DomainError, match="ended"):
            await first

        assert "second" == bench.owner

    told(story(), loop)
