"""Listening: plain subscriptions, and endpoints of a NATS micro service.

One rule: each message runs in its own task; whatever happens there ends in an answer and a log line, nowhere else.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context, copy_context
from importlib.metadata import version
from typing import Any

from hami_model.bus.messages import Refused
from msgspec import Struct
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import Error as NatsError
from nats.micro.service import Endpoint as MicroEndpoint
from nats.micro.service import EndpointConfig, Service, ServiceConfig

from hami_kit.bus import wire
from hami_kit.bus.link import Link
from hami_kit.bus.seam import Endpoint, MalformedHook, NotMine
from hami_kit.errors import BadMessage
from hami_kit.telemetry import Telemetry

log = logging.getLogger(__name__)

VERSION = version("hami-kit")
"""Of the kit that serves; all our packages are released together."""
STOP_TIMEOUT = 5.0
"""Seconds that handlers at work may take to finish when their service is stopped."""


class Workshop:
    """Where the handlers run: the bus's task group, and the counts of what went wrong."""

    def __init__(
        self, tasks: asyncio.TaskGroup, telemetry: Telemetry, *, max_payload: Callable[[], int], hook: MalformedHook
    ) -> None:
        self._tasks = tasks
        self._context: Context = copy_context()
        self._hook = hook
        self.telemetry = telemetry
        self.max_payload = max_payload
        self._running: set[asyncio.Task[None]] = set()
        self.received = 0
        self.malformed = 0
        self.failed = 0
        self.in_flight = 0

    def start(self, work: Awaitable[None], done: set[asyncio.Task[None]]) -> None:
        """Run one message's work in its own task, outside any span of whoever subscribed."""
        self.received += 1
        task = self._tasks.create_task(self._count(work), context=self._context.copy())
        for running in (self._running, done):
            running.add(task)
        task.add_done_callback(self._running.discard)
        task.add_done_callback(done.discard)

    async def _count(self, work: Awaitable[None]) -> None:
        self.in_flight += 1
        try:
            await work
        finally:
            self.in_flight -= 1

    def close(self) -> None:
        """Cancel what is still at work."""
        for task in tuple(self._running):
            task.cancel()

    def tell_malformed(self, subject: str, error: BadMessage) -> None:
        """Count and log a message that cannot be read, and tell the service."""
        self.malformed += 1
        log.warning("%s", error)
        self._hook(subject, str(error))

    def tell_failed(self, subject: str, error: Exception) -> None:
        """Count and log a handler's failure."""
        self.failed += 1
        log.error("%s: the handler failed: %s: %s", subject, type(error).__name__, error, exc_info=error)


class Listening:
    """A plain subscription; a message that cannot be read is counted and dropped."""

    def __init__(
        self,
        link: Link,
        workshop: Workshop,
        *,
        subject: str,
        kind: Any,
        handler: Callable[[str, Any], Awaitable[None]],
    ) -> None:
        self._link = link
        self._workshop = workshop
        self._subject = subject
        self._kind = kind
        self._handler = handler
        self._subscription: Subscription | None = None
        self._at_work: set[asyncio.Task[None]] = set()

    async def start(self, client: Client) -> None:
        """Subscribe on this connection."""
        self._subscription = await client.subscribe(self._subject, cb=self._on_message)

    async def stop(self) -> None:
        """Take no more messages; return when those at work are done."""
        self._link.drop(self)
        if self._subscription is not None:
            await end(self._subscription)
        await finish(self._at_work)

    async def _on_message(self, msg: Msg) -> None:
        self._workshop.start(self._handle(msg), self._at_work)

    async def _handle(self, msg: Msg) -> None:
        try:
            message = wire.read_message(msg.subject, msg.data, self._kind)
            parent = (msg.headers or {}).get("traceparent")
            with self._workshop.telemetry.span(msg.subject, parent=parent, root=not parent, kind="consumer"):
                await self._handler(msg.subject, message)
        except BadMessage as e:
            self._workshop.tell_malformed(msg.subject, e)
        except Exception as e:
            self._workshop.tell_failed(msg.subject, e)


