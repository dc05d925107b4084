"""What the kit's tests share: a real nats-server, a bus on it, and a stand-in API server."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from hami_kit.bus import Bus, BusSettings, connect
from hami_kit.kube import Kube
from hami_kit.telemetry import Telemetry
from hami_model.bus.events import CloudEvent
from hami_testkit.cluster import Standin
from hami_testkit.nats import NatsServer, nats_running

DEADLINE = 20.0


async def until(is_so: Callable[[], bool | Awaitable[bool]], *, deadline: float = DEADLINE) -> None:
    """Wait for a condition."""
    async with asyncio.timeout(deadline):
        while True:
            found = is_so()
            if await found if isinstance(found, Awaitable) else found:
                return
            await asyncio.sleep(0.01)


def an_event(number: int, kind: str = "reserved") -> CloudEvent:
    """Return the event of that number."""
    name = str(number)
    return CloudEvent(id=name, source="t", type=f"io.hami.{kind}.v1", time="2026-01-01T00:00:00Z", subject=f"p{name}")


@asynccontextmanager
async def a_bus(url: str, **settings: object) -> AsyncIterator[Bus]:
    """Connect quickly and reconnect eagerly, so that a test need not wait."""
    quick = BusSettings(url=url, **{"ping_interval": 0.2, "reconnect_wait": 0.05, **settings})  # type: ignore[arg-type]
    async with connect(quick, name="test", telemetry=Telemetry()) as bus:
        yield bus


@pytest.fixture
async def nats() -> AsyncIterator[NatsServer]:
    async with nats_running() as server:
        yield server


@pytest.fixture
async def bus(nats: NatsServer) -> AsyncIterator[Bus]:
    async with a_bus(nats.url) as bus:
        async with asyncio.timeout(DEADLINE):
            await bus.wait_connected()
        yield bus


@pytest.fixture
async def cluster() -> AsyncIterator[Standin]:
    async with Standin.start(bookmark_seconds=0.1) as cluster:
        yield cluster


@pytest.fixture
async def kube(cluster: Standin, tmp_path: Path) -> AsyncIterator[Kube]:
    async with Kube.connect(str(cluster.kubeconfig(tmp_path / "kubeconfig"))) as kube:
        yield kube
