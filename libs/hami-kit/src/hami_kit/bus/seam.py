"""What everybody codes against: the Bus protocol and its few values.

One rule: a peer's mistake never takes a service down. A malformed request is answered ``Refused`` with the field's
name, an exception in a handler is answered ``Refused`` and logged, and without a connection every call fails at once.
"""

import re
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from types import UnionType
from typing import Any, Protocol, Self, TypeVar, overload

from hami_model.bus.events import CloudEvent
from msgspec import Struct

M = TypeVar("M", bound=Struct)
R = TypeVar("R", bound=Struct)

MalformedHook = Callable[[str, str], None]
"""Hears of each message that could not be read: its subject, and one sentence."""


class BusSettings(Struct, frozen=True, kw_only=True):
    """Where the bus is and how we show who we are."""

    url: str = "nats://127.0.0.1:4222"
    creds: Path | None = None
    ca: Path | None = None
    ping_interval: float = 1.0
    """Seconds between pings; four unanswered ones make a connection dead."""
    reconnect_wait: float = 0.5
    ack_timeout: float = 2.0
    """Seconds in which JetStream should say that it stored an event; a slow one is given more the next time."""
    outbox_limit: int = 10_000
    """Events that wait for JetStream at most; beyond it the oldest are dropped and a ``gap`` event says how many."""

    @property
    def shown(self) -> str:
        """Return the URL as everybody may read it: without a user, password or token."""
        return without_secrets(self.url)

    @classmethod
    def of(cls, settings: "NatsSettings") -> Self:
        """Return the bus settings among a service's settings."""
        return cls(url=settings.nats_url, creds=settings.nats_creds, ca=settings.nats_ca)


def without_secrets(url: str) -> str:
    """Return a server's URL, or several, without what stands before the host."""
    return re.sub(r"(^|//|,)[^/,]*@", r"\1", url)


class NatsSettings(Protocol):
    """The part of ``CommonSettings`` that the bus reads."""

    @property
    def nats_url(self) -> str:
        """Return HAMI_NATS_URL."""
        ...

    @property
    def nats_creds(self) -> Path | None:
        """Return HAMI_NATS_CREDS."""
        ...

    @property
    def nats_ca(self) -> Path | None:
        """Return HAMI_NATS_CA."""
        ...


class Endpoint(Struct, frozen=True):
    """One question of a service: its name in ``nats micro``, its subject, what is asked, and who answers."""

    name: str
    subject: str
    request_type: Any
    handler: Callable[[Any], Awaitable[Struct]]
    shared: bool = True
    """Whether processes that serve this take turns. Otherwise each hears every question, so that one that hangs
    swallows none, and whoever is not to answer raises ``NotMine``."""


class NotMine(Exception):
    """Raised by a handler that leaves a question to another process."""


class Serving(Struct, frozen=True, kw_only=True):
    """One process that serves something on the bus, as it answers to ``nats micro``."""

    name: str
    id: str
    version: str


class BusStatistics(Struct, frozen=True, kw_only=True):
    """What the bus has done so far; the metrics show it."""

    connected: bool
    trouble: str = ""
    """What NATS, or the way to it, said last when it was in trouble."""
    reconnects: int = 0
    received: int = 0
    sent: int = 0
    malformed: int = 0
    failed: int = 0
    in_flight: int = 0
    events_waiting: int = 0
    events_sent: int = 0
    events_lost: int = 0


class Handle(Protocol):
    """Something that listens until it is stopped."""

    async def stop(self) -> None:
        """Take no more messages; return when those at work are answered."""
        ...


class Bus(Protocol):
    """The capability to talk to the other parts."""

    @property
    def is_connected(self) -> bool:
        """Say whether there is a connection to NATS now."""
        ...

    async def wait_connected(self) -> None:
        """Return when there is a connection."""
        ...

    async def wait_disconnected(self, seconds: float) -> None:
        """Return when NATS has not been heard of for so long."""
        ...

    async def publish(self, subject: str, message: Struct) -> None:
        """Tell whoever listens."""
        ...

    @overload
    async def request(self, subject: str, message: Struct, reply_type: type[R], *, timeout: float) -> R: ...
    @overload
    async def request(self, subject: str, message: Struct, reply_type: UnionType, *, timeout: float) -> Any: ...
    async def request(self, subject: str, message: Struct, reply_type: Any, *, timeout: float) -> Any:
        """Ask, and return the answer; raise NoResponders at once where nobody serves the subject."""
        ...

    async def subscribe(
        self, subject: str, message_type: type[M], handler: Callable[[str, M], Awaitable[None]]
    ) -> Handle:
        """Hand each message on the subject to ``handler(subject, message)``, in its own task."""
        ...

    async def serve(self, service_name: str, endpoints: Sequence[Endpoint]) -> Handle:
        """Answer these questions as a NATS micro service until the handle is stopped."""
        ...

    def emit(self, event: CloudEvent) -> None:
        """Put an event into the outbox; never waits, never fails."""
        ...

    async def recent_events(self, *, limit: int) -> list[CloudEvent]:
        """Return the last events that JetStream has stored, oldest first; raise BusUnavailable where it cannot say."""
        ...

    async def roll_call(self, *, seconds: float) -> list[Serving]:
        """Return who serves something, of those that answer within so long."""
        ...

    def statistics(self) -> BusStatistics:
        """Return what happened so far."""
        ...
