"""Waiting for the first of several things, and ending the others for sure."""

import asyncio

import pytest
from hami_kit.cancelling import first_of


async def test_what_was_made_for_the_wait_alone_has_ended_with_it() -> None:
    """It had the time to put its things away; a future that somebody else holds goes on."""
    put_away = asyncio.Event()
    others: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def for_ever() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            put_away.set()

    await first_of(for_ever(), asyncio.sleep(0), others)

    assert put_away.is_set()
    assert not others.done()


async def test_whatever_breaks_while_it_waits_is_raised() -> None:
    """Nobody else would hear of it."""

    async def broken() -> None:
        raise OSError("the folder is gone")

    with pytest.raises(OSError, match="the folder is gone"):
        await first_of(broken(), asyncio.Event().wait())


async def test_who_is_cancelled_while_waiting_leaves_nothing_behind() -> None:
    """The waits end with whoever waited."""
    ended = asyncio.Event()

    async def for_ever() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    waiting = asyncio.create_task(first_of(for_ever()))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting

    assert ended.is_set()
