"""Cancelling tasks for sure.

One rule: it returns when they have ended, and never before; what they raised stays with them.
"""

import asyncio
from collections.abc import Sequence
from typing import Any

AGAIN = 0.5
"""Seconds until a task that was cancelled and goes on is cancelled again."""


async def cancel_until_done(tasks: Sequence[asyncio.Task[Any]]) -> None:
    """Cancel tasks until they end: ``asyncio.wait_for``, which nats-py uses, may swallow one up to Python 3.11."""
    while pending := [task for task in tasks if not task.done()]:
        for task in pending:
            task.cancel()
        await asyncio.wait(pending, timeout=AGAIN)
