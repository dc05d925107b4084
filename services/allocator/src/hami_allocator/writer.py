"""The single writer: opens one letter after another; the whole concurrency model of the allocator.

One rule: a letter's work is plain code that cannot wait. What takes time (the API server, the bus) runs beside and
comes back as another letter.
"""

import asyncio
from collections.abc import Callable
from typing import TypeVar

from hami_allocator.mailbox import Letter, Mailbox, Urgency

R = TypeVar("R")


class Writer:
    """Runs everything that reads or changes the books, in order."""

    def __init__(self) -> None:
        self._mailbox = Mailbox()
        self._asked_at = float("-inf")

    @property
    def waiting(self) -> int:
        """Count the letters not opened yet."""
        return len(self._mailbox)

    def is_busy(self, seconds: float) -> bool:
        """Say whether a decision was asked for within the last seconds."""
        return asyncio.get_running_loop().time() - self._asked_at < seconds

    async def ask(self, work: Callable[[], R], *, urgency: Urgency = Urgency.WORK) -> R:
        """Have the work done in its turn and return its answer, or raise what it raised."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[R] = loop.create_future()
        if urgency is Urgency.DECISION:
            self._asked_at = loop.time()
        self._mailbox.post(Letter(work, answer), urgency)
        return await answer

    def tell(self, work: Callable[[], None], *, urgency: Urgency = Urgency.NEWS) -> None:
        """Have the work done in its turn; nobody waits for it."""
        self._mailbox.post(Letter(work, None), urgency)

    async def wait_caught_up(self) -> None:
        """Wait until everything told before now has been attended to."""
        await self.ask(lambda: None, urgency=Urgency.NEWS)

    async def run(self) -> None:
        """Open letters for ever; between two, let the network bring what may be more urgent."""
        while True:
            letter = await self._mailbox.next()
            letter.open()
            await asyncio.sleep(0)