class Serving:
    """A NATS micro service with its endpoints; ``nats micro ls|stats`` see it."""

    def __init__(self, link: Link, workshop: Workshop, *, name: str, endpoints: Sequence[Endpoint]) -> None:
        self._link = link
        self._workshop = workshop
        self._config = ServiceConfig(name=name, version=VERSION, description=f"{name} of HAMi")
        self._endpoints = endpoints
        self._service: _Service | None = None

    async def start(self, client: Client) -> None:
        """Subscribe all endpoints on this connection."""
        service = _Service(client, self._config)
        await service.start()
        for endpoint in self._endpoints:
            await service.add(endpoint, self._workshop)
        self._service = service

    async def stop(self) -> None:
        """Take no more requests; return when those at work are answered."""
        self._link.drop(self)
        if self._service is not None:
            await self._service.end()


class _Service(Service):
    async def start(self) -> None:
        """Subscribe; a server that stands still hears of it when it goes on, or with the next connection."""
        try:
            async with asyncio.timeout(STOP_TIMEOUT):
                await super().start()  # it waits for the server in the end
        except TimeoutError:
            log.info("NATS does not answer: it hears of %s later", self._name)

    async def add(self, endpoint: Endpoint, workshop: Workshop) -> None:
        served = _Served(self, endpoint, workshop)
        await served._start()
        self._endpoints.append(served)

    async def end(self) -> None:
        for served in self._endpoints:
            if served._subscription is not None:
                await end(served._subscription)
        for subscription in self._subscriptions.values():
            await end(subscription)
        await asyncio.gather(*(finish(served.at_work) for served in self._endpoints))


class _Served(MicroEndpoint):
    """An endpoint whose requests run concurrently and are still counted and timed one by one."""

    def __init__(self, service: _Service, endpoint: Endpoint, workshop: Workshop) -> None:
        config = EndpointConfig(name=endpoint.name, subject=endpoint.subject, handler=_nobody)
        super().__init__(service, config)
        if not endpoint.shared:
            self._queue_group = ""
        self._what = endpoint
        self._workshop = workshop
        self.at_work: set[asyncio.Task[None]] = set()

    async def _handle_request(self, msg: Msg) -> None:
        self._workshop.start(self._serve(msg), self.at_work)

    async def _serve(self, msg: Msg) -> None:
        started = time.perf_counter_ns()
        try:
            answer, error = await self._answer(msg)
        except NotMine:
            return
        self._num_requests += 1
        if error:
            self._num_errors += 1
            self._last_error = error  # type: ignore[assignment]
        await self._respond(msg, answer)
        self._processing_time += time.perf_counter_ns() - started
        self._average_processing_time = self._processing_time // self._num_requests

    async def _answer(self, msg: Msg) -> tuple[Struct, str]:
        """Return the answer, and what went wrong if something did."""
        try:
            message = wire.read_message(msg.subject, msg.data, self._what.request_type)
            parent = (msg.headers or {}).get("traceparent")
            with self._workshop.telemetry.span(self._what.name, parent=parent, root=not parent, kind="server"):
                return await self._what.handler(message), ""
        except BadMessage as e:
            self._workshop.tell_malformed(msg.subject, e)
            return Refused(error=str(e)), str(e)
        except NotMine:
            raise
        except Exception as e:
            self._workshop.tell_failed(msg.subject, e)
            text = f"{msg.subject}: {type(e).__name__}: {e}"
            return Refused(error=text, retriable=getattr(e, "retriable", False)), text

    async def _respond(self, msg: Msg, answer: Struct) -> None:
        if not msg.reply:
            return
        data = wire.encode(answer)
        limit = self._workshop.max_payload()
        if not wire.fits(data, limit):
            text = f"{msg.subject}: the answer has {len(data)} bytes, the bus carries {limit}; ask for less at a time"
            data = wire.encode(Refused(error=text))
        try:
            await msg.respond(data)
        except (NatsError, OSError) as e:
            log.warning("%s: the answer could not be sent: %s", msg.subject, e)


async def _nobody(_request: object) -> None:
    """Stand where nats.micro wants a handler; requests never come this way."""


async def end(subscription: Subscription) -> None:
    """End a subscription: drained where there is a connection, else just forgotten."""
    try:
        if subscription._conn.is_connected:
            async with asyncio.timeout(STOP_TIMEOUT):
                await subscription.drain()  # type: ignore[no-untyped-call]
        else:
            await subscription.unsubscribe()
    except (NatsError, OSError, TimeoutError) as e:
        log.debug("unsubscribing %s: %s", subscription.subject, e)


async def finish(at_work: set[asyncio.Task[None]]) -> None:
    """Wait for handlers at work, for a while."""
    if at_work:
        await asyncio.wait(tuple(at_work), timeout=STOP_TIMEOUT)
