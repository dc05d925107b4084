"""Bad lines between the players of a storm and the system: confirmations that are lost, an API server that is away.

One rule: what is lost is lost on the way; who speaks and who hears are as they always are.
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
from hami_kit.bus import Bus
from hami_kit.errors import BusTimeout
from hami_testkit.cluster.status import ApiError

log = logging.getLogger(__name__)

AGAIN = 0.3


class LossyBus:
    """A bus on which confirmations can be lost, on their way there or back."""

    def __init__(self, bus: Bus, rng: random.Random) -> None:
        self._bus = bus
        self._rng = rng
        self.loses = False
        self.lost = 0

    async def request(self, subject: str, message: Any, reply_type: Any, *, timeout: float) -> Any:
        """Ask, unless the question is lost; lose the answer otherwise."""
        if not self.loses or not subject.endswith(".confirm"):
            return await self._bus.request(subject, message, reply_type, timeout=timeout)
        self.lost += 1
        if self._rng.random() < 0.5:
            await self._bus.request(subject, message, reply_type, timeout=timeout)
        raise BusTimeout(f"{subject}: lost")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._bus, name)


async def insist(call: Callable[[], Awaitable[Any]]) -> None:
    """Call until the API server has answered; what is there already, or gone already, is well."""
    while True:
        try:
            await call()
        except ApiError as refusal:
            if refusal.code in (404, 409):
                return
            if refusal.code < 500 and refusal.code != 429:
                raise
        except (aiohttp.ClientError, OSError):
            log.debug("the API server is away")
        else:
            return
        await asyncio.sleep(AGAIN)
