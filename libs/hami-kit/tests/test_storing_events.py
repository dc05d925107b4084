"""Events on their way to JetStream: stored once and in order, and never in anybody's way."""

import pytest
from hami_kit.bus import Bus, Endpoint
from hami_kit.errors import BusUnavailable
from hami_model.bus import subjects
from hami_model.bus.messages import BindAnswer, BindPod, Done
from hami_model.objects import PodRef
from hami_testkit.nats import NatsServer, nats_running
from nats.aio.client import Client

from .conftest import DEADLINE, a_bus, an_event, until


async def test_events_are_stored_in_order(bus: Bus) -> None:
    """The stream is made when it is not there; each kind has its subject."""
    for number, kind in enumerate(("reserved", "bound", "quota.denied")):
        bus.emit(an_event(number, kind))
    await until(lambda: bus.statistics().events_sent == 3)

    recent = await bus.recent_events(limit=2)
    assert ["io.hami.bound.v1", "io.hami.quota.denied.v1"] == [event.type for event in recent]


@pytest.mark.parametrize("garbage", [b"", b"\xff", b"null", b"[" * 5000, b'{"type": 7}'])
async def test_what_is_no_event_is_passed_over(nats: NatsServer, bus: Bus, garbage: bytes) -> None:
    """Whoever may publish there can put anything into the stream; what was told truly is still read."""
    bus.emit(an_event(1))
    await until(lambda: bus.statistics().events_sent == 1)
    client = Client()
    await client.connect(nats.url)
    await client.jetstream().publish(subjects.event("reserved"), garbage)
    await client.close()
    bus.emit(an_event(2))
    await until(lambda: bus.statistics().events_sent == 2)

    assert ["p1", "p2"] == [event.subject for event in await bus.recent_events(limit=3)]


async def test_the_same_event_twice_is_stored_once(bus: Bus) -> None:
    """A retry after a lost acknowledgement adds nothing: the event's id is the message's."""
    bus.emit(an_event(1))
    bus.emit(an_event(1))
    bus.emit(an_event(2))
    await until(lambda: bus.statistics().events_sent == 3)

    assert ["1", "2"] == [event.id for event in await bus.recent_events(limit=10)]


async def test_no_stream_yet_is_no_events(bus: Bus) -> None:
    """Whoever reads before anything happened gets an empty list."""
    assert [] == await bus.recent_events(limit=10)


async def test_events_wait_for_nats(nats: NatsServer, bus: Bus) -> None:
    """What happens while NATS is away is told when it is back, and survives its restart."""
    bus.emit(an_event(1))
    await until(lambda: bus.statistics().events_sent == 1)
    await nats.stop()
    await until(lambda: not bus.is_connected)
    bus.emit(an_event(2))
    await nats.start()
    await until(lambda: bus.statistics().events_sent == 2)

    assert ["1", "2"] == [event.id for event in await bus.recent_events(limit=10)]


async def test_without_jetstream_everything_else_works() -> None:
    """Events wait, questions are answered, and leaving does not hang."""

    async def done(_message: BindPod) -> Done:
        return Done()

    async with nats_running(jetstream=False) as server, a_bus(server.url) as bus:
        await bus.wait_connected()
        bus.emit(an_event(1))
        await bus.serve("allocator", [Endpoint("bind", subjects.BIND, BindPod, done)])
        question = BindPod(pod=PodRef("default", "p0", "u"), node="n1")

        assert Done() == await bus.request(subjects.BIND, question, BindAnswer, timeout=5)
        assert (1, 0) == (bus.statistics().events_waiting, bus.statistics().events_sent)
        with pytest.raises(BusUnavailable, match="HAMI_EVENTS cannot be read"):
            await bus.recent_events(limit=10)


async def test_events_are_readable_on_the_wire(nats: NatsServer, bus: Bus) -> None:
    """``nats sub 'hami.v1.event.>'`` shows CloudEvents as JSON."""
    client = Client()
    await client.connect(nats.url)
    try:
        subscription = await client.subscribe(subjects.ALL_EVENTS)
        await client.flush()
        bus.emit(an_event(1, "bound"))
        message = await subscription.next_msg(timeout=DEADLINE)
    finally:
        await client.close()

    assert subjects.event("bound") == message.subject
    assert b'"specversion":"1.0"' in message.data
