"""Questions over a real NATS server: answered, refused, or an error that says so at once."""

import asyncio
import json
import time
from importlib.metadata import version

import pytest
from hami_kit.bus import Bus, Endpoint, NotMine
from hami_kit.errors import BadMessage, BusTimeout, BusUnavailable, NoResponders, PayloadTooLarge
from hami_model.bus import subjects
from hami_model.bus.messages import (
    AskQuota,
    BindAnswer,
    BindPod,
    Confirm,
    Done,
    Heartbeat,
    NodeAnswer,
    QuotaAllowed,
    QuotaAnswer,
    QuotaNeed,
    Refused,
)
from hami_model.objects import PodRef
from hami_testkit.nats import NatsServer, nats_running
from nats.aio.client import Client

from .conftest import DEADLINE, a_bus, until

POD = PodRef("default", "p0", "uid-0")
A_BIND = BindPod(pod=POD, node="node-a")
A_QUOTA = AskQuota(namespace="default", needs=[QuotaNeed(vendor="GPU", memory=1, cores=1)])


async def done(_message: BindPod) -> Done:
    return Done()


def bind_endpoint(handler: object = done) -> Endpoint:
    return Endpoint("bind", subjects.BIND, BindPod, handler)  # type: ignore[arg-type]


async def ask_raw(server: NatsServer, subject: str, data: bytes) -> dict[str, object]:
    """Ask as a foreign client does, with whatever bytes."""
    client = Client()
    await client.connect(server.url)
    try:
        answer: dict[str, object] = json.loads((await client.request(subject, data, timeout=5)).data)
    finally:
        await client.close()
    return answer


async def test_a_question_is_answered(bus: Bus) -> None:
    """The handler gets the message, the asker its answer, as one of the types it named."""
    heard = []

    async def bind(message: BindPod) -> Done:
        heard.append(message)
        return Done()

    await bus.serve("allocator", [bind_endpoint(bind)])
    answer = await bus.request(subjects.BIND, A_BIND, BindAnswer, timeout=5)

    assert (Done(), [A_BIND]) == (answer, heard)


async def test_nobody_serving_is_said_at_once(bus: Bus) -> None:
    """The asker does not wait for its deadline when no leader is there."""
    began = time.monotonic()
    with pytest.raises(NoResponders, match=r"hami\.v1\.allocator\.bind: nobody serves it") as caught:
        await bus.request(subjects.BIND, A_BIND, BindAnswer, timeout=30)

    assert caught.value.retriable
    assert time.monotonic() - began < 5


async def test_a_handler_that_takes_too_long_is_a_timeout(bus: Bus) -> None:
    """It may have been carried out, hence another error than for nobody there."""
    never = asyncio.Event()

    async def bind(_message: BindPod) -> Done:
        await never.wait()
        return Done()

    await bus.serve("allocator", [bind_endpoint(bind)])
    with pytest.raises(BusTimeout, match=r"no answer within 0\.05 s"):
        await bus.request(subjects.BIND, A_BIND, BindAnswer, timeout=0.05)


async def test_questions_of_one_endpoint_are_worked_on_at_the_same_time(bus: Bus) -> None:
    """A bind that waits for the API server does not hold up the next one."""
    together = asyncio.Barrier(3)

    async def bind(_message: BindPod) -> Done:
        await together.wait()
        return Done()

    await bus.serve("allocator", [bind_endpoint(bind)])
    answers = await asyncio.gather(*(bus.request(subjects.BIND, A_BIND, BindAnswer, timeout=5) for _ in range(3)))

    assert [Done()] * 3 == answers


async def test_a_malformed_question_is_refused_by_the_field(nats: NatsServer, bus: Bus) -> None:
    """The sender learns which field is wrong; the next question is answered as ever."""
    await bus.serve("allocator", [bind_endpoint()])

    wrong = b'{"type":"bind_pod.v1","pod":{"namespace":"d","name":"p","uid":7},"node":"n"}'
    answer = await ask_raw(nats, subjects.BIND, wrong)

    assert "refused.v1" == answer["type"]
    assert "$.pod.uid" in str(answer["error"])
    assert 1 == bus.statistics().malformed
    assert Done() == await bus.request(subjects.BIND, A_BIND, BindAnswer, timeout=5)


@pytest.mark.parametrize("data", [b"", b"\xff\xfe", b"[]", b'{"type":"bind_pod.v9"}', b'{"type":"bind_pod.v1"}'])
async def test_whatever_bytes_come_the_service_lives(nats: NatsServer, bus: Bus, data: bytes) -> None:
    """No message takes a service down."""
    await bus.serve("allocator", [bind_endpoint()])

    assert "refused.v1" == (await ask_raw(nats, subjects.BIND, data))["type"]
    assert Done() == await bus.request(subjects.BIND, A_BIND, BindAnswer, timeout=5)


