"""Who answers what is only read: followers, and the leader where there is none.

One rule: whoever decides is spared whatever another can answer; an allocator that is alone answers everything.
"""

import asyncio
from collections.abc import Callable

from hami_kit.bus import Bus, Handle
from hami_kit.clock import Clock
from hami_kit.errors import BoundaryError
from hami_model.bus import subjects
from hami_model.bus.messages import Following

from hami_allocator.answers import Answers
from hami_allocator.endpoints import serve_reading

BEAT_EVERY = 1.0
"""Seconds between two words of a follower that it is there."""
SILENCE = 3.0
"""Seconds without one after which the leader answers again."""


class ReadingSide:
    """Answers read-only questions, or leaves them to a follower."""

    def __init__(self, bus: Bus, answers: Answers, clock: Clock, *, identity: str, follows: Callable[[], bool]) -> None:
        self._bus = bus
        self._answers = answers
        self._clock = clock
        self._identity = identity
        self._follows = follows
        self._heard_at = float("-inf")
        self._handle: Handle | None = None

    @property
    def serves(self) -> bool:
        """Say whether questions come here."""
        return self._handle is not None

    async def run(self) -> None:
        """Answer, or see to it that a follower does, until cancelled."""
        beats = await self._bus.subscribe(subjects.FOLLOWER, Following, self._on_beat)
        try:
            while True:
                await self._turn()
                await asyncio.sleep(BEAT_EVERY)
        finally:
            await beats.stop()
            await self._stop()

    async def _on_beat(self, _subject: str, beat: Following) -> None:
        if beat.identity != self._identity:
            self._heard_at = self._clock.monotonic()

    async def _turn(self) -> None:
        follows = self._follows()
        if follows:
            await self._beat()
        if not follows and self._clock.monotonic() - self._heard_at < SILENCE:
            await self._stop()
        elif self._handle is None:
            self._handle = await serve_reading(self._bus, self._answers)

    async def _beat(self) -> None:
        try:
            await self._bus.publish(subjects.FOLLOWER, Following(identity=self._identity))
        except BoundaryError:
            return  # without the bus nobody is asked anything

    async def _stop(self) -> None:
        handle, self._handle = self._handle, None
        if handle is not None:
            await handle.stop()
