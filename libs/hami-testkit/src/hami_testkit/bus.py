"""A bus in memory, with the real one's promises: bytes on the wire, an answer or a named error.

One rule: a message goes through its JSON, so that a test sees what a peer would see.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from hami_kit.bus import BusStatistics, Endpoint, Handle, Serving, wire
from hami_kit.errors import BadMessage, BusTimeout, BusUnavailable, NoResponders
from hami_model.bus.events import CloudEvent
from hami_model.bus.messages import Refused
from msgspec import Struct

M = TypeVar("M", bound=Struct)


class _Listener:
    def __init__(self, group: list["_Listener"], subject: str, kind: Any, handler: Callable[..., Any]) -> None:
        self._group = group
        self.subject = subject
        self.kind = kind
        self.handler = handler
        group.append(self)

    async def stop(self) -> None:
        if self in self._group:
            self._group.remove(self)


class _Service:
    def __init__(self, listeners: Sequence[_Listener]) -> None:
        self._listeners = listeners

    async def stop(self) -> None:
        for listener in self._listeners:
            await listener.stop()


class MemoryBus:
    """The ``Bus`` protocol inside one process; what was published and emitted can be read from it."""

    def __init__(self) -> None:
        self.published: list[tuple[str, Struct]] = []
        self.events: list[CloudEvent] = []
        self.services: list[Serving] = []
        self._subscriptions: list[_Listener] = []
        self._endpoints: list[_Listener] = []
        self._up = asyncio.Event()
        self._down = asyncio.Event()
        self._up.set()

    def cut(self) -> None:
        """Lose the connection."""
        self._up.clear()
        self._down.set()

    def mend(self) -> None:
        """Have the connection again."""
        self._down.clear()
        self._up.set()

    @property
    def is_connected(self) -> bool:
        """Say whether there is a connection."""
        return self._up.is_set()

    async def wait_connected(self) -> None:
        """Return when there is a connection."""
        await self._up.wait()

    async def wait_disconnected(self, seconds: float) -> None:
        """Return once the connection is cut."""
        await self._down.wait()

    async def publish(self, subject: str, message: Struct) -> None:
        """Tell whoever listens; their handlers have run when this returns."""
        self._need_connection()
        self.published.append((subject, message))
        for listener in tuple(self._subscriptions):
            if matches(listener.subject, subject):
                await listener.handler(subject, wire.read_message(subject, wire.encode(message), listener.kind))

    async def request(self, subject: str, message: Struct, reply_type: Any, *, timeout: float) -> Any:
        """Ask, and return the answer."""
        self._need_connection()
        listener = next((one for one in self._endpoints if matches(one.subject, subject)), None)
        if listener is None:
            raise NoResponders(f"{subject}: nobody serves it at the moment")
        try:
            async with asyncio.timeout(timeout):
                answer = await _answer(listener, subject, wire.encode(message))
        except TimeoutError as e:
            raise BusTimeout(f"{subject}: no answer within {timeout:g} s") from e
        return wire.read_answer(subject, wire.encode(answer), reply_type)

    async def subscribe(
        self, subject: str, message_type: type[M], handler: Callable[[str, M], Awaitable[None]]
    ) -> Handle:
        """Hand each message on the subject to the handler."""
        return _Listener(self._subscriptions, subject, message_type, handler)

    async def roll_call(self, *, seconds: float) -> list[Serving]:
        """Return who serves something, at once."""
        self._need_connection()
        return list(self.services)

    async def serve(self, service_name: str, endpoints: Sequence[Endpoint]) -> Handle:
        """Answer these questions until the handle is stopped."""
        self.services.append(Serving(name=service_name, id=str(len(self.services)), version="0.1.0"))
        return _Service([_Listener(self._endpoints, e.subject, e.request_type, e.handler) for e in endpoints])

    def emit(self, event: CloudEvent) -> None:
        """Keep the event for the test."""
        self.events.append(event)

    async def recent_events(self, *, limit: int) -> list[CloudEvent]:
        """Return the last events."""
        return self.events[-limit:]

    def statistics(self) -> BusStatistics:
        """Return what happened so far."""
        return BusStatistics(connected=self.is_connected, sent=len(self.published), events_sent=len(self.events))

    def _need_connection(self) -> None:
        if not self.is_connected:
            raise BusUnavailable("there is no connection to NATS; it is being tried again")


async def _answer(listener: _Listener, subject: str, data: bytes) -> Struct:
    try:
        answer: Struct = await listener.handler(wire.read_message(subject, data, listener.kind))
    except BadMessage as e:
        return Refused(error=str(e))
    except Exception as e:
        return Refused(error=f"{subject}: {type(e).__name__}: {e}", retriable=getattr(e, "retriable", False))
    return answer


def matches(pattern: str, subject: str) -> bool:
    """Say whether a subject fits a pattern with ``*`` for one token and ``>`` for the rest."""
    wanted, given = pattern.split("."), subject.split(".")
    if wanted[-1] == ">":
        wanted, given = wanted[:-1], given[: len(wanted) - 1]
        if not given:
            return False
    return len(wanted) == len(given) and all(w in ("*", g) for w, g in zip(wanted, given, strict=True))