async def test_an_exception_in_a_handler_becomes_a_refusal(bus: Bus, caplog: pytest.LogCaptureFixture) -> None:
    """It is logged once and answered; a boundary's error keeps saying whether asking again helps."""
    errors: list[Exception] = [RuntimeError("the books are open"), NoResponders("nobody there")]

    async def bind(_message: BindPod) -> Done:
        raise errors.pop(0)

    await bus.serve("allocator", [bind_endpoint(bind)])
    first = await bus.request(subjects.BIND, A_BIND, BindAnswer, timeout=5)
    second = await bus.request(subjects.BIND, A_BIND, BindAnswer, timeout=5)

    assert isinstance(first, Refused)
    assert isinstance(second, Refused)
    assert "the books are open" in first.error
    assert (False, True) == (first.retriable, second.retriable)
    assert 2 == len([r for r in caplog.records if "the handler failed" in r.message])


async def test_an_answer_of_another_kind_is_a_bad_message(bus: Bus) -> None:
    """A peer that answers something else is not believed; its refusal is passed on in words."""
    replies: list[object] = [QuotaAllowed(), Refused(error="not now")]

    async def bind(_message: BindPod) -> object:
        return replies.pop(0)

    await bus.serve("allocator", [bind_endpoint(bind)])
    with pytest.raises(BadMessage, match="the answer cannot be read"):
        await bus.request(subjects.BIND, A_BIND, BindAnswer, timeout=5)
    with pytest.raises(BadMessage, match="not now"):
        await bus.request(subjects.BIND, A_BIND, Done, timeout=5)


async def test_a_message_too_large_is_one_clear_error(nats: NatsServer, bus: Bus) -> None:
    """It never reaches NATS, which would cut the connection for it."""
    huge = BindPod(pod=POD, node="n" * (subjects.MAX_PAYLOAD + 1))
    with pytest.raises(PayloadTooLarge, match=r"has \d+ bytes, the bus carries 8388608; ask for less"):
        await bus.request(subjects.BIND, huge, BindAnswer, timeout=5)
    with pytest.raises(PayloadTooLarge):
        await bus.publish(subjects.BIND, huge)

    assert bus.is_connected
    assert nats.url


async def test_eight_megabytes_go_through(bus: Bus) -> None:
    """What fits the limit arrives, a page of a big fleet for example."""
    size = subjects.MAX_PAYLOAD - 1000

    async def bind(message: BindPod) -> Refused:
        return Refused(error=message.node)

    await bus.serve("allocator", [bind_endpoint(bind)])
    answer = await bus.request(subjects.BIND, BindPod(pod=POD, node="n" * size), BindAnswer, timeout=10)

    assert size == len(answer.error)


async def test_an_answer_too_large_is_refused_in_words() -> None:
    """The asker learns the size instead of waiting for an answer that cannot come; the server's own limit counts."""

    async def bind(_message: BindPod) -> Refused:
        return Refused(error="n" * 200_000)

    async with nats_running(max_payload=100_000) as server, a_bus(server.url) as bus:
        await bus.wait_connected()
        await bus.serve("allocator", [bind_endpoint(bind)])
        answer = await bus.request(subjects.BIND, A_BIND, BindAnswer, timeout=5)

    assert isinstance(answer, Refused)
    assert "the bus carries 100000; ask for less at a time" in answer.error


async def test_a_node_speaks_for_itself_only(bus: Bus) -> None:
    """NATS rights guard the subject, so a message that names another node is refused."""
    confirmed = []

    async def confirm(message: Confirm) -> Done:
        confirmed.append(message.node)
        return Done()

    await bus.serve("allocator", [Endpoint("confirm", subjects.of_any_node("confirm"), Confirm, confirm)])
    own = Confirm(node="gpu.a", pod=POD, container="main", devices=["GPU-1"])
    honest = await bus.request(subjects.of_node("gpu.a", "confirm"), own, NodeAnswer, timeout=5)
    forged = await bus.request(subjects.of_node("gpu.b", "confirm"), own, NodeAnswer, timeout=5)

    assert Done() == honest
    assert isinstance(forged, Refused)
    assert "only gpu.b may speak there" in forged.error
    assert ["gpu.a"] == confirmed


async def test_published_messages_reach_who_listens(nats: NatsServer, bus: Bus) -> None:
    """In order, by pattern; a malformed one is counted, told to the hook and dropped."""
    heard: asyncio.Queue[tuple[str, int]] = asyncio.Queue()

    async def on_heartbeat(subject: str, message: Heartbeat) -> None:
        await heard.put((subjects.node_of(subject), len(message.unhealthy)))

    await bus.subscribe(subjects.of_any_node("heartbeat"), Heartbeat, on_heartbeat)
    subject = subjects.of_node("n.1", "heartbeat")
    async with a_bus(nats.url) as other:
        await other.wait_connected()
        for number in range(3):
            beat = Heartbeat(node="n.1", agent="a", digest="d", unhealthy=["x"] * number)
            await other.publish(subject, beat)
        await other.publish(subject, Done())
        async with asyncio.timeout(DEADLINE):
            assert [("n.1", 0), ("n.1", 1), ("n.1", 2)] == [await heard.get() for _ in range(3)]
        await until(lambda: bus.statistics().malformed == 1)


