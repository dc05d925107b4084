"""The outbox: events on their way to JetStream, bounded, in order, told at least once and stored once.

One rule: nothing waits for it and nothing fails because of it. Where more wait than fit, the oldest are dropped and a
``gap`` event takes their place, saying how many.
"""

import asyncio
import logging
import random
from collections import deque
from typing import Protocol

from hami_model.bus import subjects
from hami_model.bus.events import CloudEvent
from msgspec import Struct

from hami_kit.clock import Clock, rfc3339
from hami_kit.errors import BoundaryError

log = logging.getLogger(__name__)

FIRST_PAUSE = 0.25
LONGEST_PAUSE = 30.0


class Store(Protocol):
    """Where events are kept."""

    async def store(self, subject: str, message: Struct, *, message_id: str) -> None:
        """Store one event; raise BoundaryError where that is not certain."""
        ...


class Outbox:
    """Events that wait to be stored."""

    def __init__(self, store: Store, *, source: str, limit: int, clock: Clock) -> None:
        self._store = store
        self._source = source
        self._limit = limit
        self._clock = clock
        self._events: deque[CloudEvent] = deque()
        self._dropped = 0
        self._gap: CloudEvent | None = None
        self._gaps = 0
        self._some = asyncio.Event()
        self._none = asyncio.Event()
        self._none.set()
        self.sent = 0
        self.lost = 0

    @property
    def waiting(self) -> int:
        """Return how many events wait."""
        return len(self._events)

    def put(self, event: CloudEvent) -> None:
        """Add an event; where the outbox is full the oldest one goes."""
        if len(self._events) >= self._limit:
            self._events.popleft()
            self._dropped += 1
            self.lost += 1
        self._events.append(event)
        self._some.set()
        self._none.clear()

    async def wait_empty(self, *, timeout: float) -> None:
        """Return when all is stored, or when the time is up."""
        try:
            async with asyncio.timeout(timeout):
                await self._none.wait()
        except TimeoutError:
            log.warning("%d events were not stored", self.waiting)

    async def run(self) -> None:
        """Store events, oldest first, until cancelled."""
        pause = FIRST_PAUSE
        while True:
            await self._some.wait()
            event = self._next()
            try:
                await self._store.store(_subject(event), event, message_id=event.id)
            except BoundaryError as e:
                log.log(logging.WARNING if pause == FIRST_PAUSE else logging.DEBUG, "%s; trying again", e)
                await asyncio.sleep(pause * random.uniform(0.8, 1.2))  # noqa: S311 - spreads retries, guards nothing
                pause = min(2 * pause, LONGEST_PAUSE)
                continue
            pause = FIRST_PAUSE
            self._done(event)

    def _next(self) -> CloudEvent:
        """Return what is to be stored next: after a loss the gap event, else the oldest one."""
        if self._gap is None and self._dropped:
            self._gaps += 1
            now = self._clock.now()
            self._gap = CloudEvent(
                id=f"{self._source}-gap-{now:.6f}-{self._gaps}",
                source=self._source,
                type="io.hami.gap.v1",
                time=rfc3339(now),
                data={"lost": self._dropped},
            )
            self._dropped = 0
        return self._gap or self._events[0]

    def _done(self, event: CloudEvent) -> None:
        self.sent += 1
        if event is self._gap:
            self._gap = None
        elif self._events and self._events[0] is event:
            self._events.popleft()
        if not self._events:
            self._some.clear()
            self._none.set()


def _subject(event: CloudEvent) -> str:
    return subjects.event(event.type.removeprefix("io.hami.").removesuffix(".v1"))
