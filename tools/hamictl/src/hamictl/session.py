"""One command's questions: the bus, asked or followed, and the API server. What cannot be answered is a ``Problem``."""

import asyncio
import logging
from asyncio import timeout
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from hami_kit import bus as buses
from hami_kit.bus import Bus, BusSettings
from hami_kit.errors import BoundaryError, KubeError, KubeNotFound
from hami_kit.telemetry import Telemetry
from hami_model.bus import subjects
from hami_model.bus.events import CloudEvent
from hami_model.bus.messages import (
    AskSnapshot,
    ExplainAnswer,
    ExplainPod,
    Explanation,
    Refused,
    Snapshot,
    SnapshotAnswer,
)
from hami_model.objects import Pod
from msgspec import Struct

from hamictl.errors import Problem

CONNECTING = 5.0
"""Seconds that a person waits for NATS."""

DEADLINE = 10.0
"""Seconds that a person waits for an answer."""

LATELY = 100
"""Events shown that happened before the command."""


@asynccontextmanager
async def bus(where: BusSettings) -> AsyncIterator[Bus]:
    """Open the bus for the length of a block."""
    async with buses.connect(where, name="hamictl", telemetry=Telemetry()) as opened:
        try:
            async with timeout(CONNECTING):
                await opened.wait_connected()
        except TimeoutError as e:
            why = opened.statistics().trouble or f"no answer within {CONNECTING:g} s"
            raise Problem(
                f"cannot connect to NATS at HAMI_NATS_URL={where.shown} ({why}): "
                "check the address, and HAMI_NATS_CREDS and HAMI_NATS_CA if the server asks for them"
            ) from e
        # from here on it is news when the connection breaks
        logging.getLogger().setLevel(logging.WARNING)
        yield opened


async def _ask(opened: Bus, subject: str, question: Struct, answer: Any) -> Any:
    try:
        reply = await opened.request(subject, question, answer, timeout=DEADLINE)
    except BoundaryError as e:
        raise Problem(f"the allocator does not answer: {e}") from e
    if isinstance(reply, Refused):
        raise Problem(reply.error)
    return reply


async def snapshot(where: BusSettings) -> Snapshot:
    """Return everything the allocator knows, all pages in one."""
    pages: list[Snapshot] = []
    after = ""
    async with bus(where) as opened:
        while not pages or after:
            pages.append(await _ask(opened, subjects.SNAPSHOT, AskSnapshot(after=after), SnapshotAnswer))
            after = pages[-1].next
    nodes = [node for page in pages for node in page.nodes]
    bookings = {booking.allocation.pod.uid: booking for page in pages for booking in page.bookings}
    return Snapshot(nodes=nodes, bookings=list(bookings.values()), leader=pages[-1].leader)


async def explain(where: BusSettings, namespace: str, name: str) -> Explanation:
    """Return why a pod is where it is, or why no node takes it."""
    async with bus(where) as opened:
        question = ExplainPod(namespace=namespace, name=name)
        answer: Explanation = await _ask(opened, subjects.EXPLAIN, question, ExplainAnswer)
    return answer


async def events(where: BusSettings, show: Callable[[CloudEvent], None], *, follow: bool) -> None:
    """Show what happened lately and then, when following, what happens; each event once."""
    coming: asyncio.Queue[CloudEvent] = asyncio.Queue()

    async def hear(_subject: str, told: CloudEvent) -> None:
        coming.put_nowait(told)

    async with bus(where) as opened:
        if follow:  # before the past is read, so that nothing falls in between
            await opened.subscribe(subjects.ALL_EVENTS, CloudEvent, hear)
        past = await opened.recent_events(limit=LATELY)
        for told in past:
            show(told)
        known = {told.id for told in past}
        while follow:
            told = await coming.get()
            if told.id not in known:
                show(told)


async def pod(kubeconfig: str, namespace: str, name: str) -> Pod:
    """Read a pod from the API server."""
    # imported here: the Kubernetes library costs two seconds that no other command needs to pay
    from hami_kit.kube import Kube  # noqa: PLC0415

    try:
        async with Kube.connect(kubeconfig or None) as kube:
            return await kube.get_pod(namespace, name)
    except KubeNotFound as e:
        raise Problem(f"there is no pod {namespace}/{name}: check its name and its namespace (-n)") from e
    except KubeError as e:
        raise Problem(f"pod {namespace}/{name} cannot be read (KUBECONFIG={kubeconfig or 'not set'}): {e}") from e
