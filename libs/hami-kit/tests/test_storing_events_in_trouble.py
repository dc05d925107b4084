"""JetStream slow, full, cut off, gone and back: every event is stored once and in order, or a gap says how many not."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
from hami_kit.bus import Bus, Endpoint
from hami_kit.errors import BusUnavailable
from hami_model.bus import subjects
from hami_model.bus.messages import BindAnswer, BindPod, Done
from hami_model.objects import PodRef
from hami_testkit.nats import NatsServer, nats_running
from msgspec import structs
from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.js.api import DiscardPolicy, StreamConfig

from .conftest import DEADLINE, a_bus, an_event, until
from .slow_wire import slow_wire

STREAM = subjects.EVENTS_STREAM
A_BIND = BindPod(pod=PodRef("default", "p0", "uid-0"), node="node-a")


def numbers(first: int, end: int) -> list[str]:
    return [str(number) for number in range(first, end)]


def emit(bus: Bus, first: int, end: int) -> None:
    for number in range(first, end):
        bus.emit(an_event(number))


async def stored(bus: Bus) -> list[str]:
    """Return the ids in the stream, in its order."""
    return [event.id for event in await bus.recent_events(limit=2000)]


async def wait_stored(bus: Bus, count: int) -> None:
    await until(lambda: bus.statistics().events_sent == count)


async def answers(bus: Bus, count: int) -> int:
    """Ask that many questions and return how many were answered."""
    asked = (bus.request(subjects.BIND, A_BIND, BindAnswer, timeout=5) for _ in range(count))
    return (await asyncio.gather(*asked)).count(Done())


async def done(_message: BindPod) -> Done:
    return Done()


@pytest.fixture
async def jetstream(nats: NatsServer) -> AsyncIterator[JetStreamContext]:
    """Return what somebody else has: an own connection to the same JetStream."""
    client = Client()
    await client.connect(nats.url, max_reconnect_attempts=-1, reconnect_time_wait=0.05)
    yield client.jetstream(timeout=DEADLINE)
    await client.close()


def configured(**settings: object) -> StreamConfig:
    config: dict[str, object] = {"name": STREAM, "subjects": [subjects.ALL_EVENTS], "duplicate_window": 120}
    return StreamConfig(**(config | settings))  # type: ignore[arg-type]


async def test_many_at_once_are_stored_once_and_in_order(bus: Bus) -> None:
    """They do not wait for each other, and still none overtakes another."""
    emit(bus, 0, 500)
    await wait_stored(bus, 500)

    assert numbers(0, 500) == await stored(bus)


async def test_other_writers_come_in_between(bus: Bus, jetstream: JetStreamContext) -> None:
    """At a hand-over two allocators tell: each keeps its own order, and neither holds up the other."""
    emit(bus, 0, 1)
    await wait_stored(bus, 1)

    async def write() -> None:
        while True:
            await jetstream.publish(subjects.event("bound"), b"{}")

    writing = asyncio.create_task(write())
    for first in range(1, 301, 30):
        emit(bus, first, first + 30)
        await wait_stored(bus, first + 30)
    writing.cancel()
    state = (await jetstream.stream_info(STREAM)).state

    assert numbers(0, 301) == await stored_by_us(jetstream)
    assert state.messages > 301


async def stored_by_us(jetstream: JetStreamContext) -> list[str]:
    last = (await jetstream.stream_info(STREAM)).state.last_seq
    found = [(await jetstream.get_msg(STREAM, number)).headers or {} for number in range(1, last + 1)]
    return [headers["Nats-Msg-Id"] for headers in found if "Nats-Msg-Id" in headers]


async def test_a_full_stream_takes_events_when_there_is_room(
    bus: Bus, jetstream: JetStreamContext, caplog: pytest.LogCaptureFixture
) -> None:
    """Where somebody told it to refuse when full: what would still fit does not overtake what does not."""
    await jetstream.add_stream(configured(max_bytes=4000, discard=DiscardPolicy.NEW))
    long = structs.replace(an_event(2), data={"story": "x" * 3900})
    emit(bus, 0, 2)
    bus.emit(long)
    emit(bus, 3, 40)
    await until(lambda: "maximum bytes exceeded" in caplog.text)
    assert numbers(0, 2) == await stored(bus)

    await jetstream.update_stream(configured(max_bytes=1_000_000, discard=DiscardPolicy.NEW))
    await wait_stored(bus, 40)

    assert numbers(0, 40) == await stored(bus)


async def test_a_server_without_room_refuses(caplog: pytest.LogCaptureFixture) -> None:
    """A full disk is said in JetStream's words; answering goes on, and so does telling when there is room again."""
    async with nats_running(file_store="1000") as server, a_bus(server.url) as bus:
        await bus.serve("allocator", [Endpoint("bind", subjects.BIND, BindPod, done)])
        await bus.wait_connected()
        client = Client()
        await client.connect(server.url)
        await client.jetstream().add_stream(configured(max_bytes=-1))
        emit(bus, 0, 20)
        await until(lambda: "insufficient resources" in caplog.text)
        assert 50 == await answers(bus, 50)
        kept = bus.statistics().events_sent
        await client.jetstream().purge_stream(STREAM)
        await client.close()
        await until(lambda: bus.statistics().events_sent > kept)
        there = await stored(bus)

        assert there
        assert numbers(kept, kept + len(there)) == there


