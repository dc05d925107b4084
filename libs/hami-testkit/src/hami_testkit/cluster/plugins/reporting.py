"""How a vendor's plugin keeps saying what its node has: at once, and every 30 s, whatever became of the last time."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import aiohttp

from hami_testkit.cluster.status import ApiError

log = logging.getLogger(__name__)

REPORT_EVERY = 30.0
REPORT_AGAIN = 5.0
"""Seconds between two registrations, and after one that failed."""


@asynccontextmanager
async def reporting(report: Callable[[], Awaitable[None]], what: str) -> AsyncIterator[None]:
    """Report for the length of a block; ``what`` is reported, in the log's words."""
    async with asyncio.TaskGroup() as tasks:
        await report()
        work = tasks.create_task(_for_ever(report, what), name=f"register {what}")
        try:
            yield
        finally:
            work.cancel()


async def _for_ever(report: Callable[[], Awaitable[None]], what: str) -> None:
    pause = REPORT_EVERY
    while True:
        await asyncio.sleep(pause)
        pause = REPORT_EVERY
        try:
            await report()
        except (ApiError, aiohttp.ClientError, OSError) as error:
            log.info("%s could not be published: %s", what, error)
            pause = REPORT_AGAIN
