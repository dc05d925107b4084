"""What the agent tells the allocator: its cards, that it lives, what it served and what it refused.

One rule: a statement is repeated until somebody acknowledges it, and nothing on the node ever waits for that.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress

from hami_kit.bus import Bus
from hami_kit.errors import BoundaryError
from hami_kit.telemetry import Telemetry
from hami_model.allocation import MadeInstance
from hami_model.bus import subjects
from hami_model.bus.messages import (
    Confirm,
    Done,
    Drift,
    Heartbeat,
    Leading,
    MeasuredCard,
    MeasuredContainer,
    NodeAnswer,
    Refuse,
    ReportWanted,
)
from hami_model.bus.messages import Inventory as InventoryMessage
from hami_model.objects import PodRef
from msgspec import Struct

from hami_node_agent.inventory import Inventory
from hami_node_agent.mig.book import Piece
from hami_node_agent.table import Entry, Table
from hami_node_agent.usage.monitor import ContainerUse

log = logging.getLogger(__name__)

ANSWER_TIMEOUT = 2.0
FIRST_PAUSE, LONGEST_PAUSE = 0.2, 5.0
HEARTBEAT_EVERY = 5.0
"""Seconds; after 30 s of silence the node's devices take no new reservations."""

RESTATE_WITHIN = 1.0
"""Seconds over which the agents of a cluster spread their answers to a new leader."""

MIB = 1024 * 1024

Key = tuple[str, str, str]


class _Statement(Struct, frozen=True, kw_only=True):
    subject: str
    message: Confirm | Refuse
    span: str
    parent: str


class Reports:
    """Statements about pods, on their way to whoever leads."""

    def __init__(
        self,
        bus: Bus,
        *,
        node: str,
        telemetry: Telemetry,
        is_complete: Callable[[PodRef], bool],
        jitter: Callable[[float], float],
        instances: Callable[[str], Sequence[Piece]] = lambda _uid: (),
    ) -> None:
        """``instances``: what was made of cards for a pod, by its uid."""
        self._bus = bus
        self._instances = instances
        self._node = node
        self._telemetry = telemetry
        self._is_complete = is_complete
        self._jitter = jitter
        self._waiting: dict[Key, _Statement] = {}
        self._news = asyncio.Event()

    @property
    def waiting(self) -> tuple[Confirm | Refuse, ...]:
        """Return the statements that nobody has acknowledged yet."""
        return tuple(statement.message for statement in self._waiting.values())

    def confirm(self, entry: Entry, *, parent: str) -> None:
        """State that a container was served with its cards."""
        log.info("served %s of %s with %s", entry.container, entry.pod, ", ".join(g.uuid for g in entry.grants))
        message = Confirm(
            node=self._node,
            pod=entry.pod,
            container=entry.container,
            devices=[grant.uuid for grant in entry.grants],
            complete=self._is_complete(entry.pod),
            instances=[_told(piece) for piece in self._instances(entry.pod.uid) if piece.uuid],
        )
        subject = subjects.of_node(self._node, "confirm")
        self._state(entry.key, _Statement(subject=subject, message=message, span="confirm", parent=parent))

    def refuse(self, why: str, *, pod: PodRef | None, container: str, parent: str) -> None:
        """State that an Allocate was refused, and why."""
        log.warning("refused %s of %s: %s", container or "a container", pod or "a pod that cannot be told", why)
        message = Refuse(node=self._node, why=why, pod=pod, container=container)
        subject = subjects.of_node(self._node, "refuse")
        key = (pod.uid if pod is not None else "", container, why)
        self._state(key, _Statement(subject=subject, message=message, span="refuse", parent=parent))

    def forget(self, pod: PodRef) -> None:
        """Say no more of a pod that is over."""
        for key in [key for key in self._waiting if key[0] == pod.uid]:
            del self._waiting[key]

    def restate(self, table: Table, parent: Callable[[PodRef], str]) -> None:
        """State everything served again: a new leader may not have heard it."""
        for entry in table.entries:
            if entry.served:
                self.confirm(entry, parent=parent(entry.pod))

    async def run(self) -> None:
        """Say what waits, one after the other; what is not acknowledged goes to the end of the line."""
        pause = FIRST_PAUSE
        while True:
            while not self._waiting:  # a pod may be over between its news and our turn
                self._news.clear()
                await self._news.wait()
            key, statement = next(iter(self._waiting.items()))
            if await self._say(statement):
                pause = FIRST_PAUSE
                if self._waiting.get(key) is statement:
                    del self._waiting[key]
                continue
            if self._waiting.get(key) is statement:
                self._waiting[key] = self._waiting.pop(key)
            await asyncio.sleep(self._jitter(pause))
            pause = min(2 * pause, LONGEST_PAUSE)

    def _state(self, key: Key, statement: _Statement) -> None:
        self._waiting.pop(key, None)
        self._waiting[key] = statement
        self._news.set()

    async def _say(self, statement: _Statement) -> bool:
        """Say one statement; True = it need not be said again."""
        with self._telemetry.span(statement.span, parent=statement.parent, node=self._node):
            return await acknowledged(self._bus, statement.subject, statement.message)


