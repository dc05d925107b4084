"""JetStream takes no events: pods are placed and bound as ever, and what happened is told when it can be."""

from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from hami_model.bus import subjects
from hami_model.bus.events import CloudEvent
from hami_model.bus.messages import Done, Placed
from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.js.api import DiscardPolicy, StreamConfig

from .allocator_bench import Bench, a_bench, a_node, a_pod, until_async

PODS = 20


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    """One node that our agent serves."""
    async with a_bench(tmp_path, [a_node("agent-1")]) as made:
        yield made


@pytest.fixture
async def jetstream(bench: Bench) -> AsyncIterator[JetStreamContext]:
    """Somebody else who may do anything to the stream."""
    client = Client()
    await client.connect(bench.nats.url)
    yield client.jetstream()
    await client.close()


def a_stream(most: int) -> StreamConfig:
    """Return the event stream as an administrator may have made it: it refuses what it has no room for."""
    return StreamConfig(
        name=subjects.EVENTS_STREAM,
        subjects=[subjects.ALL_EVENTS],
        max_msgs=most,
        discard=DiscardPolicy.NEW,
        duplicate_window=120,
    )


async def told(jetstream: JetStreamContext) -> list[CloudEvent]:
    """Return the stream's events about pods, in its order."""
    state = (await jetstream.stream_info(subjects.EVENTS_STREAM)).state
    numbers = range(state.first_seq, state.last_seq + 1)
    found = [await jetstream.get_msg(subjects.EVENTS_STREAM, number) for number in numbers]
    events = [msgspec.json.decode(message.data or b"", type=CloudEvent) for message in found]
    return [event for event in events if event.subject.startswith("team-a/")]


async def test_pods_are_bound_while_the_stream_is_full(bench: Bench, jetstream: JetStreamContext) -> None:
    """Nobody who asks notices; when there is room the whole story stands in the stream, once and in its order."""
    await jetstream.add_stream(a_stream(1))
    await jetstream.publish(subjects.event("gap"), b"somebody else's")
    async with bench.allocator():
        await bench.register("agent-1", 4)
        for number in range(PODS):
            pod = await bench.create_pod(a_pod(f"p{number}", mem=500))
            assert Placed(node="agent-1") == await bench.filter(f"p{number}", ["agent-1"])
            assert Done() == await bench.bind(pod, "agent-1")
        assert 1 == (await jetstream.stream_info(subjects.EVENTS_STREAM)).state.messages

        await jetstream.update_stream(a_stream(10_000))
        await jetstream.purge_stream(subjects.EVENTS_STREAM)

        async def all_told() -> bool:
            return len(await told(jetstream)) == 2 * PODS

        await until_async(all_told)
        story = [(event.subject, event.type.split(".")[2]) for event in await told(jetstream)]

    assert [(f"team-a/p{n}", kind) for n in range(PODS) for kind in ("reserved", "bound")] == story
