"""How long to wait before trying again: growing, jittered, bounded."""

import asyncio
import random

from msgspec import Struct


class Backoff(Struct, frozen=True):
    """Waits of ``first`` × 2ⁿ seconds, at most ``most``, each times 0.5 to 1 by chance."""

    first: float = 0.05
    most: float = 3.0

    async def wait(self, attempt: int, *, asked: float | None = None) -> None:
        """Wait before the attempt after this one (counted from 0), at least as long as the server asked for."""
        longest = min(self.most, self.first * 2 ** min(attempt, 16))
        await asyncio.sleep((asked or 0.0) + longest * random.uniform(0.5, 1.0))  # noqa: S311 - spreads retries, guards nothing
