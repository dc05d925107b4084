"""NATS between the simulated parts: what is said travels for a while, and a part that is cut off hears nothing.

One rule: what one part says to another arrives in order or not at all. A part learns only after some seconds that it
is cut off; until then what it says is lost without a word.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context, copy_context
from random import Random
from typing import Any, TypeVar

from hami_allocator.means import Deposed
from hami_kit.bus import BusStatistics, Endpoint, Handle, NotMine, wire
from hami_kit.bus.seam import Serving
from hami_kit.errors import BadMessage, BoundaryError, BusTimeout, BusUnavailable, NoResponders
from hami_model.bus.events import CloudEvent
from hami_model.bus.messages import Refused
from hami_testkit.bus import matches
from msgspec import Struct

from tests.simulation.virtual_time import Gate, VirtualLoop

M = TypeVar("M", bound=Struct)
NOTICED = 4.0
"""Seconds until a client takes an unanswered connection for dead."""
STOP_TIMEOUT = 5.0
STEP = 1e-6


class Nats:
    """The server: who listens to what."""

    def __init__(self, loop: VirtualLoop, rng: Random) -> None:
        self.loop = loop
        self.rng = rng
        self.listeners: list[_Listener] = []
        self.slow = 0.0
        """The share of messages that take up to seconds."""
        self._due: dict[tuple[str, str], float] = {}

    def find(self, subject: str, *, served: bool) -> list["_Listener"]:
        """Return who listens to the subject, or serves it, and can be reached."""
        return [
            one
            for one in self.listeners
            if one.is_served is served and not one.bus.is_cut and matches(one.subject, subject)
        ]

    def carry(self, sender: str, receiver: str, work: Callable[..., object], *args: Any) -> None:
        """Bring something over, in the order in which it was said."""
        delay = self.rng.uniform(0.0005, 0.01)
        if self.slow and self.rng.random() < self.slow:
            delay += self.rng.uniform(0.1, 3.0)
        due = max(self._due.get((sender, receiver), 0.0) + STEP, self.loop.now + delay)
        self._due[sender, receiver] = due
        self.loop.after(due - self.loop.now, work, *args)


class _Listener:
    def __init__(
        self,
        bus: "SimBus",
        subject: str,
        kind: Any,
        handler: Callable[..., Any],
        *,
        is_served: bool,
        shared: bool = True,
    ) -> None:
        self.bus = bus
        self.subject = subject
        self.kind = kind
        self.handler = handler
        self.is_served = is_served
        self.shared = shared
        self.context: Context = bus.gate.context if bus.gate is not None else copy_context()
        self.at_work: set[asyncio.Task[None]] = set()
        bus.nats.listeners.append(self)

    async def stop(self) -> None:
        if self in self.bus.nats.listeners:
            self.bus.nats.listeners.remove(self)
        if self.at_work:
            await asyncio.wait(tuple(self.at_work), timeout=STOP_TIMEOUT)

    def start(self, work: Any) -> None:
        task = self.bus.nats.loop.create_task(work, name=f"{self.bus.name}: {self.subject}", context=self.context)
        self.at_work.add(task)
        task.add_done_callback(self.at_work.discard)


class _Service:
    def __init__(self, listeners: Sequence[_Listener]) -> None:
        self._listeners = listeners

    async def stop(self) -> None:
        await asyncio.gather(*(listener.stop() for listener in self._listeners))


class SimBus:
    """The ``Bus`` of one part."""

    def __init__(self, nats: Nats, name: str, gate: Gate | None = None) -> None:
        self.nats = nats
        self.name = name
        self.gate = gate
        self.is_cut = False
        self._cut_at = 0.0
        self._whole = asyncio.Event()
        self._cut = asyncio.Event()
        self._whole.set()
        self.said: list[Callable[[str, str, Struct], None]] = []
        """Who looks at each message as it is published: (sender, subject, message)."""

    def cut(self) -> None:
        """Lose NATS."""
        if not self.is_cut:
            self.is_cut, self._cut_at = True, self.nats.loop.now
            self._whole.clear()
            self._cut.set()

    def mend(self) -> None:
        """Have NATS again."""
        self.is_cut = False
        self._cut.clear()
        self._whole.set()

    def leave(self) -> None:
        """End the connection, as the kernel does for a process that was killed."""
        self.nats.listeners = [one for one in self.nats.listeners if one.bus is not self]
        self.is_cut = True

    @property
    def is_connected(self) -> bool:
        """Say whether there is a connection, as far as the client knows."""
        return not self.is_cut or self.nats.loop.now - self._cut_at < NOTICED

    async def wait_connected(self) -> None:
        """Return when there is a connection."""
        await self._whole.wait()

    async def wait_disconnected(self, seconds: float) -> None:
        """Return when NATS has not been heard of for so long."""
        while True:
            await self._cut.wait()
            try:
                async with asyncio.timeout_at(self._cut_at + seconds):
                    await self._whole.wait()
            except TimeoutError:
                return

    async def publish(self, subject: str, message: Struct) -> None:
        """Tell whoever listens."""
        for look in self.said:
            look(self.name, subject, message)
        self._need_connection()
        data = wire.encode(message)
        if not self.is_cut:
            for listener in self.nats.find(subject, served=False):
                self.nats.carry(self.name, listener.bus.name, self._deliver, listener, subject, data)

    def _deliver(self, listener: _Listener, subject: str, data: bytes) -> None:
        if listener in self.nats.listeners and not listener.bus.is_cut:
            listener.start(_hear(listener, subject, data))

    async def request(self, subject: str, message: Struct, reply_type: Any, *, timeout: float) -> Any:
        """Ask one of those who serve the subject."""
        self._need_connection()
        loop = self.nats.loop
        answer: asyncio.Future[bytes | None] = loop.create_future()
        if not self.is_cut:
            data = wire.encode(message)
            serving = self.nats.find(subject, served=True)
            if not serving:
                self.nats.carry("nats", self.name, _settle, answer, None)
            else:
                taking_turns = [one for one in serving if one.shared]
                asked = [one for one in serving if not one.shared]
                for listener in [*asked, *([self.nats.rng.choice(taking_turns)] if taking_turns else ())]:
                    self.nats.carry(self.name, listener.bus.name, self._ask, listener, subject, data, answer)
        try:
            async with asyncio.timeout(timeout):
                told = await answer
        except TimeoutError:
            raise BusTimeout(f"{subject}: no answer within {timeout:g} s") from None
        if told is None:
            raise NoResponders(f"{subject}: nobody serves it at the moment")
        return wire.read_answer(subject, told, reply_type)

    def _ask(self, listener: _Listener, subject: str, data: bytes, answer: "asyncio.Future[bytes | None]") -> None:
        if listener in self.nats.listeners and not listener.bus.is_cut:
            listener.start(self._serve(listener, subject, data, answer))

    async def _serve(
        self, listener: _Listener, subject: str, data: bytes, answer: "asyncio.Future[bytes | None]"
    ) -> None:
        try:
            said = wire.encode(await _answer(listener, subject, data))
        except NotMine:
            return
        if not listener.bus.is_cut and not self.is_cut:
            self.nats.carry(listener.bus.name, self.name, _settle, answer, said)

    async def subscribe(
        self, subject: str, message_type: type[M], handler: Callable[[str, M], Awaitable[None]]
    ) -> Handle:
        """Hand each message on the subject to the handler."""
        return _Listener(self, subject, message_type, handler, is_served=False)

    async def serve(self, service_name: str, endpoints: Sequence[Endpoint]) -> Handle:
        """Answer these questions until the handle is stopped."""
        return _Service(
            [_Listener(self, e.subject, e.request_type, e.handler, is_served=True, shared=e.shared) for e in endpoints]
        )

    def emit(self, event: CloudEvent) -> None:
        """Drop the event: nobody reads the stream here."""

    async def recent_events(self, *, limit: int) -> list[CloudEvent]:
        """Return nothing: no stream is kept here."""
        return []

    async def roll_call(self, *, seconds: float) -> list[Serving]:
        """Return nobody: no operator asks here."""
        return []

    def statistics(self) -> BusStatistics:
        """Return what a metric would show."""
        return BusStatistics(connected=self.is_connected)

    def _need_connection(self) -> None:
        if not self.is_connected:
            raise BusUnavailable("there is no connection to NATS; it is being tried again")


async def _hear(listener: _Listener, subject: str, data: bytes) -> None:
    await listener.handler(subject, wire.read_message(subject, data, listener.kind))


async def _answer(listener: _Listener, subject: str, data: bytes) -> Struct:
    try:
        answer: Struct = await listener.handler(wire.read_message(subject, data, listener.kind))
    except BadMessage as error:
        return Refused(error=str(error))
    except (BoundaryError, Deposed) as error:
        return Refused(error=f"{subject}: {error}", retriable=error.retriable)
    return answer


def _settle(answer: "asyncio.Future[bytes | None]", told: bytes | None) -> None:
    if not answer.done():
        answer.set_result(told)
