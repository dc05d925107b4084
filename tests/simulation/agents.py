"""Our node-agents: they tell their cards, take pushes, give a pod what its Binding says, and confirm it.

One rule: what the API server stored wins over what was pushed, by the agent's own code.
"""

import asyncio
from contextlib import suppress
from random import Random

from hami_kit.errors import BoundaryError
from hami_model.allocation import Allocation
from hami_model.annotations import read_allocation
from hami_model.bus import subjects
from hami_model.bus.messages import (
    Confirm,
    Done,
    Heartbeat,
    Inventory,
    Leading,
    NodeAnswer,
    PushAllocation,
    ReportWanted,
    Withdraw,
)
from hami_model.device import Device
from hami_model.objects import Pod, PodRef
from hami_node_agent.pods import NodePods

from tests.simulation.allocators import a_catalog
from tests.simulation.bus import Nats, SimBus
from tests.simulation.given import Given, grants_of, pod_of
from tests.simulation.store import Store
from tests.simulation.virtual_time import ProcessClock, VirtualLoop

HEARTBEAT_EVERY = 5.0
PATIENCE = 2.0


class Agent:
    """Our node-agent: tells its cards, takes pushes, gives a pod what its Binding says, and confirms it."""

    def __init__(
        self, loop: VirtualLoop, store: Store, nats: Nats, rng: Random, node: str, devices: tuple[Device, ...]
    ) -> None:
        self._store = store
        self._rng = rng
        self._node = node
        self._devices = devices
        self._owed: list[Confirm] = []
        self._served: dict[str, list[Confirm]] = {}
        self._some = asyncio.Event()
        self.bus = SimBus(nats, f"agent of {node}")
        self.is_mute = False
        """Down, as far as the allocator can tell; the plugin goes on."""
        self.pods = NodePods(node, lambda pod: read_allocation(a_catalog(), pod), clock=ProcessClock(loop, skew=0))

    async def run(self) -> None:
        """Listen, tell the inventory, beat, and confirm."""
        of = subjects.of_node
        await self.bus.subscribe(of(self._node, "allocation"), PushAllocation, self._pushed)
        await self.bus.subscribe(of(self._node, "withdraw"), Withdraw, self._withdrawn)
        await self.bus.subscribe(of(self._node, "report"), ReportWanted, self._wanted)
        await self.bus.subscribe(subjects.LEADER, Leading, self._led)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._beat())
            tasks.create_task(self._confirm())

    async def _pushed(self, _subject: str, message: PushAllocation) -> None:
        self.pods.push(message)

    async def _withdrawn(self, _subject: str, message: Withdraw) -> None:
        self.pods.withdraw(message)

    async def _wanted(self, _subject: str, _message: ReportWanted) -> None:
        await self._tell()

    async def _led(self, _subject: str, message: Leading) -> None:
        self.pods.led_by(message.term)
        await asyncio.sleep(self._rng.uniform(0, 1))
        await self._tell()
        self._owed += [word for words in self._served.values() for word in words]
        self._some.set()

    async def _tell(self) -> None:
        words = sorted({device.vendor for device in self._devices})
        told = Inventory(node=self._node, agent="agent", digest="d", vendors=words, devices=list(self._devices))
        try:
            await self.bus.request(subjects.of_node(self._node, "inventory"), told, NodeAnswer, timeout=5)
        except BoundaryError:
            return

    async def _beat(self) -> None:
        await self._tell()
        while True:
            if not self.is_mute:
                beat = Heartbeat(node=self._node, agent="agent", digest="d", holding=sorted(self._served))
                with suppress(BoundaryError):
                    await self.bus.publish(subjects.of_node(self._node, "heartbeat"), beat)
            await asyncio.sleep(self._rng.uniform(0.8, 1.2) * HEARTBEAT_EVERY)

    async def _confirm(self) -> None:
        while True:
            while self._owed:
                word = self._owed[0]
                try:
                    answer = await self.bus.request(
                        subjects.of_node(self._node, "confirm"), word, NodeAnswer, timeout=3
                    )
                except BoundaryError:
                    await asyncio.sleep(self._rng.uniform(0.5, 3))
                    continue
                if self._owed and self._owed[0] is word and (isinstance(answer, Done) or not answer.retriable):
                    self._owed.pop(0)
            self._some.clear()
            await self._some.wait()

    async def allocate(self, pod: Pod) -> Given:
        """Give a pod what was pushed or stored for it; read the pod where neither is at hand."""
        ref = PodRef.of(pod)
        found = await self.pods.wait_for(lambda: self.pods.allocation(ref), PATIENCE)
        if found is None:
            obj = self._store.find("pods", (ref.namespace, ref.name))
            if obj is not None:
                self.pods.read(pod_of(obj))
            found = self.pods.allocation(ref)
        if found is None:
            return Given(refused="no allocation is at hand")
        self._remember(ref, found)
        return Given(grants_of(found.containers, *(device.vendor for device in self._devices)), ref.uid)

    def _remember(self, ref: PodRef, found: Allocation) -> None:
        given = [c for c in found.containers if c.grants]
        words = [
            Confirm(
                node=self._node,
                pod=ref,
                container=c.name,
                devices=[g.uuid for g in c.grants],
                complete=c is given[-1],
            )
            for c in given
        ]
        self._served[ref.uid] = words
        self._owed += words
        self._some.set()

    def forget(self, uid: str) -> None:
        """Take note that a pod's containers are gone."""
        self._served.pop(uid, None)
