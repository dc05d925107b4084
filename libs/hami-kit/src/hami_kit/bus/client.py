"""The bus on NATS.

One rule: a nats-py error becomes one of ours here, with its cause, and nowhere else.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from hami_model.bus import subjects
from hami_model.bus.events import CloudEvent
from msgspec import Struct
from nats import errors as nats_errors

from hami_kit.bus import rollcall, seam, wire
from hami_kit.bus.link import Link
from hami_kit.bus.metrics import BusCollector
from hami_kit.bus.outbox import Outbox
from hami_kit.bus.seam import Bus, BusSettings, BusStatistics, Endpoint, Handle, M, MalformedHook
from hami_kit.bus.serving import Listening, Serving, Workshop
from hami_kit.bus.stream import EventStream
from hami_kit.cancelling import cancel_until_done
from hami_kit.clock import Clock, SystemClock
from hami_kit.errors import BoundaryError, BusTimeout, BusUnavailable, NoResponders, PayloadTooLarge
from hami_kit.telemetry import Telemetry, traceparent


@asynccontextmanager
async def connect(
    settings: BusSettings,
    *,
    name: str,
    telemetry: Telemetry,
    clock: Clock | None = None,
    on_malformed: MalformedHook | None = None,
) -> AsyncIterator[Bus]:
    """Open the bus at once, with or without NATS; it connects and reconnects by itself until the block ends.

    What the block itself raises leaves as it is, not wrapped in the task group's own error.
    """
    link = Link(settings, name=name, clock=clock or SystemClock())
    events = EventStream(link, ack_timeout=settings.ack_timeout)
    outbox = Outbox(events, limit=settings.outbox_limit, clock=clock or SystemClock())
    failure: Exception | None = None
    async with asyncio.TaskGroup() as tasks:
        workshop = Workshop(tasks, telemetry, max_payload=lambda: max_payload(link), hook=on_malformed or _nothing)
        bus = NatsBus(link, workshop, outbox, events)
        running = [
            tasks.create_task(link.run(), name="bus link"),
            tasks.create_task(outbox.run(), name="bus outbox"),
        ]
        collector = BusCollector(bus.statistics)
        telemetry.metrics.register(collector)
        try:
            yield bus
            await outbox.wait_empty(timeout=1.0)
        except Exception as e:
            failure = e
        finally:
            telemetry.metrics.unregister(collector)
            workshop.close()
            await cancel_until_done(running)
    if failure is not None:
        raise failure


def _nothing(_subject: str, _error: str) -> None:
    return None


def max_payload(link: Link) -> int:
    """Return how many bytes a message may have: the server's limit, never more than ours."""
    return min(link.client().max_payload, subjects.MAX_PAYLOAD) if link.is_connected else subjects.MAX_PAYLOAD


class NatsBus:
    """The Bus protocol over one Link."""

    def __init__(self, link: Link, workshop: Workshop, outbox: Outbox, events: EventStream) -> None:
        self._link = link
        self._workshop = workshop
        self._outbox = outbox
        self._events = events
        self._sent = 0

    @property
    def is_connected(self) -> bool:
        """Say whether there is a connection to NATS now."""
        return self._link.is_connected

    async def wait_connected(self) -> None:
        """Return when there is a connection."""
        await self._link.wait_connected()

    async def wait_disconnected(self, seconds: float) -> None:
        """Return when NATS has not been heard of for so long."""
        await self._link.wait_disconnected(seconds)

    async def publish(self, subject: str, message: Struct) -> None:
        """Tell whoever listens."""
        data = self._fitting(subject, message)
        try:
            await self._link.client().publish(subject, data, headers=_headers())
        except (nats_errors.Error, OSError) as e:
            raise _translated(subject, e) from e
        self._sent += 1

    async def request(self, subject: str, message: Struct, reply_type: Any, *, timeout: float) -> Any:
        """Ask, and return the answer."""
        data = self._fitting(subject, message)
        try:
            answer = await self._link.client().request(subject, data, timeout=timeout, headers=_headers())
        except nats_errors.TimeoutError as e:
            raise BusTimeout(f"{subject}: no answer within {timeout:g} s") from e
        except (nats_errors.Error, OSError) as e:
            raise _translated(subject, e) from e
        self._sent += 1
        return wire.read_answer(subject, answer.data, reply_type)

    async def subscribe(
        self, subject: str, message_type: type[M], handler: Callable[[str, M], Awaitable[None]]
    ) -> Handle:
        """Hand each message on the subject to ``handler(subject, message)``, in its own task."""
        listening = Listening(self._link, self._workshop, subject=subject, kind=message_type, handler=handler)
        await self._link.hold(listening)
        return listening

    async def serve(self, service_name: str, endpoints: Sequence[Endpoint]) -> Handle:
        """Answer these questions as a NATS micro service until the handle is stopped."""
        serving = Serving(self._link, self._workshop, name=service_name, endpoints=endpoints)
        await self._link.hold(serving)
        return serving

    def emit(self, event: CloudEvent) -> None:
        """Put an event into the outbox; never waits, never fails."""
        self._outbox.put(event)

    async def recent_events(self, *, limit: int) -> list[CloudEvent]:
        """Return the last events that JetStream has stored, oldest first."""
        return await self._events.recent(limit)

    async def roll_call(self, *, seconds: float) -> list[seam.Serving]:
        """Return who serves something, of those that answer within so long."""
        try:
            return await rollcall.ask(self._link.client(), seconds)
        except (nats_errors.Error, OSError) as e:
            raise _translated(rollcall.SUBJECT, e) from e

    def statistics(self) -> BusStatistics:
        """Return what happened so far."""
        return BusStatistics(
            connected=self.is_connected,
            trouble=self._link.trouble,
            reconnects=self._link.reconnects,
            received=self._workshop.received,
            sent=self._sent,
            malformed=self._workshop.malformed,
            failed=self._workshop.failed,
            in_flight=self._workshop.in_flight,
            events_waiting=self._outbox.waiting,
            events_sent=self._outbox.sent,
            events_lost=self._outbox.lost,
        )

    def _fitting(self, subject: str, message: Struct) -> bytes:
        data = wire.encode(message)
        if not wire.fits(data, limit := max_payload(self._link)):
            raise PayloadTooLarge(
                f"{subject}: the message has {len(data)} bytes, the bus carries {limit}; "
                f"ask for less at a time, or start the NATS server with max_payload {subjects.MAX_PAYLOAD}"
            )
        return data


def _headers() -> dict[str, str] | None:
    parent = traceparent()
    return {"traceparent": parent} if parent else None


def _translated(subject: str, error: Exception) -> BoundaryError:
    match error:
        case nats_errors.NoRespondersError():
            return NoResponders(f"{subject}: nobody serves it at the moment; is the allocator running and leading?")
        case nats_errors.MaxPayloadError():
            return PayloadTooLarge(f"{subject}: the message is larger than the bus carries")
        case _:
            return BusUnavailable(f"{subject}: NATS did not take the message: {error or type(error).__name__}")
