"""One term of leadership, from taking over to handing on.

One rule: its tasks have one parent, which ends with the term. Nothing is answered before the takeover is done, and no
endpoint outlives the Lease. A write that the Lease no longer covers ends the term.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from hami_kit.errors import BoundaryError, KubeError, KubeUnavailable
from hami_kit.kube.reflector import Reflector
from hami_model.bus import subjects
from hami_model.bus.messages import Leading
from hami_model.objects import Pod, PodRef
from hami_model.observe import gone
from msgspec import Struct

from hami_allocator.agents import Agents
from hami_allocator.announcer import Announcer
from hami_allocator.effects import Binder
from hami_allocator.endpoints import SERVICE, LeaderEndpoints
from hami_allocator.fleet_metrics import OwnMetrics
from hami_allocator.leader import Leader
from hami_allocator.means import Deposed, Means
from hami_allocator.reconcile import Reconcile
from hami_allocator.rereading import read
from hami_allocator.takeover import Takeover
from hami_allocator.world import OffDuty

log = logging.getLogger(__name__)

TICK = 1.0
FINISH = 2.0
"""Seconds that writes under way may take when we stop of our own will; the next leader finds out about the rest."""


class Office(Struct, frozen=True, kw_only=True):
    """What a term works with; the same for every term of this process."""

    means: Means
    agents: Agents
    reconcile: Reconcile
    takeover: Takeover
    announcer: Announcer
    own: OwnMetrics
    pods: Reflector[Pod]
    reservation_timeout: float


class _Crew(asyncio.TaskGroup):
    """The tasks of a term; ``dismissed`` hears in the same step when one has failed and the group takes no more."""

    def __init__(self, dismissed: Callable[[], None]) -> None:
        super().__init__()
        self._dismissed = dismissed
        self._at_work: set[asyncio.Task[Any]] = set()

    def create_task(self, coro: Any, **options: Any) -> "asyncio.Task[Any]":
        """Start a task, and remember it until it ends."""
        task: asyncio.Task[Any] = super().create_task(coro, **options)
        self._at_work.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: "asyncio.Task[Any]") -> None:
        self._at_work.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self._dismissed()

    async def wait_idle(self) -> None:
        """Return in the step in which nothing is at work any more."""
        while self._at_work:
            await asyncio.wait(self._at_work)


class Term:
    """Leads until cancelled, or asked to finish."""

    def __init__(self, office: Office) -> None:
        self._office = office
        self._stopping = asyncio.Event()
        self.serves = False
        """Whether questions are answered: the takeover is done."""

    def finish(self) -> None:
        """Ask for a clean end: no new questions, writes under way are finished."""
        self._stopping.set()

    async def lead(self) -> None:
        """Take over, serve, and leave the books as a follower keeps them."""
        office, means = self._office, self._office.means
        try:
            await office.takeover.run(means.term, office.pods)
            await self._serve_and_finish()
        except* Deposed as group:
            log.warning("the term is over: %s", group.exceptions[0])
        finally:
            office.own.leading.set(0)
            self._go_off_duty()
            await means.writer.ask(self._forget_reservations)

    async def _serve_and_finish(self) -> None:
        """Serve until asked to finish; then writes under way may end, for a while."""
        try:
            async with asyncio.timeout(None) as patience, _Crew(self._go_off_duty) as tasks:
                try:
                    await self._serve(tasks, patience)
                    await tasks.wait_idle()
                finally:
                    self._go_off_duty()
            log.info("the term ended cleanly")
        except TimeoutError:
            log.warning("stopping with writes under way: the next leader finds out what became of them")

    async def _serve(self, tasks: asyncio.TaskGroup, patience: asyncio.Timeout) -> None:
        office, means = self._office, self._office.means
        leader = Leader(means, office.announcer, tasks, reservation_timeout=office.reservation_timeout)
        binder = Binder(means, tasks)
        await means.writer.ask(lambda: self._take_up(leader))
        endpoints = LeaderEndpoints(means=means, binder=binder, agents=office.agents, registrar=leader.registrar)
        handle = await means.bus.serve(SERVICE, endpoints.all())
        try:
            await self._announce()
            office.own.leading.set(1)
            self.serves = True
            log.info("leading as %s", means.term.identity)
            await self._keep_time(leader)
            patience.reschedule(asyncio.get_running_loop().time() + FINISH)
        finally:
            self.serves = False
            office.own.leading.set(0)
            binder.close()
            await handle.stop()

    def _go_off_duty(self) -> None:
        """Act on nothing any more, in the step in which the crew is dismissed: a later letter would ask it for more."""
        self._office.means.world.duty = OffDuty()

    def _take_up(self, leader: Leader) -> None:
        means = self._office.means
        means.world.duty = leader
        self._office.agents.note(means.world.nodes.take_up(means.clock.monotonic()))
        leader.take_up()

    async def _announce(self) -> None:
        identity = self._office.means.term.identity
        try:
            await self._office.means.bus.publish(subjects.LEADER, Leading(term=identity, identity=identity))
        except BoundaryError:
            return  # agents re-state what they serve with the next heartbeat's answer

    async def _keep_time(self, leader: Leader) -> None:
        """Let time do its work once a second, until asked to finish."""
        while not self._stopping.is_set():
            await self._office.means.writer.ask(leader.tick)
            await self._resolve_doubts()
            try:
                async with asyncio.timeout(TICK):
                    await self._stopping.wait()
            except TimeoutError:
                continue

    async def _resolve_doubts(self) -> None:
        """Read pods that a list lacks and no watch has shown; those that cannot be read now are left for later."""
        doubtful = self._office.reconcile.doubtful
        while doubtful:
            try:
                await self._resolve(doubtful[-1])
            except KubeUnavailable:
                return
            doubtful.pop()

    async def _resolve(self, ref: PodRef) -> None:
        means = self._office.means
        try:
            pod = await read(means, ref)
        except KubeUnavailable:
            raise
        except KubeError:
            return  # it is there
        if pod is None or pod.metadata.uid != ref.uid:
            await means.writer.ask(lambda: means.world.apply(*gone(means.world.ledger.entry(ref.uid)).events))

    def _forget_reservations(self) -> None:
        world = self._office.means.world
        world.apply(*world.ledger.unwritten("this allocator does not lead any more"))