async def acknowledged(bus: Bus, subject: str, message: Struct) -> bool:
    """Ask once and say whether that settles it: done, or refused for good."""
    try:
        answer = await bus.request(subject, message, NodeAnswer, timeout=ANSWER_TIMEOUT)
    except BoundaryError as e:
        if not e.retriable:
            log.warning("%s is given up: %s", subject, e)
        return not e.retriable
    if isinstance(answer, Done):
        return True
    if not answer.retriable:
        log.warning("%s was refused for good: %s", subject, answer.error)
    return not answer.retriable


class Containers(Struct, frozen=True, kw_only=True):
    """What a heartbeat says of the kubelet and the node's containers."""

    holding: Callable[[], list[str]] = list
    """Uids of pods whose containers still hold devices."""
    used: Callable[[], Sequence[ContainerUse]] = tuple
    drift: Callable[[], Sequence[Drift]] = tuple
    offered: Callable[[], list[str]] = list
    """Vendors whose devices the kubelet takes from us."""


class Presence:
    """The node's cards and the agent's life, towards the allocators."""

    def __init__(
        self,
        bus: Bus,
        *,
        node: str,
        agent: str,
        inventory: Inventory,
        jitter: Callable[[float], float],
        containers: "Containers | None" = None,
    ) -> None:
        self._bus = bus
        self._node = node
        self._agent = agent
        self._inventory = inventory
        self._jitter = jitter
        self._containers = containers or Containers()
        self._soon = asyncio.Event()
        self._due = asyncio.Event()
        self._due.set()
        self._is_leaving = False
        self.identifies_pods = True

    async def report_wanted(self, _message: ReportWanted | Leading) -> Done:
        """Report the inventory again."""
        self._due.set()
        return Done()

    async def run_inventory(self) -> None:
        """Report the inventory when it is due, until it is acknowledged."""
        pause = FIRST_PAUSE
        while True:
            await self._due.wait()
            self._due.clear()
            if await acknowledged(self._bus, subjects.of_node(self._node, "inventory"), self._message()):
                pause = FIRST_PAUSE
                continue
            self._due.set()
            await asyncio.sleep(self._jitter(pause))
            pause = min(2 * pause, LONGEST_PAUSE)

    async def run_changes(self) -> None:
        """Report each change of the cards."""
        revision = self._inventory.revision
        while True:
            revision = await self._inventory.wait_changed(revision)
            self._due.set()

    def beat_soon(self) -> None:
        """Send the next heartbeat now: a pod that ended holds nothing any more, and somebody may wait for that."""
        self._soon.set()

    async def run_heartbeat(self) -> None:
        """Say again and again that the agent lives, and whose containers still hold devices."""
        while True:
            try:
                await self._bus.publish(subjects.of_node(self._node, "heartbeat"), self._heartbeat())
            except BoundaryError as e:
                log.debug("no heartbeat now: %s", e)
            with suppress(TimeoutError):
                async with asyncio.timeout(self._jitter(HEARTBEAT_EVERY)):
                    await self._soon.wait()
            self._soon.clear()

    async def leave(self) -> bool:
        """Say that the agent is about to stop; return whether anybody could hear it."""
        self._is_leaving = True
        try:
            await self._bus.publish(subjects.of_node(self._node, "heartbeat"), self._heartbeat())
        except BoundaryError as e:
            log.debug("nobody hears that we leave: %s", e)
            return False
        return True

    def _message(self) -> InventoryMessage:
        return InventoryMessage(
            node=self._node,
            agent=self._agent,
            digest=self._inventory.digest,
            vendors=self._inventory.vendors,
            devices=list(self._inventory.cards),
            identifies_pods=self.identifies_pods,
            driver=self._inventory.versions.driver,
            cuda=self._inventory.versions.cuda,
        )

    def _heartbeat(self) -> Heartbeat:
        return Heartbeat(
            node=self._node,
            agent=self._agent,
            digest=self._inventory.digest,
            unhealthy=self._inventory.unhealthy,
            holding=self._containers.holding(),
            cards=[
                MeasuredCard(device=uuid, memory=_mib(use.memory), busy=use.busy)
                for uuid, use in self._inventory.facts.items()
            ],
            containers=[
                MeasuredContainer(
                    pod=use.pod, container=use.container, device=card.uuid, memory=card.used // MIB, cores=card.cores
                )
                for use in self._containers.used()
                for card in use.reading.cards
            ],
            drift=list(self._containers.drift()),
            leaving=self._is_leaving,
            offered=self._containers.offered(),
        )


def _told(piece: Piece) -> MadeInstance:
    return MadeInstance(
        container=piece.container,
        place=piece.place,
        device=piece.card,
        uuid=piece.uuid,
        gpu_instance=piece.gpu_instance,
        compute_instance=piece.compute_instance,
    )


def _mib(size: int | None) -> int | None:
    return None if size is None else size // MIB
