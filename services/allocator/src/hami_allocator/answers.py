"""The reading side: why a pod is where it is, what would happen if, and everything that we know.

One rule: it reads a copy taken in one letter and works on it in another thread, two at a time at most; nothing that it
does can be seen by deciding. Leader and followers answer alike; only the leader knows reservations.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import TypeVar

from hami_model.bus.messages import (
    AskSnapshot,
    Booking,
    DeviceUse,
    ExplainAnswer,
    ExplainPod,
    Explanation,
    NodeUse,
    NodeVerdict,
    NoDevices,
    Refused,
    Simulate,
    SimulateAnswer,
    Simulated,
    Snapshot,
    SnapshotAnswer,
)
from hami_model.charge import Charge
from hami_model.demands import pod_demand
from hami_model.device import Device
from hami_model.errors import DomainError
from hami_model.explain import explain
from hami_model.fleet import Fleet
from hami_model.life import Entry
from hami_model.objects import Node, Pod, PodRef
from hami_model.place import Placement, place, why_not
from hami_model.policies import for_pod
from hami_model.quota import QuotaView
from hami_model.request import asks_for_devices
from msgspec import Struct, structs

from hami_allocator.nodes import Nodes
from hami_allocator.world import World
from hami_allocator.writer import Writer

R = TypeVar("R")
AT_ONCE = 2
PAGE_LIMIT = 500
"""Nodes of one page of the snapshot at most; about 1 MB with eight cards each."""


class View(Struct, frozen=True):
    """A copy of what deciding sees, for one pod's namespace."""

    fleet: Fleet
    quota: QuotaView


class Answers:
    """Answers read-only questions."""

    def __init__(
        self, world: World, writer: Writer, *, leader: Callable[[], str], is_synced: Callable[[], bool]
    ) -> None:
        self._world = world
        self._writer = writer
        self._leader = leader
        self._is_synced = is_synced
        self._gate = asyncio.Semaphore(AT_ONCE)

    # explain

    async def explain(self, question: ExplainPod) -> ExplainAnswer:
        """Say why the pod is where it is; for one that waits, judge every node card by card."""
        if not self._is_synced():
            return _NOT_SYNCED
        found = await self._writer.ask(lambda: self._find(question))
        if found is None:
            return Refused(
                error=f"pod {question.namespace}/{question.name} neither holds devices nor waits for any: "
                "check its name and namespace, and that its limits name a device resource"
            )
        pod, entry = found
        if entry is not None:
            return _explain_entry(entry)
        view = await self._writer.ask(lambda: self._view(pod.metadata.namespace))
        nodes = self._world.nodes.names
        return await self._aside(lambda: self._judge(pod, view, nodes))

    def _find(self, question: ExplainPod) -> tuple[Pod, Entry | None] | None:
        name = (question.namespace, question.name)
        entries = [
            e
            for e in self._world.ledger.entries
            if (e.allocation.pod.namespace, e.allocation.pod.name) == name and question.uid in ("", e.uid)
        ]
        if entries:
            return entries[-1].pod, entries[-1]
        waiting = [
            p
            for p in self._world.unbound.values()
            if (p.metadata.namespace, p.metadata.name) == name and question.uid in ("", p.metadata.uid)
        ]
        return (waiting[-1], None) if waiting else None

    def _judge(self, pod: Pod, view: View, nodes: Sequence[str]) -> ExplainAnswer:
        ref = PodRef.of(pod)
        try:
            demand = pod_demand(pod, self._world.catalog)
            policies = for_pod(pod, self._world.policies)
            verdicts = explain(view.fleet, pod, demand, nodes, policies=policies, quota=view.quota)
        except DomainError as error:
            return Explanation(pod=ref, summary=str(error))
        return Explanation(pod=ref, nodes=list(verdicts), summary=_summary(verdicts))

    # simulate

    async def simulate(self, question: Simulate) -> SimulateAnswer:
        """Say whether one of these nodes, empty, would take the pod."""
        if not self._is_synced():
            return _NOT_SYNCED
        namespace = question.pod.metadata.namespace
        quota = await self._writer.ask(lambda: self._world.quotas.view(namespace))
        return await self._aside(lambda: self._imagine(question, quota))

    def _imagine(self, question: Simulate, quota: QuotaView) -> SimulateAnswer:
        try:
            demand = pod_demand(question.pod, self._world.catalog)
            if not asks_for_devices(demand):
                return NoDevices()
            policies = for_pod(question.pod, self._world.policies)
            fleet = self._fleet_of(question.nodes)
            names = [node.metadata.name for node in question.nodes]
            outcome = place(fleet, question.pod, demand, names, policies=policies, quota=quota)
            reasons = why_not(fleet, question.pod, demand, names, policies=policies, quota=quota)
        except DomainError as error:
            return Refused(error=str(error))
        # HAMi compat: the nodes that refuse are named beside the one that takes the pod.
        failed = {names[position]: text for text, positions in reasons.items() for position in positions}
        return Simulated(node=outcome.node if isinstance(outcome, Placement) else None, failed=failed)

    def _fleet_of(self, nodes: Sequence[Node]) -> Fleet:
        """Return a fleet of these nodes alone; one whose registration cannot be read has no cards."""
        fleet = Fleet(self._world.catalog)
        for node in nodes:
            for vendor in self._world.catalog.vendors:
                try:
                    devices = vendor.discover(vendor, node)
                except DomainError:
                    continue
                fleet.set_devices(node.metadata.name, vendor.word, devices)
            fleet.set_node(node)
        return fleet

    # snapshot

    async def snapshot(self, question: AskSnapshot) -> SnapshotAnswer:
        """Return a page of nodes with all that is booked on them."""
        if not self._is_synced():
            return _NOT_SYNCED
        return await self._writer.ask(lambda: self._page(question))

    def _page(self, question: AskSnapshot) -> Snapshot:
        limit = min(max(question.limit, 1), PAGE_LIMIT)
        names = sorted(name for name in self._every_node() if name > question.after)
        page = names[:limit]
        return Snapshot(
            nodes=[node_use(self._world.fleet, self._world.nodes, name) for name in page],
            bookings=[
                Booking(allocation=e.allocation, state=e.state)
                for name in page
                for e in self._world.ledger.on_node(name)
            ],
            next=page[-1] if len(names) > limit else "",
            leader=self._leader(),
        )

    def _every_node(self) -> set[str]:
        return {*self._world.nodes.names, *(e.node for e in self._world.ledger.entries)}

    def _view(self, namespace: str) -> View:
        return View(self._world.fleet.snapshot(), self._world.quotas.view(namespace))

    async def _aside(self, work: Callable[[], R]) -> R:
        async with self._gate:
            return await asyncio.to_thread(work)


