"""NATS goes and comes back: everything that listened listens again, and who must know learns in time."""

import asyncio
import time
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from hami_kit.bus import Bus, BusSettings, Endpoint, connect
from hami_kit.bus.link import leave
from hami_kit.errors import BoundaryError, BusTimeout, NoResponders, SettingsError
from hami_kit.telemetry import Telemetry
from hami_model.bus import subjects
from hami_model.bus.messages import BindAnswer, BindPod, Done, Leading
from hami_model.objects import PodRef
from hami_testkit.nats import NatsServer, nats_running
from nats.aio.client import Client

from .certificates import a_certificate
from .conftest import DEADLINE, a_bus, until
from .nats_trust import a_trust

A_BIND = BindPod(pod=PodRef("default", "p0", "uid-0"), node="node-a")
LEADING = Leading(term="t", identity="i")


async def done(_message: BindPod) -> Done:
    return Done()


async def is_answered(bus: Bus) -> bool:
    try:
        return Done() == await bus.request(subjects.BIND, A_BIND, BindAnswer, timeout=1)
    except BoundaryError:
        return False


async def is_unheard(bus: Bus) -> bool:
    """Say whether not even the server answers, as it does where nobody serves."""
    try:
        await bus.request(subjects.BIND, A_BIND, BindAnswer, timeout=0.5)
    except NoResponders:
        return False
    except BusTimeout:
        return True
    return False


async def test_a_bus_ends_whenever_it_is_told_to(nats: NatsServer) -> None:
    """Also in the moment in which it connects, where the library may not notice that it is cancelled."""
    for ticks in range(12):
        async with asyncio.timeout(DEADLINE), connect(BusSettings(url=nats.url), name="test", telemetry=Telemetry()):
            for _ in range(ticks):
                await asyncio.sleep(0)


async def test_what_the_block_raises_leaves_as_it_is(nats: NatsServer) -> None:
    """Whoever opened the bus catches errors, not groups of them."""
    with pytest.raises(LookupError):
        async with connect(BusSettings(url=nats.url), name="test", telemetry=Telemetry()):
            raise LookupError


class Ear:
    """Counts what it hears."""

    def __init__(self) -> None:
        self.count = 0

    async def hear(self, _subject: str, _message: Leading) -> None:
        self.count += 1


async def test_a_password_in_the_url_is_told_to_nobody(caplog: pytest.LogCaptureFixture) -> None:
    """Neither the log, nor an error that ends in a pod's events, nor the sentence about a wrong URL has it."""
    async with nats_running() as server:
        await server.stop()
        address = server.url.removeprefix("nats://")
        async with a_bus(f"nats://me:secret@{address},token@{address}") as bus:
            with pytest.raises(BoundaryError) as unanswered:
                await bus.request(subjects.BIND, A_BIND, BindAnswer, timeout=1)
            await until(lambda: bool(caplog.messages))
    with pytest.raises(SettingsError) as refused:
        async with a_bus("ftp://me:secret@nats"):
            pass

    assert f"there is no connection to NATS at nats://{address},{address}; it is being tried again" == str(
        unanswered.value
    )
    assert [f"NATS at nats://{address},{address}: "] == [m.partition("Conn")[0] for m in caplog.messages]
    assert caplog.messages[0].endswith("; trying again")
    assert 'HAMI_NATS_URL: "ftp://nats" is no NATS server' in str(refused.value)


async def test_after_a_restart_of_nats_everything_listens_again(nats: NatsServer, bus: Bus) -> None:
    """Endpoints answer and subscriptions hear, once each, without anybody doing anything."""
    ear = Ear()
    await bus.serve("allocator", [Endpoint("bind", subjects.BIND, BindPod, done)])
    await bus.subscribe(subjects.LEADER, Leading, ear.hear)

    await nats.stop()
    await until(lambda: not bus.is_connected)
    await nats.start()
    await until(lambda: is_answered(bus))
    await bus.publish(subjects.LEADER, LEADING)
    await until(lambda: ear.count > 0)
    assert await is_answered(bus)

    assert 1 == ear.count
    assert bus.statistics().reconnects >= 1


