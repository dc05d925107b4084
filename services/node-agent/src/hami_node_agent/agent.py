"""The agent of one node, put together: its cards, its table, a desk and a plugin for each vendor it serves.

One rule: the table is complete before the kubelet may ask. Bus and API server may come and go; neither is waited for
once the node's pods were seen.
"""

import asyncio
import logging
import shutil
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

from hami_kit.bus import Bus, Endpoint, Handle
from hami_kit.clock import Clock
from hami_kit.telemetry import Telemetry
from hami_model.allocation import Grant
from hami_model.bus import subjects
from hami_model.bus.messages import Leading, PushAllocation, ReportWanted, Withdraw
from hami_model.objects import Pod, PodRef
from msgspec import Struct

from hami_node_agent.desk import PATIENCE, Desk, Office, Resource, trace_of
from hami_node_agent.drift import EVERY
from hami_node_agent.drift.lookout import Lookout
from hami_node_agent.drift.owners import Owners
from hami_node_agent.drift.telling import DriftEvents
from hami_node_agent.inventory import Inventory
from hami_node_agent.kubelet import KubeletUnreachable, ListedPod, PodResources, read_checkpoint
from hami_node_agent.limits import Receiver, folder_of
from hami_node_agent.mig.book import Piece
from hami_node_agent.mig.cutter import Cutter
from hami_node_agent.mig.users import Users, users
from hami_node_agent.plugin import KUBELET_SOCKET, Plugin, Registered
from hami_node_agent.pods import NodePods
from hami_node_agent.rebuild import doubt, rebuild
from hami_node_agent.releases import Releases
from hami_node_agent.report import RESTATE_WITHIN, Containers, Presence, Reports
from hami_node_agent.table import Entry, Table, TableFile
from hami_node_agent.usage.monitor import Monitor
from hami_node_agent.witness import Reader, Witness

log = logging.getLogger(__name__)


class Places(Struct, frozen=True, kw_only=True):
    """Where things stand on the node."""

    kubelet: Path
    home: Path
    """HAMi's folder ``vgpu``; our table stands in it."""
    proc: Path = Path("/proc")
    """Where the host's processes are to be seen."""

    @property
    def plugins(self) -> Path:
        """Return the folder of the kubelet's and the plugins' sockets."""
        return self.kubelet / "device-plugins"

    @property
    def pod_resources(self) -> Path:
        """Return the socket of PodResources."""
        return self.kubelet / "pod-resources" / KUBELET_SOCKET

    @property
    def table(self) -> Path:
        """Return the file of our own table."""
        return self.home / "agent" / "table.json"

    @property
    def instances(self) -> Path:
        """Return the file that says which MIG instances are ours."""
        return self.home / "agent" / "mig.json"


