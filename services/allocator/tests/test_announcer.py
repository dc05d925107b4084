"""What integrations hear: each fact about a pod in that pod's own trace."""

import asyncio
from typing import Any, cast

import pytest
from hami_allocator.announcer import Announcer
from hami_allocator.facts import PodNews, about
from hami_kit.kube import Kube
from hami_kit.telemetry import TRACEPARENT_ANNOTATION, Telemetry, parent_of_uid
from hami_model.objects import Pod, PodRef
from hami_testkit.bus import MemoryBus
from msgspec import structs

from .conftest import HeldClock, a_pod

WRITTEN = "00-11111111111111111111111111111111-2222222222222222-01"


def traced(pod: Pod, written: str) -> Pod:
    return structs.replace(pod, metadata=structs.replace(pod.metadata, annotations={TRACEPARENT_ANNOTATION: written}))


@pytest.fixture
def bus() -> MemoryBus:
    return MemoryBus()


@pytest.fixture
def announcer(bus: MemoryBus) -> Announcer:
    nobody = cast("Kube", None)  # only Kubernetes Events go there
    return Announcer(
        kube=nobody, bus=bus, clock=HeldClock(), identity="a1", component="hami", metrics=Telemetry().metrics
    )


def test_a_fact_about_a_pod_is_told_in_the_trace_that_the_webhook_wrote(announcer: Announcer, bus: MemoryBus) -> None:
    """Whoever reads the event finds the pod's trace by it."""
    announcer.tell(about(traced(a_pod("p"), WRITTEN), "bound", node="node-1"))

    (event,) = bus.events
    assert ("team-a/p", WRITTEN) == (event.subject, event.traceparent)
    assert {"node": "node-1", "uid": "uid-p"} == event.data


@pytest.mark.parametrize("written", ["", "nonsense", "00-0-0-01"])
def test_without_a_trace_in_the_pod_it_is_the_one_that_everybody_derives(
    announcer: Announcer, bus: MemoryBus, written: str
) -> None:
    """A user's nonsense is no trace either."""
    announcer.tell(about(traced(a_pod("p"), written), "bound"))

    assert [parent_of_uid("uid-p")] == [event.traceparent for event in bus.events]


class FakeKube:
    """Takes Kubernetes Events."""

    def __init__(self) -> None:
        self.reasons: list[str] = []
        self.arrived = asyncio.Event()

    async def create_event(self, _pod: PodRef, *, reason: str, **_: Any) -> None:
        self.reasons.append(reason)
        self.arrived.set()


async def test_people_hear_in_a_pause_between_decisions(bus: MemoryBus) -> None:
    """In a burst of pods every event would cost the API server as much as a binding."""
    kube, busy, asked = FakeKube(), True, asyncio.Event()

    def is_busy(_seconds: float) -> bool:
        asked.set()
        return busy

    announcer = Announcer(
        kube=cast("Kube", kube),
        bus=bus,
        clock=HeldClock(),
        identity="a1",
        component="hami",
        metrics=Telemetry().metrics,
        is_busy=is_busy,
    )
    running = asyncio.create_task(announcer.run())
    announcer.news(PodNews(pod=PodRef.of(a_pod("p")), reason="FilteringSucceed", write=lambda: ("fits",)))
    async with asyncio.timeout(10):
        await asked.wait()
        told_while_busy = list(kube.reasons)
        busy = False
        await kube.arrived.wait()
    running.cancel()

    assert [] == told_while_busy
    assert ["FilteringSucceed"] == kube.reasons
