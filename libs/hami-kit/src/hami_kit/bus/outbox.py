"""The outbox: events on their way to JetStream, told at least once and stored once.

One rule: nothing waits for it and nothing fails because of it.
"""

import asyncio
import logging
import random
from collections.abc import Sequence
from typing import Protocol

from hami_model.bus.events import CloudEvent

from hami_kit.bus.backlog import Backlog, Letter
from hami_kit.clock import Clock
from hami_kit.errors import BoundaryError

log = logging.getLogger(__name__)

GATHERING = 0.02
"""Seconds in which events gather before they leave together: one write and one wake-up for many."""
FIRST_PAUSE = 0.25
LONGEST_PAUSE = 10.0


class Store(Protocol):
    """Where events are kept."""

    async def store(self, letters: Sequence[Letter]) -> int:
        """Store events in their order and return how many of the first are stored for certain, at least one.

        Raise BoundaryError where that is not certain of the first; one that is not retriable means this very event.
        """
        ...


class Outbox:
    """Takes events at once and stores them soon."""

    def __init__(self, store: Store, *, limit: int, clock: Clock) -> None:
        self._store = store
        self._backlog = Backlog(limit=limit, clock=clock)
        self._some = asyncio.Event()
        self._none = asyncio.Event()
        self._none.set()

    @property
    def waiting(self) -> int:
        """Return how many events wait."""
        return len(self._backlog)

    @property
    def sent(self) -> int:
        """Return how many events were stored."""
        return self._backlog.sent

    @property
    def lost(self) -> int:
        """Return how many events were dropped."""
        return self._backlog.lost

    def put(self, event: CloudEvent) -> None:
        """Add an event; where the outbox is full the oldest one goes."""
        self._backlog.put(event)
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
            if not self._backlog.fills_a_window:
                await asyncio.sleep(GATHERING)
            try:
                self._backlog.stored(await self._store.store(self._backlog.window()))
            except BoundaryError as e:
                self._failed(e, level=logging.WARNING if pause == FIRST_PAUSE else logging.DEBUG)
                await asyncio.sleep(pause * random.uniform(0.8, 1.2))  # noqa: S311 - spreads retries, guards nothing
                pause = min(2 * pause, LONGEST_PAUSE)
                continue
            pause = FIRST_PAUSE
            if self._backlog.is_empty:
                self._some.clear()
                self._none.set()

    def _failed(self, error: BoundaryError, *, level: int) -> None:
        log.log(level, "%s; %s", error, "trying again" if error.retriable else "it is dropped")
        self._backlog.not_stored()
        if not error.retriable:
            self._backlog.never_stored()
