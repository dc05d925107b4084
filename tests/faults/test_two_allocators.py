"""Two allocators as processes: one leads, the other takes over, and comes and goes by its name."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hami_testkit.stack import Plan, Stack, stack

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
async def system(tmp_path: Path) -> AsyncIterator[Stack]:
    """The services over a stand-in that survives crashes, without nodes."""
    async with stack(Plan(folder=tmp_path, allocators=2, schedules=False, durable=True)) as running:
        yield running


async def test_a_killed_leader_is_followed_within_fifteen_seconds(system: Stack) -> None:
    """Nobody gave the Lease back; the one that crashed comes back as a follower."""
    first = await system.wait_leader()
    await system.kill(first)
    began = time.monotonic()
    second = await system.wait_leader(other_than=first)
    took = time.monotonic() - began
    await system.start(first)

    assert {first, second} == {"allocator", "allocator-2"}
    assert took <= 15
    assert second == await system.leader()


async def test_a_leader_that_is_stopped_hands_over_within_three_seconds(system: Stack) -> None:
    """It finishes what is under way and gives the Lease back."""
    first = await system.wait_leader()
    began = time.monotonic()
    stopping = asyncio.create_task(system.stop(first))
    second = await system.wait_leader(other_than=first)
    took = time.monotonic() - began
    await stopping

    assert second != first
    assert took <= 3


async def test_there_is_a_leader_again_after_nats_and_the_api_server_crashed(system: Stack) -> None:
    """Both come back with what they held; nobody starts the allocators anew."""
    pids = {name: system.process(name).pid for name in system.at.allocators}
    for ground in ("nats", "standin"):
        await system.wait_leader()
        await system.kill(ground)
        await system.start(ground)
    await system.wait_leader()

    assert pids == {name: system.process(name).pid for name in system.at.allocators}
