"""The leader's duty: what follows from each step of an allocation, and what time brings.

One rule: called by letters of the writer, it only starts things; nothing here waits.
"""

import asyncio
from collections import deque

from hami_model.allocation import State
from hami_model.keys import is_allocating
from hami_model.life import (
    Bound,
    Confirmed,
    Entry,
    Event,
    FoundBound,
    Made,
    Released,
    Reserved,
    Seen,
)

from hami_allocator.announcer import Announcer
from hami_allocator.confirm import Confirmer
from hami_allocator.facts import Fact, PodNews, about
from hami_allocator.fleet_metrics import UNCONFIRMED_AFTER
from hami_allocator.means import Means
from hami_allocator.registrar import Registrar
from hami_allocator.waking import Waker


class Leader:
    """Acts on what the world shows, while we lead."""

    def __init__(
        self, means: Means, announcer: Announcer, tasks: asyncio.TaskGroup, *, reservation_timeout: float
    ) -> None:
        self._means = means
        self._world = means.world
        self._announcer = announcer
        self._tasks = tasks
        self._reservation_timeout = reservation_timeout
        self._confirmer = Confirmer(means, tasks)
        self.registrar = Registrar(means, tasks)
        self._waker = Waker(means, tasks)
        self._reserved: deque[tuple[float, str]] = deque()
        self._unconfirmed: deque[tuple[float, str]] = deque()
        self._locked_before: set[str] = set()
        """Nodes that showed a lock a second ago: one that is being cleared is not cleared twice."""

    # Duty

    def tell(self, fact: Fact) -> None:
        """Tell integrations."""
        self._announcer.tell(fact)

    def news(self, news: PodNews) -> None:
        """Tell people who look at the pod."""
        self._announcer.news(news)

    def registered(self, node: str) -> None:
        """Make durable what our agent told of the node, whose cards may take pods again."""
        self.registrar.ensure(node)
        self._waker.freed(node)

    def after(self, event: Event, before: Entry | None, after: Entry | None) -> None:
        """Follow up a step: tell it, wait for what must come next, open what it opens."""
        match event:
            case Reserved() if after is not None:
                self._reserved.append((after.since, after.uid))
                self._tell_step("reserved", after)
            case Bound() if after is not None and before is not None and not before.is_bound:
                self._unconfirmed.append((after.since, after.uid))
                self._tell_step("bound", after)
            case FoundBound() if after is not None and before is None:
                self._take_up(after)
            case Confirmed() if after is not None and before is not None and before.state is not State.ACTIVE:
                self._tell_step("active", after)
                self._open_lock(after.uid)
                self._confirmer.ensure(after)
            case Seen() | Made() if after is not None and after.state is State.ACTIVE:
                self._confirmer.ensure(after)
            case Released() if before is not None:
                self._tell_step("released", before, why=event.why)
                self._open_lock(before.uid)
                self._waker.freed(before.node)
            case _:
                return

    def take_up(self) -> None:
        """Begin with everything that stands in the books: locks held, confirmations owed, inventories not written."""
        self._means.locks.forget()
        for entry in self._world.ledger.entries:
            self._take_up(entry)
        for node in self._world.nodes.names:
            self.registered(node)
            self._clear_left_locks(node)

    def _clear_left_locks(self, name: str) -> None:
        node, vendors = self._world.nodes.node(name), self._world.catalog.vendors
        shown = {v.lock.key: v.lock for v in vendors if node and v.lock and v.lock.key in node.annotations}
        locks = {key: lock for key, lock in shown.items() if not self._means.locks.is_taken(name, key)}
        if locks:
            work = self._means.locks.clear_left(name, tuple(locks.values()))
            self._tasks.create_task(work, name=f"clear locks of {name}")

    def _take_up(self, entry: Entry) -> None:
        if entry.state is State.ACTIVE:
            self._confirmer.ensure(entry)
            return
        self._unconfirmed.append((entry.since, entry.uid))
        node = self._world.nodes.node(entry.node)
        locks = self._world.locks_for(entry.allocation)
        if node is not None and locks and is_allocating(entry.pod):
            self._means.locks.restore(node, locks, entry.allocation.pod, loop_time=asyncio.get_running_loop().time())

    # Time

    def tick(self) -> None:
        """End reservations nobody came for, let the next one in where a lock is overdue, name who is not served."""
        now = self._means.clock.monotonic()
        while self._reserved and now - self._reserved[0][0] >= self._reservation_timeout:
            since, uid = self._reserved.popleft()
            entry = self._world.ledger.entry(uid)
            if entry is not None and entry.state is State.RESERVED and entry.since == since:
                why = f"reserved {self._reservation_timeout:g} s ago and not bound since"
                self._world.apply(Released(uid=uid, why=why))
        while self._unconfirmed and now - self._unconfirmed[0][0] >= UNCONFIRMED_AFTER:
            _, uid = self._unconfirmed.popleft()
            self._call_out(uid)
        self._clear_late_locks()
        self._waker.tick()
        for uid in self._means.locks.overdue(asyncio.get_running_loop().time()):
            self._open_lock(uid)

    def _clear_late_locks(self) -> None:
        """Clear locks that nobody holds: such a write may land long after its bind was given up."""
        locked = set(self._world.nodes.locked)
        for name in sorted(locked & self._locked_before):
            self._clear_left_locks(name)
        self._locked_before = locked

    def _call_out(self, uid: str) -> None:
        entry = self._world.ledger.entry(uid)
        if entry is None or entry.state is not State.BOUND:
            return
        self.tell(about(entry.pod, "unconfirmed", node=entry.node, seconds=UNCONFIRMED_AFTER))
        self._open_lock(uid)

    # What it starts

    def _open_lock(self, uid: str) -> None:
        if self._means.locks.holds(uid):
            self._tasks.create_task(self._means.locks.open(uid), name=f"open lock of {uid}")

    def _tell_step(self, kind: str, entry: Entry, **more: object) -> None:
        self.tell(about(entry.pod, kind, node=entry.node, devices=_devices(entry), **more))


def _devices(entry: Entry) -> dict[str, object]:
    """Return the devices by container, as people and dashboards read them."""
    return {
        c.name: [{"uuid": g.uuid, "vendor": g.vendor, "memory": g.memory, "cores": g.cores} for g in c.grants]
        for c in entry.allocation.containers
        if c.grants
    }
