"""One command's connection: the bus, asked once or followed; every failure becomes a ``Problem``."""

from asyncio import timeout
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from hami_kit import bus as buses
from hami_kit.bus import Bus, BusSettings
from hami_kit.errors import BoundaryError, KubeError, KubeNotFound
from hami_kit.telemetry import Telemetry
from hami_model.bus import subjects
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

DEADLINE = 10.0
"""Seconds that a person waits for an answer."""


class Where(Struct, frozen=True, kw_only=True):
    """Where the parts are, as the environment or the flags say."""

    nats_url: str = "nats://127.0.0.1:4222"
    nats_creds: Path | None = None
    nats_ca: Path | None = None
    traces_url: str = ""
    kubeconfig: str = ""


@asynccontextmanager
async def bus(where: Where) -> AsyncIterator[Bus]:
    """Open the bus for the length of a block."""
    settings = BusSettings(url=where.nats_url, creds=where.nats_creds, ca=where.nats_ca)
    async with buses.connect(settings, name="hamictl", telemetry=Telemetry()) as opened:
        try:
            async with timeout(DEADLINE):
                await opened.wait_connected()
        except TimeoutError as e:
            raise Problem(f"no NATS server answers at HAMI_NATS_URL={where.nats_url}") from e
        yield opened


async def _ask(where: Where, subject: str, question: Struct, answer: Any) -> Any:
    async with bus(where) as opened:
        try:
            reply = await opened.request(subject, question, answer, timeout=DEADLINE)
        except BoundaryError as e:
            raise Problem(f"the allocator does not answer: {e}") from e
    if isinstance(reply, Refused):
        raise Problem(reply.error)
    return reply


async def snapshot(where: Where) -> Snapshot:
    """Return everything the allocator knows, all pages in one."""
    pages: list[Snapshot] = []
    after = ""
    while not pages or after:
        pages.append(await _ask(where, subjects.SNAPSHOT, AskSnapshot(after=after), SnapshotAnswer))
        after = pages[-1].next
    nodes = [node for page in pages for node in page.nodes]
    bookings = {booking.allocation.pod.uid: booking for page in pages for booking in page.bookings}
    return Snapshot(nodes=nodes, bookings=list(bookings.values()), leader=pages[-1].leader)


async def explain(where: Where, namespace: str, name: str) -> Explanation:
    """Return why a pod is where it is, or why no node takes it."""
    answer: Explanation = await _ask(where, subjects.EXPLAIN, ExplainPod(namespace=namespace, name=name), ExplainAnswer)
    return answer


async def pod(where: Where, namespace: str, name: str) -> Pod:
    """Read a pod from the API server."""
    # imported here: the Kubernetes library costs two seconds that no other command needs to pay
    from hami_kit.kube import Kube  # noqa: PLC0415

    try:
        async with Kube.connect(where.kubeconfig or None) as kube:
            return await kube.get_pod(namespace, name)
    except KubeNotFound as e:
        raise Problem(f"there is no pod {namespace}/{name}") from e
    except KubeError as e:
        raise Problem(f"the API server cannot be read (KUBECONFIG={where.kubeconfig or 'in-cluster'}): {e}") from e