class Agent:
    """Everything one node's agent does, from the moment its pods are watched."""

    def __init__(  # noqa: PLR0913  wired in one place, by keyword
        self,
        *,
        node: str,
        name: str,
        places: Places,
        resources: Sequence[Resource],
        inventory: Inventory,
        pods: NodePods,
        bus: Bus,
        reader: Reader,
        telemetry: Telemetry,
        clock: Clock,
        jitter: Callable[[float], float],
        compare_every: float = EVERY,
        cutter: Cutter | None = None,
    ) -> None:
        self._node = node
        self._cutter = cutter
        self._places = places
        self._inventory = inventory
        self._bus = bus
        self._jitter = jitter
        self.pods = pods
        file = TableFile(places.table)
        self.table = Table(_written(file), on_change=file.write)
        self._kubelet = PodResources(places.pod_resources)
        self.reports = Reports(
            bus,
            node=node,
            telemetry=telemetry,
            is_complete=self._is_complete,
            jitter=jitter,
            instances=lambda uid: cutter.book.of_pod(uid) if cutter is not None else (),
        )
        self.presence = Presence(
            bus,
            node=node,
            agent=name,
            inventory=inventory,
            jitter=jitter,
            containers=Containers(
                holding=self._holders,
                used=lambda: self.monitor.seen,
                drift=lambda: self.lookout.findings,
                offered=lambda: self.offered,
            ),
        )
        self.monitor = Monitor(places.home, pods=lambda: pods.live, holders=self._holders, clock=clock)
        self._releases = Releases(
            table=self.table,
            pods=pods,
            kubelet=self._kubelet,
            pods_folder=places.kubelet / "pods",
            clock=clock,
            on_release=self._released,
            made=cutter,
        )
        self.lookout = Lookout(
            table=self.table,
            pods=pods,
            kubelet=self._kubelet,
            plugins=places.plugins,
            resources=[resource.name for resource in resources],
            inventory=inventory,
            owners=Owners(places.proc),
            tell=DriftEvents(bus, node=node, agent=name, pods=pods, clock=clock).tell,
            every=compare_every,
        )
        office = Office(
            inventory=inventory,
            table=self.table,
            pods=pods,
            reader=reader,
            releases=self._releases,
            reports=self.reports,
            telemetry=telemetry,
            clock=clock,
            turn=asyncio.Lock(),
            cutter=cutter,
            patience=PATIENCE,
        )
        self._witnesses = {r.name: self._witness(r, reader) for r in resources}
        self._desks = [Desk(r, office=office, witness=self._witnesses[r.name]) for r in resources]
        self._plugins = [
            Registered(
                Plugin(desk, inventory),
                resource=desk.resource.name,
                folder=places.plugins,
                on_kubelet=partial(self._doubt, desk.resource.name),
                jitter=jitter,
            )
            for desk in self._desks
        ]

    @property
    def node(self) -> str:
        """Return the node's name."""
        return self._node

    @property
    def inventory(self) -> Inventory:
        """Return the node's cards."""
        return self._inventory

    @property
    def is_registered(self) -> bool:
        """Say whether the kubelet knows every plugin of ours."""
        return all(plugin.is_registered for plugin in self._plugins)

    @property
    def offered(self) -> list[str]:
        """Return the vendors whose every resource the kubelet takes from us."""
        others = {d.resource.vendor for d, p in zip(self._desks, self._plugins, strict=True) if not p.is_followed}
        return sorted({desk.resource.vendor for desk in self._desks} - others)

    @property
    def served(self) -> int:
        """Count the Allocates answered with devices."""
        return sum(desk.served for desk in self._desks)

    @property
    def refused(self) -> int:
        """Count the calls answered with an error."""
        return sum(desk.refused for desk in self._desks)

    @property
    def instances(self) -> tuple[Piece, ...]:
        """Return the MIG instances that containers have."""
        return tuple(p for p in self._cutter.book.pieces if p.uuid) if self._cutter is not None else ()

    def pods_listed(self, pods: Sequence[Pod], unread: Collection[str] = ()) -> None:
        """Take a whole list of the node's pods; whoever holds devices and is not on it is gone.

        ``unread`` are the uids of pods on it that could not be read: they stay as they were.
        """
        self.pods.replace(pods, unread)
        self.pods.miss(ref for ref in self._releases.holders if ref.uid not in unread)

    def pod_changed(self, pod: Pod, *, is_gone: bool) -> None:
        """Take one pod's change."""
        (self.pods.lose if is_gone else self.pods.see)(pod)

    async def run(self) -> None:
        """Serve until cancelled; the node's pods have been listed already."""
        await self._complete_table()
        held = await self._listen()
        try:
            async with asyncio.TaskGroup() as tasks:
                for plugin in self._plugins:
                    tasks.create_task(plugin.run(), name="plugin")
                for work in (
                    self._releases.run,
                    self.reports.run,
                    self._inventory.run,
                    self.monitor.run,
                    self.lookout.run,
                    self.presence.run_inventory,
                    self.presence.run_changes,
                    self.presence.run_heartbeat,
                ):
                    tasks.create_task(work())
                if self._cutter is not None:
                    tasks.create_task(self._cutter.run(self._users), name="cutter")
        finally:
            for handle in held:
                await handle.stop()
            await self._kubelet.close()

    async def _complete_table(self) -> None:
        """Make up for what happened while no agent ran: pods that ended, containers that an older plugin served."""
        if self._cutter is not None:
            await self._cutter.take_over(self._users)
            with suppress(ValueError):  # what was seen before stands
                await self._inventory.look()
        await self._releases.sweep()
        names = [desk.resource.name for desk in self._desks]
        rebuild(
            self.table,
            pods=self.pods.live,
            checkpoint=read_checkpoint(self._places.plugins, names),
            listed=await self._listed(),
            grants_of=self._grants_of,
        )
        self.reports.restate(self.table, lambda pod: trace_of(self.pods, pod))

    def _doubt(self, resource: str) -> None:
        """Take note that a kubelet may have begun anew, which knows what its checkpoint says and no more."""
        checkpoint = read_checkpoint(self._places.plugins, [resource])
        doubt(self.table, resource=resource, pod=self.pods.get, checkpoint=checkpoint)

    async def _listed(self) -> tuple[ListedPod, ...]:
        """List once, before anybody can ask us."""
        if not self._places.pod_resources.exists():
            if (self._places.plugins / KUBELET_SOCKET).exists():
                self.presence.identifies_pods = False
                log.warning("%s is not there: pods cannot be told apart for sure", self._places.pod_resources)
            return ()
        try:
            return await self._kubelet.list_pods()
        except KubeletUnreachable as e:
            log.warning("the table is completed without List: %s", e)
            return ()

    async def _listen(self) -> list[Handle]:
        """Hear what the allocator says to this node."""

        def of(what: str) -> str:
            return subjects.of_node(self._node, what)

        endpoint = Endpoint("report", of("report"), ReportWanted, self.presence.report_wanted)
        return [
            await self._bus.subscribe(of("allocation"), PushAllocation, self._pushed),
            await self._bus.subscribe(of("withdraw"), Withdraw, self._withdrawn),
            await self._bus.subscribe(subjects.LEADER, Leading, self._led),
            await self._bus.serve("hami-node-agent", [endpoint]),
        ]

    async def _pushed(self, _subject: str, message: PushAllocation) -> None:
        self.pods.push(message)

    async def _withdrawn(self, _subject: str, message: Withdraw) -> None:
        self.pods.withdraw(message)

    async def _led(self, _subject: str, message: Leading) -> None:
        self.pods.led_by(message.term)
        log.info("%s leads now: stating again what this node has and serves", message.identity)
        await asyncio.sleep(self._jitter(RESTATE_WITHIN))
        await self.presence.report_wanted(message)
        self.reports.restate(self.table, lambda pod: trace_of(self.pods, pod))

    def _witness(self, resource: Resource, reader: Reader) -> Witness:
        return Witness(
            resource=resource.name,
            vendor=resource.vendor,
            table=self.table,
            pods=self.pods,
            kubelet=self._kubelet,
            reader=reader,
        )

    def _holders(self) -> list[str]:
        return [pod.uid for pod in self._releases.holders]

    def _users(self) -> Users:
        return users(
            self.table.entries,
            (pod for pod in self.pods.live if not self.pods.is_over(pod.metadata.uid)),
            allocation=self.pods.allocation,
            resources=list(self._witnesses),
            cards=[card.id for card in self.inventory.cards],
        )

    def _is_complete(self, pod: PodRef) -> bool:
        return all(witness.is_served(pod.uid) for witness in self._witnesses.values())

    def _grants_of(self, pod: Pod, container: str, resource: str) -> tuple[Grant, ...]:
        vendor = next(desk.resource.vendor for desk in self._desks if desk.resource.name == resource)
        allocation = self.pods.allocation(PodRef.of(pod))
        mine = [c for c in allocation.containers if c.name == container] if allocation is not None else []
        return tuple(grant for one in mine for grant in one.grants if grant.vendor == vendor)

    def _released(self, pod: PodRef, entries: tuple[Entry, ...]) -> None:
        log.info("the devices of %s are free again", pod)
        self.reports.forget(pod)
        self.presence.beat_soon()
        for entry in entries:
            shutil.rmtree(folder_of(self._places.home, Receiver(uid=pod.uid, name=entry.container)), ignore_errors=True)


def _written(file: TableFile) -> tuple[Entry, ...]:
    try:
        return file.read()
    except ValueError as e:
        log.warning("%s", e)
        return ()
