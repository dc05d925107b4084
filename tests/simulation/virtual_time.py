"""An event loop whose time is virtual, and processes inside it that can be stopped, resumed and killed.

One rule: nothing here waits for real. Time moves to the next timer when nothing is left to do, so a minute costs what
its events cost, and the same events come in the same order every time.
"""

import asyncio
from collections.abc import Callable, Coroutine
from contextvars import Context, ContextVar, copy_context
from heapq import heapify, heappush
from typing import Any

START = 1_000.0
"""Where virtual time begins, in seconds."""

EPOCH = 1_767_225_600.0
"""What people's clocks show then, less ``START``."""


class Deadlock(Exception):
    """Nothing is left to do and no timer is set: everybody waits for somebody else, for ever."""


class Gate:
    """One process: its handles run while the gate is open, and wait while it is shut; a dead one stays shut."""

    def __init__(self, loop: "VirtualLoop", name: str) -> None:
        self._loop = loop
        self._held: list[asyncio.Handle] = []
        self._timers: list[asyncio.TimerHandle] = []
        self.name = name
        self.is_shut = False
        self.is_dead = False
        self.context: Context = copy_context()
        self.context.run(PROCESS.set, self)

    def run(self, work: Coroutine[Any, Any, Any], name: str) -> "asyncio.Task[Any]":
        """Start a task of this process."""
        return self._loop.create_task(work, name=f"{self.name}: {name}", context=self.context)

    def shut(self) -> None:
        """Stop the process as SIGSTOP does: what it sent goes on, what comes for it waits."""
        self.is_shut = True
        self._held += self._loop.take_ready(self)
        self._timers += self._loop.take_timers(self)
        self._loop.guard(self, is_shut=True)

    def open(self) -> None:
        """Let the process go on as SIGCONT does: what came meanwhile comes first, then timers that are overdue."""
        self.is_shut = False
        self._loop.guard(self, is_shut=False)
        self._loop.give_back(self._held, self._timers)
        self._held, self._timers = [], []

    def kill(self) -> None:
        """End the process as SIGKILL does: it does nothing any more, not even clean up."""
        self.is_dead = True
        self.shut()

    def hold(self, handle: asyncio.Handle) -> None:
        """Keep what came for a shut process."""
        self._held.append(handle)


PROCESS: ContextVar[Gate | None] = ContextVar("process", default=None)
"""Whose work is being done; tasks and timers inherit it, and the world outside all processes has none."""


class _Numbered(asyncio.Task[Any]):
    """A task with a hash that is the same in every run: asyncio keeps tasks in sets, and walks over them."""

    _log_destroy_pending = False  # a killed process leaves its tasks as they are

    def __init__(self, work: Any, *, loop: "VirtualLoop", context: Context | None, name: str | None = None) -> None:
        loop.tasks_made += 1
        self._number = loop.tasks_made
        super().__init__(work, loop=loop, name=name or f"task {self._number}", context=context)

    def __hash__(self) -> int:
        return self._number

    __eq__ = object.__eq__


class _Selector:
    def __init__(self, loop: "VirtualLoop") -> None:
        self._loop = loop

    def select(self, timeout: float | None) -> list[Any]:
        if timeout is None:
            raise Deadlock("nothing is left to do, and no timer is set")
        self._loop.now += timeout
        return []