async def test_acknowledgements_come_late(nats: NatsServer) -> None:
    """Whoever needs longer than we wait is given longer the next time; nothing is stored twice for that."""
    async with slow_wire(nats.url) as wire, a_bus(wire.url, ack_timeout=0.2, ping_interval=5.0) as bus:
        await bus.wait_connected()
        emit(bus, 0, 1)
        await wait_stored(bus, 1)
        wire.delay = 0.5
        emit(bus, 1, 200)
        await wait_stored(bus, 200)
        wire.delay = 0.0

        assert numbers(0, 200) == await stored(bus)


async def test_the_connection_breaks_again_and_again(nats: NatsServer) -> None:
    """In the middle of many: some are stored whose acknowledgements are lost, and some never arrived."""
    async with slow_wire(nats.url) as wire, a_bus(wire.url, ack_timeout=0.5) as bus:
        await bus.wait_connected()
        for round_ in range(5):
            wire.cut_after = 700 * round_
            emit(bus, 100 * round_, 100 * (round_ + 1))
            await until(lambda cuts=round_ + 1: wire.cuts == cuts)  # type: ignore[misc]
        await wait_stored(bus, 500)

        assert numbers(0, 500) == await stored(bus)


async def test_the_server_hangs_and_goes_on(nats: NatsServer, bus: Bus) -> None:
    """What it read before it hung and what is sent again are the same events."""
    emit(bus, 0, 50)
    nats.freeze()
    emit(bus, 50, 100)
    await until(lambda: not bus.is_connected)
    emit(bus, 100, 200)
    nats.thaw()
    await wait_stored(bus, 200)

    assert numbers(0, 200) == await stored(bus)


async def test_the_server_is_killed_in_the_middle(nats: NatsServer, bus: Bus) -> None:
    """Restarted, it knows what it has stored."""
    emit(bus, 0, 200)
    await until(lambda: bus.statistics().events_sent > 0)
    await nats.stop()
    emit(bus, 200, 400)
    await nats.start()
    await wait_stored(bus, 400)

    assert numbers(0, 400) == await stored(bus)


async def test_the_stream_is_deleted_under_us(bus: Bus, jetstream: JetStreamContext) -> None:
    """It is made again, with what happened since."""
    emit(bus, 0, 10)
    await wait_stored(bus, 10)
    await jetstream.delete_stream(STREAM)
    emit(bus, 10, 100)
    await wait_stored(bus, 100)

    assert numbers(10, 100) == await stored(bus)


@pytest.mark.parametrize(
    ("other", "said"),
    [({"subjects": ["theirs.>"]}, "no stream takes their subjects"), ({"no_ack": True}, "configured with no_ack")],
)
async def test_a_stream_that_somebody_made_otherwise(
    bus: Bus,
    jetstream: JetStreamContext,
    caplog: pytest.LogCaptureFixture,
    other: dict[str, object],
    said: str,
) -> None:
    """It stays as it is; the log says what is wrong with it, and the events wait until it is mended."""
    await jetstream.add_stream(configured(**other))
    emit(bus, 0, 10)
    await until(lambda: said in caplog.text)
    assert (10, 0) == (bus.statistics().events_waiting, bus.statistics().events_sent)
    await jetstream.update_stream(configured())
    await wait_stored(bus, 10)

    assert numbers(0, 10) == await stored(bus)


async def test_one_event_is_larger_than_the_stream_takes(bus: Bus, jetstream: JetStreamContext) -> None:
    """Or than NATS carries at all: a gap stands where it was, and all others are stored."""
    await jetstream.add_stream(configured(max_msg_size=1000))
    emit(bus, 0, 2)
    bus.emit(structs.replace(an_event(2), data={"story": "x" * 2000}))
    emit(bus, 3, 5)
    bus.emit(structs.replace(an_event(5), data={"story": "x" * (subjects.MAX_PAYLOAD - 200)}))
    emit(bus, 6, 8)
    await wait_stored(bus, 8)

    assert ["0", "1", "t-gap-1", "3", "4", "t-gap-2", "6", "7"] == await stored(bus)
    assert (2, 0) == (bus.statistics().events_lost, bus.statistics().reconnects)


async def test_more_happens_than_can_wait(nats: NatsServer) -> None:
    """Memory is bounded; one gap tells how many are missing, where they are missing."""
    async with a_bus(nats.url, outbox_limit=100) as bus:
        await bus.wait_connected()
        await nats.stop()
        await until(lambda: not bus.is_connected)
        emit(bus, 0, 5000)
        assert (100, 4900) == (bus.statistics().events_waiting, bus.statistics().events_lost)
        await nats.start()
        await wait_stored(bus, 101)
        events = await bus.recent_events(limit=2000)

    gaps = [(at, event.data) for at, event in enumerate(events) if event.type == "io.hami.gap.v1"]
    before = gaps[0][0]
    assert [(before, {"lost": 4900})] == gaps
    assert [*numbers(0, before), "t-gap-1", *numbers(4900 + before, 5000)] == [event.id for event in events]


async def test_without_jetstream_questions_are_answered_and_leaving_is_quick() -> None:
    """Nothing can be stored, and nobody notices: neither who asks, nor who stops the service."""
    async with nats_running(jetstream=False) as server:
        async with a_bus(server.url) as bus:
            await bus.wait_connected()
            await bus.serve("allocator", [Endpoint("bind", subjects.BIND, BindPod, done)])
            emit(bus, 0, 20_000)
            assert (10_000, 10_000) == (bus.statistics().events_waiting, bus.statistics().events_lost)

            assert 300 == await answers(bus, 300)
            with pytest.raises(BusUnavailable, match="HAMI_EVENTS cannot be read"):
                await bus.recent_events(limit=10)
            began = time.monotonic()
        assert time.monotonic() - began < 4
