"""Events that wait to be stored: which are next, and which go where too many wait.

One rule: the events stay in order, and where some are missing a ``gap`` stands, saying how many. The oldest go first,
except those that were under way: they may be stored already. It knows no bus and never waits.
"""

from collections import deque
from collections.abc import Sequence
from itertools import islice

from hami_model.bus import subjects
from hami_model.bus.events import CloudEvent
from msgspec import Struct

from hami_kit.bus import wire
from hami_kit.clock import Clock, rfc3339

WIDEST = 64
"""Events under way side by side."""
MOST_BYTES = 32 * 1024 * 1024
"""Bytes that wait at most: what agents say about a refusal, for one, has no length of its own."""


class Letter(Struct, frozen=True):
    """An event as it travels, encoded when it happened."""

    subject: str
    message_id: str
    data: bytes
    lost: int = 0
    """How many events are missing here, where it is a ``gap``."""


class Backlog:
    """The events that wait; ``sent`` and ``lost`` count those that went, one way or the other."""

    def __init__(self, *, limit: int, clock: Clock) -> None:
        self._limit = limit
        self._clock = clock
        self._letters: deque[Letter] = deque()
        self._bytes = 0
        self._source = ""
        self._tried = 0
        """How many of the first may be stored already."""
        self._dropped = 0
        """How many are missing behind those, and no gap says so yet."""
        self._gaps = 0
        self._width = WIDEST
        self.sent = 0
        self.lost = 0

    def __len__(self) -> int:
        return len(self._letters)

    @property
    def is_empty(self) -> bool:
        """Say whether nothing is left to be stored."""
        return not self._letters and not self._dropped

    @property
    def fills_a_window(self) -> bool:
        """Say whether as many wait as may be under way."""
        return len(self._letters) >= self._width

    def put(self, event: CloudEvent) -> None:
        """Add an event; where too many wait the oldest goes."""
        self._source = event.source
        self._letters.append(letter := _letter(event))
        self._bytes += len(letter.data)
        while self._is_too_full() and len(self._letters) > self._tried:
            self._bytes -= len(self._letters[self._tried].data)
            del self._letters[self._tried]
            self._dropped += 1
            self.lost += 1

    def window(self) -> Sequence[Letter]:
        """Return what is to be stored next, in order."""
        if self._dropped and self._tried < self._width:
            gap, self._dropped = self._gap(self._dropped), 0
            self._letters.insert(self._tried, gap)
            self._bytes += len(gap.data)
        window = tuple(islice(self._letters, self._width))
        self._tried = max(self._tried, len(window))
        return window

    def stored(self, count: int) -> None:
        """Let go the first so many."""
        for _ in range(count):
            self._bytes -= len(self._letters.popleft().data)
        self._tried -= count
        self.sent += count
        self._width = min(2 * self._width, WIDEST)

    def not_stored(self) -> None:
        """Try with the first alone until it goes again."""
        self._width = 1

    def never_stored(self) -> None:
        """Lose the first, which can never be stored."""
        unfit = self._letters[0]
        self.lost += not unfit.lost
        self._letters[0] = gap = self._gap(unfit.lost or 1)
        self._bytes += len(gap.data) - len(unfit.data)

    def _is_too_full(self) -> bool:
        return len(self._letters) > self._limit or self._bytes > MOST_BYTES

    def _gap(self, lost: int) -> Letter:
        self._gaps += 1
        event = CloudEvent(
            id=f"{self._source}-gap-{self._gaps}",
            source=self._source,
            type="io.hami.gap.v1",
            time=rfc3339(self._clock.now()),
            data={"lost": lost},
        )
        return _letter(event, lost=lost)


def _letter(event: CloudEvent, *, lost: int = 0) -> Letter:
    subject = subjects.event(event.type.removeprefix("io.hami.").removesuffix(".v1"))
    return Letter(subject, event.id, wire.encode(event), lost)
