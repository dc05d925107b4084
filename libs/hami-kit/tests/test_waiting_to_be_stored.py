"""Events that wait: in order, bounded, and where some are missing a gap says how many."""

import asyncio
from collections.abc import Sequence

import msgspec
from hami_kit.bus.backlog import MOST_BYTES, WIDEST, Backlog, Letter
from hami_kit.bus.outbox import Outbox
from hami_kit.errors import BusUnavailable, PayloadTooLarge
from hami_model.bus.events import CloudEvent
from hami_testkit.clock import FakeClock
from hypothesis import given
from hypothesis import strategies as st

from .conftest import DEADLINE, an_event


def told(letters: Sequence[Letter]) -> list[str | int]:
    """Return the ids of events, and of gaps the number of those that are missing."""
    return [letter.lost or letter.message_id for letter in letters]


class MemoryStore:
    """Keeps events, or refuses while it is shut."""

    def __init__(self) -> None:
        self.stored: list[Letter] = []
        self.refusals = 0
        self.unfit: set[str] = set()
        self.open = asyncio.Event()
        self.open.set()
        self.calls = 0

    async def store(self, letters: Sequence[Letter]) -> int:
        self.calls += 1
        await self.open.wait()
        if self.refusals > 0:
            self.refusals -= 1
            raise BusUnavailable("HAMI_EVENTS: the event was not stored")
        if letters[0].message_id in self.unfit:
            raise PayloadTooLarge("HAMI_EVENTS: the event is too large")
        fit = [letter for letter in letters if letter.message_id not in self.unfit]
        count = len(fit) if fit == list(letters) else 1
        self.stored += letters[:count]
        return count


async def stored_by(store: MemoryStore, *, events: int, limit: int = 10_000) -> Outbox:
    """Return the outbox after it stored so many events, put at once, as far as it can."""
    outbox = Outbox(store, limit=limit, clock=FakeClock())
    running = asyncio.create_task(outbox.run())
    for number in range(events):
        outbox.put(an_event(number))
    await outbox.wait_empty(timeout=DEADLINE)
    running.cancel()
    return outbox


async def test_what_happens_together_travels_together() -> None:
    """A hundred events do not wait for each other's acknowledgement."""
    store = MemoryStore()
    outbox = await stored_by(store, events=100)

    assert [str(number) for number in range(100)] == told(store.stored)
    assert (2, 100) == (store.calls, outbox.sent)


async def test_refusals_are_tried_again_in_order() -> None:
    """An event that is not stored stays the next one."""
    store = MemoryStore()
    store.refusals = 2
    await stored_by(store, events=3)

    assert ["0", "1", "2"] == told(store.stored)


async def test_the_oldest_go_first_and_a_gap_tells_how_many() -> None:
    """Where more wait than fit, what is stored says that something is missing, and the newest are kept."""
    store = MemoryStore()
    outbox = await stored_by(store, events=5, limit=3)

    assert [2, "2", "3", "4"] == told(store.stored)
    assert (2, 0) == (outbox.lost, outbox.waiting)
    gap = msgspec.json.decode(store.stored[0].data, type=CloudEvent)
    assert ("io.hami.gap.v1", "t", {"lost": 2}) == (gap.type, gap.source, gap.data)


async def test_one_event_that_no_stream_takes_holds_up_no_other() -> None:
    """It is lost, and a gap stands in its place."""
    store = MemoryStore()
    store.unfit = {"1"}
    outbox = await stored_by(store, events=3)

    assert ["0", 1, "2"] == told(store.stored)
    assert 1 == outbox.lost


def test_what_was_under_way_is_not_dropped() -> None:
    """It may be stored already; the gap stands behind it, where the events are missing."""
    backlog = Backlog(limit=3, clock=FakeClock())
    for number in range(2):
        backlog.put(an_event(number))
    backlog.window()
    for number in range(2, 6):
        backlog.put(an_event(number))

    assert ["0", "1", 3, "5"] == told(backlog.window())


def test_more_lost_while_a_gap_is_under_way_is_another_gap() -> None:
    """No loss goes untold, and none is told twice."""
    backlog = Backlog(limit=2, clock=FakeClock())
    for number in range(3):
        backlog.put(an_event(number))
    assert [1, "1", "2"] == told(backlog.window())
    for number in range(3, 6):
        backlog.put(an_event(number))

    assert [1, "1", "2", 3] == told(backlog.window())
    assert 4 == backlog.lost


def test_a_gap_is_told_also_when_nothing_comes_after_it() -> None:
    """The last event of all may be the one that is missing."""
    backlog = Backlog(limit=1, clock=FakeClock())
    backlog.put(an_event(0))
    backlog.window()
    backlog.put(an_event(1))
    backlog.stored(1)

    assert not backlog.is_empty
    assert [1] == told(backlog.window())


def test_memory_is_bounded_in_bytes_too() -> None:
    """Ten thousand long stories are not ten thousand short ones."""
    backlog = Backlog(limit=10_000, clock=FakeClock())
    story = {"refused": "x" * (MOST_BYTES // 10)}
    for number in range(25):
        backlog.put(msgspec.structs.replace(an_event(number), data=story))

    assert [16, *map(str, range(16, 25))] == told(backlog.window())


class Stream:
    """A stream as JetStream keeps it: each message id once."""

    def __init__(self) -> None:
        self.letters: list[Letter] = []

    def store(self, letters: Sequence[Letter]) -> None:
        known = {letter.message_id for letter in self.letters}
        self.letters += [letter for letter in letters if letter.message_id not in known]


PUTS = st.integers(min_value=1, max_value=100)
OUTCOMES = st.tuples(st.integers(min_value=0, max_value=WIDEST), st.integers(min_value=0, max_value=WIDEST))
"""How many of a window are stored, and of how many of those we hear."""


@given(limit=st.integers(min_value=1, max_value=150), history=st.lists(PUTS | OUTCOMES), unfit=st.sets(PUTS))
def test_a_stream_tells_all_events_once_in_order_or_how_many_are_missing(
    limit: int, history: list[int | tuple[int, int]], unfit: set[int]
) -> None:
    """Whatever is refused, stored unheard, dropped or too large: whoever reads the stream knows what is missing."""
    backlog, stream, emitted = Backlog(limit=limit, clock=FakeClock()), Stream(), 0

    def attempt(stored: int, heard: int) -> None:
        window = backlog.window()
        fit = next((n for n, letter in enumerate(window) if letter.message_id in map(str, unfit)), len(window))
        stored = min(stored, fit)
        stream.store(window[:stored])
        if min(stored, heard):
            backlog.stored(min(stored, heard))
            return
        backlog.not_stored()
        if window and not fit:
            backlog.never_stored()

    for step in history:
        if isinstance(step, int):
            for _ in range(step):
                backlog.put(an_event(emitted))
                emitted += 1
        else:
            attempt(*step)
        assert len(backlog) <= max(limit + 1, WIDEST)
    while not backlog.is_empty:
        attempt(WIDEST, WIDEST)

    reached = 0
    for letter in stream.letters:
        assert letter.lost or letter.message_id == str(reached)
        reached += letter.lost or 1
    assert emitted == reached
    assert backlog.lost == sum(letter.lost for letter in stream.letters)
