"""The order in which the allocator attends to things: one queue, questions of the scheduler before news of the cluster.

One rule: whoever wants to read or change who holds what writes a letter; letters are opened one at a time.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from enum import IntEnum
from typing import Generic, TypeVar

R = TypeVar("R")


class Urgency(IntEnum):
    """Which letters are opened first. A filter is serial in kube-scheduler: while it waits, nothing else is placed."""

    DECISION = 0
    WORK = 1
    NEWS = 2


class Letter(Generic[R]):
    """Something to do with the books, and where its answer goes."""

    __slots__ = ("answer", "work")

    def __init__(self, work: Callable[[], R], answer: "asyncio.Future[R] | None") -> None:
        self.work = work
        self.answer = answer

    def open(self) -> None:
        """Do the work and deliver its answer; what goes wrong where nobody waits for one is ours to crash on."""
        if self.answer is None:
            self.work()
            return
        if self.answer.done():  # whoever asked has given up: nothing may change behind his back
            return
        try:
            result = self.work()
        except Exception as error:  # the asker decides whose fault it is
            self.answer.set_exception(error)
        else:
            self.answer.set_result(result)


class Mailbox:
    """Letters by urgency, first come first served within each."""

    def __init__(self) -> None:
        self._queues: tuple[deque[Letter[object]], ...] = tuple(deque() for _ in Urgency)
        self._arrived = asyncio.Event()

    def __len__(self) -> int:
        return sum(len(queue) for queue in self._queues)

    def post(self, letter: Letter[R], urgency: Urgency) -> None:
        """Add a letter; it waits behind all of the same or higher urgency."""
        self._queues[urgency].append(letter)  # type: ignore[arg-type]
        self._arrived.set()

    async def next(self) -> Letter[object]:
        """Take the most urgent letter, waiting for one where there is none."""
        while True:
            for queue in self._queues:
                if queue:
                    return queue.popleft()
            self._arrived.clear()
            await self._arrived.wait()