async def test_who_listens_before_nats_is_there_is_heard_of_later() -> None:
    """A service may start first: its endpoints come up with the first connection."""
    async with nats_running() as server:
        await server.stop()
        async with a_bus(server.url) as bus:
            await bus.serve("allocator", [Endpoint("bind", subjects.BIND, BindPod, done)])
            await server.start()
            await until(lambda: is_answered(bus))


async def test_a_connection_that_the_server_closes_for_good_is_made_anew() -> None:
    """Some errors end nats-py's own efforts, such as a server that takes no more connections; ours go on."""
    async with nats_running(more="max_connections: 1") as server, AsyncExitStack() as stack:
        first = AsyncExitStack()
        taker = await first.enter_async_context(a_bus(server.url))
        await taker.wait_connected()
        second = await stack.enter_async_context(a_bus(server.url))
        await second.serve("allocator", [Endpoint("bind", subjects.BIND, BindPod, done)])
        assert not await is_answered(second)
        await first.aclose()
        await until(lambda: is_answered(second))


async def test_silence_is_noticed_in_time(nats: NatsServer, bus: Bus) -> None:
    """A server that hangs with open connections counts as lost after the seconds that the leader allows."""
    nats.freeze()
    began = time.monotonic()
    async with asyncio.timeout(DEADLINE):
        await bus.wait_disconnected(1.0)

    assert 0.5 < time.monotonic() - began < 5
    nats.thaw()
    await until(lambda: bus.is_connected)


async def test_who_begins_to_listen_while_nats_stands_still_is_heard_of_later(nats: NatsServer) -> None:
    """A follower may begin to serve in that very moment: it is no failure, and NATS knows once it goes on."""
    ear = Ear()
    async with a_bus(nats.url, ping_interval=60) as bus:
        await bus.wait_connected()
        nats.freeze()
        await until(lambda: is_unheard(bus))
        async with asyncio.timeout(DEADLINE):
            await bus.serve("allocator", [Endpoint("bind", subjects.BIND, BindPod, done)])
            await bus.subscribe(subjects.LEADER, Leading, ear.hear)
        nats.thaw()
        await until(lambda: is_answered(bus))
        await bus.publish(subjects.LEADER, LEADING)
        await until(lambda: ear.count > 0)

    assert 1 == ear.count


async def test_a_live_connection_is_never_taken_for_lost(bus: Bus) -> None:
    """Pongs count as a sign of life, also while nobody says anything."""
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1.5):
            await bus.wait_disconnected(0.9)


async def test_a_server_that_does_not_know_us_is_said(caplog: pytest.LogCaptureFixture) -> None:
    """The log names the trouble, and the service goes on trying; where it gets in, no token is logged."""
    caplog.set_level("INFO")
    async with nats_running(more="authorization { token: secret }") as server:
        async with connect(BusSettings(url=server.url, reconnect_wait=0.05), name="t", telemetry=Telemetry()):
            await until(lambda: "Authorization Violation" in caplog.text)
        async with a_bus(server.url.replace("nats://", "nats://secret@")) as bus, asyncio.timeout(DEADLINE):
            await bus.wait_connected()

    assert f"connected to NATS at {server.url} as test" in caplog.text
    assert "secret" not in caplog.text


async def test_credentials_open_an_account_and_a_ca_the_connection(tmp_path: Path) -> None:
    """HAMI_NATS_CREDS and HAMI_NATS_CA: a server that asks for both takes us, and nobody without them."""
    trust, chain = a_trust(tmp_path), a_certificate(tmp_path, "nats")
    tls = f'tls {{ cert_file: "{chain.cert}", key_file: "{chain.key}" }}'
    async with nats_running(jetstream=False, more=f"{trust.config}\n{tls}") as server:
        async with a_bus(server.url, creds=trust.creds, ca=chain.ca) as bus, asyncio.timeout(DEADLINE):
            await bus.serve("allocator", [Endpoint("bind", subjects.BIND, BindPod, done)])
            await until(lambda: is_answered(bus))
        async with a_bus(server.url, ca=chain.ca) as stranger:
            assert not await is_answered(stranger)


class ABrokenClient(Client):
    """A client whose socket broke under its last writes: closing it tries to write once more."""

    async def close(self) -> None:
        raise BrokenPipeError(32, "Broken pipe")


async def test_a_service_that_stops_after_nats_did_stops_cleanly() -> None:
    """The whole system goes down at once, NATS first: that is no failure of those who stop after it."""
    await leave(ABrokenClient())