def node_use(fleet: Fleet, nodes: Nodes, name: str) -> NodeUse:
    """Return one node's cards and what is booked on each."""
    used = fleet.use(name)
    devices = fleet.devices(name)
    sources = {nodes.source(name, device.vendor) for device in devices}
    unhealthy = fleet.standing(name).unhealthy
    return NodeUse(
        node=name,
        source=",".join(sorted(source for source in sources if source is not None)),
        ready=all(fleet.is_ready(name, device.vendor) for device in devices),
        devices=[_device_use(device, used.get((device.vendor, device.id), Charge()), unhealthy) for device in devices],
        drift=list(nodes.drift(name)),
    )


def _device_use(device: Device, used: Charge, unhealthy: frozenset[str]) -> DeviceUse:
    shown = structs.replace(device, healthy=False) if device.id in unhealthy else device
    return DeviceUse(device=shown, used_slots=used.slots, used_memory=used.memory, used_cores=used.cores)


_NOT_SYNCED = Refused(error="the allocator has not seen the whole cluster yet: ask again shortly", retriable=True)


def _explain_entry(entry: Entry) -> Explanation:
    return Explanation(
        pod=entry.allocation.pod,
        state=entry.state,
        allocation=entry.allocation,
        summary=f"{entry.state} on node {entry.node}",
    )


def _summary(verdicts: Sequence[NodeVerdict]) -> str:
    fitting = [v for v in verdicts if v.fits]
    if fitting:
        return f"{len(fitting)} of {len(verdicts)} nodes would take the pod now"
    counts: dict[str, int] = {}
    for verdict in verdicts:
        counts[verdict.text] = counts.get(verdict.text, 0) + 1
    reasons = ", ".join(f"{count} {text}" for text, count in sorted(counts.items()))
    return f"0 of {len(verdicts)} nodes take the pod: {reasons}" if verdicts else "there is no node"