class VirtualLoop(asyncio.BaseEventLoop):
    """A loop without sockets and without a real clock."""

    _ready: Any
    _scheduled: Any

    def __init__(self) -> None:
        super().__init__()
        self.now = START
        self.tasks_made = 0
        self.world: Context = copy_context()
        self._shut: set[str] = set()
        self._selector = _Selector(self)
        self.set_task_factory(_make_task)
        self.set_exception_handler(self._note)
        self.accidents: list[str] = []
        """What asyncio would have logged: exceptions that nobody took."""

    def time(self) -> float:
        """Return virtual seconds."""
        return self.now

    def after(self, seconds: float, work: Callable[..., object], *args: Any) -> asyncio.TimerHandle:
        """Do something later that belongs to no process, whoever asks for it."""
        return self.call_at(self.now + seconds, work, *args, context=self.world)

    def _process_events(self, _events: list[Any]) -> None:
        """Take nothing from the selector: there are no sockets."""

    def _write_to_self(self) -> None:
        """Wake nobody: there is one thread."""

    def _note(self, _loop: asyncio.AbstractEventLoop, what: dict[str, Any]) -> None:
        self.accidents.append(f"{what.get('message')}: {what.get('exception')!r}")

    def wind_up(self, gates: list[Gate], seconds: float = 100.0) -> None:
        """Cancel everything, the dead too, and let it end, so that no task is left to the garbage collector."""
        for gate in gates:
            gate.is_dead = False
            gate.open()
        self.set_exception_handler(lambda _loop, _what: None)
        deadline = self.now + seconds
        while (tasks := asyncio.all_tasks(self)) and self.now < deadline:
            for task in tasks:
                task.cancel()
            self.call_later(1.0, self.stop)
            self.run_forever()
        self.close()

    # Processes that stand still

    def guard(self, gate: Gate, *, is_shut: bool) -> None:
        """Look at each handle for as long as any process is shut."""
        (self._shut.add if is_shut else self._shut.discard)(gate.name)
        if self._shut:
            self.call_soon = self._call_soon_guarded  # type: ignore[method-assign,assignment]
        else:
            self.__dict__.pop("call_soon", None)

    def _call_soon_guarded(
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        handle = super().call_soon(callback, *args, context=context)
        gate = _gate(handle)
        if gate is not None and gate.is_shut:
            self._ready.pop()
            gate.hold(handle)
        return handle

    def take_ready(self, gate: Gate) -> list[asyncio.Handle]:
        """Take the process' handles out of what is about to run."""
        taken = [handle for handle in self._ready if _gate(handle) is gate]
        if taken:
            kept = [handle for handle in self._ready if _gate(handle) is not gate]
            self._ready.clear()
            self._ready.extend(kept)
        return taken

    def take_timers(self, gate: Gate) -> list[asyncio.TimerHandle]:
        """Take the process' timers out of the schedule."""
        taken = [timer for timer in self._scheduled if _gate(timer) is gate and not timer.cancelled()]
        if taken:
            self._scheduled = [timer for timer in self._scheduled if _gate(timer) is not gate]
            heapify(self._scheduled)
            self._timer_cancelled_count = sum(timer.cancelled() for timer in self._scheduled)
            for timer in taken:
                timer._scheduled = False
        return taken

    def give_back(self, handles: list[asyncio.Handle], timers: list[asyncio.TimerHandle]) -> None:
        """Put back what ``take_ready`` and ``take_timers`` took, and what was held since."""
        self._ready.extend(handle for handle in handles if not handle.cancelled())
        for timer in timers:
            if not timer.cancelled():
                timer._scheduled = True  # type: ignore[attr-defined]
                heappush(self._scheduled, timer)


def _gate(handle: asyncio.Handle) -> Gate | None:
    context: Context = handle._context  # type: ignore[attr-defined]
    return context.get(PROCESS)


def _make_task(loop: Any, work: Any, context: Context | None = None) -> "asyncio.Task[Any]":
    return _Numbered(work, loop=loop, context=context)


class ProcessClock:
    """A process' clocks: people's may be wrong by ``skew``, and suspension stops the monotonic one."""

    def __init__(self, loop: VirtualLoop, *, skew: float) -> None:
        self._loop = loop
        self._skew = skew
        self._suspended = 0.0

    def now(self) -> float:
        """Return seconds since 1970, as this machine believes."""
        return EPOCH + self._loop.now + self._skew

    def monotonic(self) -> float:
        """Return seconds that stand still while the machine is suspended."""
        return self._loop.now - self._suspended

    def boottime(self) -> float:
        """Return seconds that go on while the machine is suspended."""
        return self._loop.now

    def suspend(self, seconds: float) -> None:
        """Have been suspended for so long."""
        self._suspended += seconds
