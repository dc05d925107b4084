"""Cancelling tasks for sure, and waiting for the first of several things.

One rule: both return when what they cancelled has ended, and never before.
"""

import asyncio
from collections.abc import Awaitable, Sequence
from typing import Any

AGAIN = 0.5
"""Seconds until a task that was cancelled and goes on is cancelled again."""


async def cancel_until_done(tasks: Sequence[asyncio.Task[Any]]) -> None:
    """Cancel tasks until they end: ``asyncio.wait_for``, which nats-py uses, may swallow one up to Python 3.11."""
    while pending := [task for task in tasks if not task.done()]:
        for task in pending:
            task.cancel()
        await asyncio.wait(pending, timeout=AGAIN)


async def first_of(*waits: Awaitable[object]) -> None:
    """Return when any of these is done; what was made for this wait alone ends with it, and raises here what it raises.

    A future goes on, and keeps what it raised.
    """
    given = {wait for wait in waits if isinstance(wait, asyncio.Future)}
    made = {asyncio.ensure_future(wait) for wait in waits if not isinstance(wait, asyncio.Future)}
    try:
        await asyncio.wait({*given, *made}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        await cancel_until_done([*made])
    for task in made:
        if not task.cancelled():
            task.result()
