"""Allocator processes: the real wiring on a simulated API server and bus, with starts, stops, pauses and kills.

One rule: nothing of the allocator is replaced; only what connects it to the outside is.
"""

import asyncio
from functools import cache

from hami_allocator.bootstrap import MalformedHook, Shell, new_process
from hami_allocator.liveness import Hearing
from hami_allocator.nodes import Nodes
from hami_allocator.process import Process
from hami_allocator.settings import AllocatorSettings
from hami_allocator.world import World
from hami_allocator.writer import Writer
from hami_kit.kube import Kube
from hami_kit.telemetry import Telemetry
from hami_model import config, vendors
from hami_model.catalog import Catalog
from hami_model.policies import Policies

from tests.simulation.api import Api, SimTransport
from tests.simulation.bus import Nats, SimBus
from tests.simulation.virtual_time import Gate, ProcessClock, VirtualLoop


@cache
def a_catalog() -> Catalog:
    """Return the vendors, once for all runs: they are values."""
    return vendors.build(config.DEFAULTS, ascend=True, iluvatar=False)


class Allocator:
    """One process, from its start to its end."""

    def __init__(self, loop: VirtualLoop, api: Api, nats: Nats, identity: str, *, skew: float) -> None:
        self.identity = identity
        self._loop = loop
        self.gate = Gate(loop, identity)
        self.clock = ProcessClock(loop, skew=skew)
        self.bus = SimBus(nats, identity, self.gate)
        self.kube = Kube(SimTransport(api, identity))  # type: ignore[arg-type]
        self.stop_asked = asyncio.Event()
        self.process = self.gate.context.run(self._new_process)
        self.main = self.gate.run(self._run(), "main")

    def _new_process(self) -> Process:
        catalog, writer = a_catalog(), Writer()
        world = World(catalog, Policies(), Nodes(catalog, {}, Hearing(self.clock.monotonic())))
        shell = Shell(
            settings=AllocatorSettings(),
            identity=self.identity,
            kube=self.kube,
            bus=self.bus,
            clock=self.clock,
            telemetry=Telemetry(),
        )
        return new_process(shell, world, writer, MalformedHook(world, writer))

    async def _run(self) -> None:
        async with self.process.running(self.stop_asked):
            await self.process.wait_ended()

    @property
    def world(self) -> World:
        """Return the process' memory."""
        return self.process.office.means.world

    @property
    def is_alive(self) -> bool:
        """Say whether the process is there, stopped or not."""
        return not self.gate.is_dead and not self.main.done()

    @property
    def leads(self) -> bool:
        """Say whether the process answers as the leader."""
        return self.is_alive and self.process.leads

    def kill(self) -> None:
        """End the process as SIGKILL does."""
        self.gate.kill()
        self.bus.leave()

    def pause(self, seconds: float) -> None:
        """Stop the process as SIGSTOP does, and let it go on later."""
        if not self.gate.is_shut:
            self.gate.shut()
            self._loop.after(seconds, self._resume)

    def suspend(self, seconds: float) -> None:
        """Suspend the machine: as a pause, and the monotonic clock stands still."""
        if not self.gate.is_shut:
            self.pause(seconds)
            self._loop.after(seconds - 1e-3, self.clock.suspend, seconds)

    def _resume(self) -> None:
        if not self.gate.is_dead:
            self.gate.open()
