"""One allocator process: always watching, standing for election while it can serve, leading while it holds the Lease.

One rule: it stands only while its view is whole and the bus is there, and gives the Lease back when either is not.
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from hami_kit.cancelling import first_of
from hami_kit.kube.lease import Election
from hami_kit.kube.reflector import Reflector
from hami_kit.settings import Address
from hami_kit.web import Health
from hami_model.objects import Node, Pod, ResourceQuota
from msgspec import Struct

from hami_allocator.answers import Answers
from hami_allocator.endpoints import listen_to_heartbeats
from hami_allocator.leading import FINISH, Office, Term
from hami_allocator.reading import ReadingSide

log = logging.getLogger(__name__)

LOOK_EVERY = 0.1
CUT_OFF = 5.0
"""Seconds without NATS after which somebody else should lead."""
OUT_OF_SIGHT = 30.0
"""Seconds for which every list and watch of a view fails until somebody else, who may see more, should lead."""
TICK = 1.0


class Views(Struct, frozen=True, kw_only=True):
    """What we see of Kubernetes."""

    nodes: Reflector[Node]
    pods: Reflector[Pod]
    quotas: Reflector[ResourceQuota]

    @property
    def synced(self) -> bool:
        """Say whether every list has been told once."""
        return self.nodes.synced and self.pods.synced and self.quotas.synced

    @property
    def failing_for(self) -> float:
        """Return for how many seconds one of them has failed to list and watch; 0 while all can be believed."""
        return max(view.failing_for for view in (self.nodes, self.pods, self.quotas))

    async def wait_synced(self) -> None:
        """Return once every list has been told once."""
        for view in (self.nodes, self.pods, self.quotas):
            await view.wait_synced()


class Process:
    """Everything that runs."""

    def __init__(self, *, office: Office, election: Election, views: Views, answers: Answers) -> None:
        self.office = office
        self.election = election
        self.views = views
        means = office.means
        self.reading = ReadingSide(
            means.bus,
            answers,
            means.clock,
            identity=election.identity,
            follows=lambda: views.synced and not self.election.is_valid(),
        )
        self.address: Address | None = None
        """Where /readyz and /metrics are served."""
        self._term: Term | None = None
        self._ended = asyncio.Event()

    @property
    def leads(self) -> bool:
        """Say whether this process answers as the leader."""
        return self._term is not None and self._term.serves and self.election.is_valid()

    async def wait_ended(self) -> None:
        """Return when the process has stopped standing for election, because it was told to."""
        await self._ended.wait()

    async def wait_settled(self) -> None:
        """Return when everything that was there at the start stands in the books."""
        await self.views.wait_synced()
        await self.office.means.writer.wait_caught_up()

    @asynccontextmanager
    async def running(self, stop: asyncio.Event) -> AsyncIterator[None]:
        """Run for the length of a block; ``stop`` ends leadership cleanly before."""
        async with asyncio.TaskGroup() as tasks:
            started = [
                tasks.create_task(work, name=name)
                for name, work in (
                    ("writer", self.office.means.writer.run()),
                    ("views", self._follow()),
                    ("time", self._keep_time()),
                    ("announcer", self.office.announcer.run()),
                    ("reading side", self._listen()),
                )
            ]
            elections = tasks.create_task(self._stand(stop), name="elections")
            try:
                yield
            finally:
                stop.set()
                await asyncio.wait([elections])
                for task in started:
                    task.cancel()

    # Always

    async def _follow(self) -> None:
        """Watch nodes first: what a pod holds is judged by its node's cards."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.views.nodes.run(), name="nodes")
            await self.views.nodes.wait_synced()
            tasks.create_task(self.views.pods.run(), name="pods")
            tasks.create_task(self.views.quotas.run(), name="quotas")

    async def _listen(self) -> None:
        means = self.office.means
        beats = await listen_to_heartbeats(means.bus, means.writer, self.office.agents)
        try:
            await self.reading.run()
        finally:
            await beats.stop()

    async def _keep_time(self) -> None:
        means = self.office.means
        while True:
            await asyncio.sleep(TICK)
            means.world.nodes.hearing.tick(means.clock.monotonic(), connected=means.bus.is_connected)
            await means.writer.ask(self.office.agents.tick)
            await means.writer.ask(self.office.reconcile.tick)

    # Leading

    async def _stand(self, stop: asyncio.Event) -> None:
        """Stand for election whenever we can serve, lead when elected, until told to stop."""
        stopped: asyncio.Future[Any] = asyncio.ensure_future(stop.wait())
        campaign: list[asyncio.Future[Any]] = []
        try:
            while not stop.is_set():
                await first_of(stopped, self._wait_fit())
                if stop.is_set():
                    break
                self.election.stand()
                if not campaign:  # begun only now, so that the first look at the Lease already counts
                    campaign += [asyncio.ensure_future(self.election.run())]
                    campaign += [asyncio.ensure_future(self.election.watch_expiry())]
                await first_of(stopped, self.election.wait_gained(), self._wait_unfit(), *campaign)
                for ended in campaign:
                    if ended.done():
                        ended.result()  # only an error ends it
                if self.election.is_valid() and not stop.is_set():
                    await self._lead(stopped)
                await self.election.release()
        finally:
            self._ended.set()
            for task in (stopped, *campaign):
                task.cancel()
            await asyncio.gather(stopped, *campaign, return_exceptions=True)

    async def _wait_fit(self) -> None:
        while self.views.failing_for > 0 or not self.views.synced:  # noqa: ASYNC110 - three views, no one event
            await asyncio.sleep(LOOK_EVERY)
        await self.office.means.bus.wait_connected()

    async def _wait_unfit(self) -> None:
        await first_of(self.office.means.bus.wait_disconnected(CUT_OFF), self._wait_out_of_sight())

    async def _wait_out_of_sight(self) -> None:
        while (left := OUT_OF_SIGHT - self.views.failing_for) > 0:  # noqa: ASYNC110 - silence is no event
            await asyncio.sleep(max(left, LOOK_EVERY))

    async def _lead(self, stopped: "asyncio.Future[Any]") -> None:
        """Lead until the Lease is lost, the bus is gone, or we are told to stop; then leave in order."""
        term = Term(self.office)
        leading = asyncio.create_task(term.lead(), name="term")
        self._term = term
        try:
            await first_of(leading, stopped, self.election.wait_lost(), self._wait_unfit())
            if stopped.done() and self.election.is_valid():
                term.finish()
                await asyncio.wait([leading], timeout=FINISH + 1)
        finally:
            self._term = None
            leading.cancel()
            await asyncio.wait([leading])
        if not leading.cancelled():
            leading.result()

    # Health

    def check_synced(self) -> Health:
        """Say up to where we have seen nodes, pods and quotas, and how much of it is not in the books yet."""
        views = self.views
        return Health(
            views.synced,
            {
                "nodes": views.nodes.resource_version,
                "pods": views.pods.resource_version,
                "quotas": views.quotas.resource_version,
                "waiting": self.office.means.writer.waiting,
            },
        )

    def check_bus(self) -> Health:
        """Say whether we are connected."""
        return Health(self.office.means.bus.is_connected)

    def check_leader(self) -> Health:
        """Say who leads: ourselves and we answer, or another."""
        holder, identity = self.election.holder, self.election.identity
        is_led = self.leads or holder not in ("", identity)
        return Health(is_led, {"leader": holder, "identity": identity, "leading": self.leads})
