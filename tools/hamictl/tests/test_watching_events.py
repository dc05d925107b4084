"""``hamictl events``: what happened lately, and with ``-f`` what happens."""

import asyncio
import json
import signal

import msgspec
from hami_kit.bus import Bus
from hami_model.bus import subjects
from hami_model.bus.events import CloudEvent
from hami_model.bus.messages import Done
from hami_testkit.nats import nats_running

from .conftest import DEADLINE, Prompt

SLICE = {"main": [{"uuid": "GPU-0", "vendor": "NVIDIA", "memory": 3000, "cores": 30}]}


def an_event(number: int, kind: str = "bound", **data: object) -> CloudEvent:
    return CloudEvent(
        id=f"e-{number}",
        source="/hami/allocator/a",
        type=f"io.hami.{kind}.v1",
        time=f"2026-11-24T16:54:{number:02}.000Z",
        subject=f"default/p{number}",
        data=data,
    )


async def store(bus: Bus, *events: CloudEvent) -> None:
    """Tell, as the allocator does, and wait until it is stored."""
    for event in events:
        bus.emit(event)
    async with asyncio.timeout(DEADLINE):
        while not {event.id for event in events} <= {e.id for e in await bus.recent_events(limit=200)}:  # noqa: ASYNC110  asked
            await asyncio.sleep(0.01)


async def test_what_happened_lately_is_shown_and_the_command_ends(prompt: Prompt, bus: Bus) -> None:
    """Time, kind, pod and facts on one line, oldest first."""
    await store(bus, an_event(1, node="gpu-a", devices=SLICE), an_event(2, "rejected", reasons={"CardNotHealth": 2}))

    said = await prompt.hamictl("events")

    assert 0 == said.code
    assert [
        "2026-11-24T16:54:01.000Z  bound  default/p1  node=gpu-a  devices=main:GPU-0(3000MiB,30%)",
        '2026-11-24T16:54:02.000Z  rejected  default/p2  reasons={"CardNotHealth":2}',
    ] == said.out.splitlines()


async def test_programs_get_one_event_a_line(prompt: Prompt, bus: Bus) -> None:
    """CloudEvents 1.0, as they are on the bus."""
    await store(bus, an_event(1, node="gpu-a"), an_event(2))

    first, second = map(json.loads, (await prompt.hamictl("events", "-o", "json")).out.splitlines())

    assert ("e-1", "io.hami.bound.v1", "1.0", {"node": "gpu-a"}) == (
        first["id"], first["type"], first["specversion"], first["data"],
    )  # fmt: skip
    assert "e-2" == second["id"]


async def test_at_most_the_last_hundred_are_shown(prompt: Prompt, bus: Bus) -> None:
    """Who wants all of them reads the stream."""
    await store(bus, *(an_event(number) for number in range(1, 103)))

    lines = (await prompt.hamictl("events")).out.splitlines()

    assert 100 == len(lines)
    assert "default/p3" in lines[0]


async def test_nothing_happened_yet(prompt: Prompt, bus: Bus) -> None:
    """No stream, no events, no error."""
    said = await prompt.hamictl("events")

    assert (0, "", "") == (said.code, said.out, said.err)


async def test_what_is_no_event_is_left_out(prompt: Prompt, bus: Bus) -> None:
    """Somebody else's message in the stream hides none of ours."""
    await store(bus, an_event(1))
    await bus.publish(subjects.event("bound"), Done())
    await store(bus, an_event(2))

    said = await prompt.hamictl("events")

    assert (0, ["default/p1", "default/p2"]) == (said.code, [line.split()[2] for line in said.out.splitlines()])


async def test_following_shows_what_was_and_what_comes_until_interrupted(prompt: Prompt, bus: Bus) -> None:
    """Each event once; Ctrl-C ends it with 130 and without a word."""
    await store(bus, an_event(1))
    async with prompt.process("events", "-f", "-o", "json") as process:
        assert process.stdout is not None
        first = msgspec.json.decode(await process.stdout.readline(), type=CloudEvent)
        bus.emit(an_event(2))
        second = msgspec.json.decode(await process.stdout.readline(), type=CloudEvent)
        process.send_signal(signal.SIGINT)
        rest, err = await process.communicate()

    assert ("e-1", "e-2") == (first.id, second.id)
    assert (130, b"", b"") == (process.returncode, rest, err)


async def test_a_reader_that_has_seen_enough_ends_it(prompt: Prompt, bus: Bus) -> None:
    """As in ``hamictl events -f | head -1``."""
    await store(bus, an_event(1))
    async with prompt.process("events", "--follow") as process:
        assert process.stdout is not None
        await process.stdout.readline()
        process.stdout._transport.close()  # type: ignore[attr-defined]
        while process.returncode is None:
            bus.emit(an_event(2))
            await asyncio.sleep(0.02)
        assert process.stderr is not None
        err = await process.stderr.read()

    assert (0, b"") == (process.returncode, err)


async def test_a_server_without_jetstream_has_no_events_to_show(prompt: Prompt) -> None:
    """One sentence that names the stream."""
    async with nats_running(jetstream=False) as server:
        prompt.export("HAMI_NATS_URL", server.url)
        said = await prompt.hamictl("events")

    assert 1 == said.code
    assert "HAMI_EVENTS cannot be read" in said.sentence