async def test_a_stopped_service_takes_no_more_but_finishes_its_work(bus: Bus) -> None:
    """A leader that steps down answers what it has begun; then nobody serves."""
    began, go_on = asyncio.Event(), asyncio.Event()

    async def bind(_message: BindPod) -> Done:
        began.set()
        await go_on.wait()
        return Done()

    serving = await bus.serve("allocator", [bind_endpoint(bind)])
    async with asyncio.TaskGroup() as tasks:
        asked = tasks.create_task(bus.request(subjects.BIND, A_BIND, BindAnswer, timeout=10))
        await began.wait()
        stopping = tasks.create_task(serving.stop())
        await until(lambda: _nobody_serves(bus))
        assert not stopping.done()
        go_on.set()

    assert Done() == asked.result()


async def _nobody_serves(bus: Bus) -> bool:
    try:
        await bus.request(subjects.BIND, A_BIND, BindAnswer, timeout=0.5)
    except NoResponders:
        return True
    except BusTimeout:
        return False
    return False


async def test_the_services_show_in_nats_micro(nats: NatsServer, bus: Bus) -> None:
    """``nats micro ls`` and ``stats`` see the service, its endpoints, and how many requests went wrong."""

    async def allow(_message: AskQuota) -> QuotaAllowed:
        return QuotaAllowed()

    await bus.serve("hami-allocator", [bind_endpoint(), Endpoint("quota", subjects.QUOTA, AskQuota, allow)])
    assert QuotaAllowed() == await bus.request(subjects.QUOTA, A_QUOTA, QuotaAnswer, timeout=5)
    await ask_raw(nats, subjects.QUOTA, b"nonsense")

    assert "hami-allocator" == (await ask_raw(nats, "$SRV.PING", b""))["name"]
    stats = await ask_raw(nats, "$SRV.STATS.hami-allocator", b"")
    endpoints = stats["endpoints"]
    assert isinstance(endpoints, list)
    quota = next(e for e in endpoints if e["name"] == "quota")
    assert (subjects.QUOTA, 2, 1) == (quota["subject"], quota["num_requests"], quota["num_errors"])
    assert quota["processing_time"] > 0


async def test_without_nats_every_call_fails_at_once() -> None:
    """A service starts without NATS; what it asks fails with a sentence, and the end of its block does not hang."""
    async with nats_running() as server:
        await server.stop()
        async with a_bus(server.url) as bus:
            with pytest.raises(BusUnavailable, match="there is no connection to NATS at nats://"):
                await bus.request(subjects.BIND, A_BIND, BindAnswer, timeout=30)
            with pytest.raises(BusUnavailable):
                await bus.publish(subjects.BIND, A_BIND)
            assert not bus.is_connected


async def test_a_roll_call(nats: NatsServer, bus: Bus) -> None:
    """Everybody who serves says name and version, also who has no question to answer."""
    await bus.serve("hami-webhook", ())
    await bus.serve("hami-allocator", ())
    async with a_bus(nats.url) as other:
        await other.wait_connected()
        await other.serve("hami-allocator", ())
        found = await bus.roll_call(seconds=0.5)

    assert ["hami-allocator", "hami-allocator", "hami-webhook"] == sorted(one.name for one in found)
    assert {version("hami-kit")} == {one.version for one in found}
    assert 3 == len({one.id for one in found})


async def test_a_question_that_all_hear_is_answered_by_the_one_it_is_for(nats: NatsServer, bus: Bus) -> None:
    """One of the others hangs, one leaves it alone: neither swallows a question, as they would taking turns."""

    async def hang(_message: BindPod) -> Done:
        await asyncio.Event().wait()
        return Done()

    async def leave_alone(_message: BindPod) -> Done:
        raise NotMine

    question = BindPod(pod=PodRef("team-a", "p", "uid"), node="node-1")
    async with a_bus(nats.url) as second, a_bus(nats.url) as third:
        for one, handler in ((bus, hang), (second, leave_alone), (third, done)):
            await one.wait_connected()
            await one.serve("allocator", [Endpoint("bind", subjects.BIND, BindPod, handler, shared=False)])
        answers = [await bus.request(subjects.BIND, question, Done, timeout=5) for _ in range(10)]

        assert [Done()] * 10 == answers
        assert 0 == second.statistics().failed


async def test_whoever_serves_is_known_to_nats_when_that_is_said() -> None:
    """A question asked right then would reach everybody but the one it is for."""
    lines: list[bytes] = []

    async def play_nats(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b'INFO {"server_id":"a","version":"2.11.0","max_payload":1048576,"headers":true}\r\n')
        async for line in reader:
            lines.append(line.split()[0])
            if line == b"PING\r\n":
                writer.write(b"PONG\r\n")
        writer.close()

    async with await asyncio.start_server(play_nats, "127.0.0.1", 0) as server:
        host, port = server.sockets[0].getsockname()
        async with a_bus(f"nats://{host}:{port}", ping_interval=60.0) as bus:
            await bus.wait_connected()
            lines.clear()
            await bus.serve("allocator", [Endpoint("bind", subjects.BIND, BindPod, done)])
            told = [line for line in lines if line in (b"SUB", b"PING")]

    assert b"PING" == told[-1]
