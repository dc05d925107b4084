"""The desk where the kubelet asks for one resource: whose call it is, what the pod was given, whether it fits.

One rule: one call at a time on the whole node, each answered from what is at hand; a wait is short (the kubelet's main
loop stands still meanwhile) and ends in a refusal, which is terminal for the pod and is reported with its reason.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence

from hami_kit.clock import Clock
from hami_kit.telemetry import Telemetry, parent_of_pod, parent_of_uid, traceparent
from hami_model.allocation import Grant
from hami_model.objects import Container, PodRef
from msgspec import Struct

from hami_node_agent import fence, identity
from hami_node_agent.edits import Edits
from hami_node_agent.identity import Offer
from hami_node_agent.inventory import Inventory, card_of
from hami_node_agent.limits import Limiter, Receiver
from hami_node_agent.mig.book import Piece, pieces
from hami_node_agent.mig.cutter import CannotCut, Cutter
from hami_node_agent.pods import NodePods
from hami_node_agent.releases import Releases
from hami_node_agent.report import Reports
from hami_node_agent.table import Entry, Table
from hami_node_agent.witness import Asker, Reader, Witness

log = logging.getLogger(__name__)

PATIENCE = 2.0
"""Seconds that a call may wait: for an allocation that is on its way, for devices of a pod on its way out."""

LAG = 0.3
"""Seconds by which our watch may be behind the allocator's: so long a full card is given the benefit of the doubt."""

PAUSE = 0.05


class Refusal(Exception):
    """Why the kubelet gets an error, in one sentence; ``pod`` is None where it could not be told."""

    def __init__(self, why: str, asker: Asker | None = None) -> None:
        super().__init__(why)
        self.pod = asker.pod if asker is not None else None
        self.container = asker.container if asker is not None else ""


def _never() -> bool:
    return False


class Resource(Struct, frozen=True, kw_only=True):
    """What one desk serves: a count resource, the vendor behind it, and what its containers are given."""

    name: str
    vendor: str
    limiter: Limiter
    tells_numa: Callable[[], bool] = _never
    """Whether the kubelet hears now which NUMA node a card is on."""


class Office(Struct, frozen=True, kw_only=True):
    """What all desks of a node share. ``turn`` is held by the one call that is being answered."""

    inventory: Inventory
    table: Table
    pods: NodePods
    reader: Reader
    releases: Releases
    reports: Reports
    telemetry: Telemetry
    clock: Clock
    turn: asyncio.Lock
    cutter: Cutter | None = None
    """Who makes MIG instances here; None where no card can be cut."""
    patience: float = PATIENCE


class Desk:
    """Answers GetPreferredAllocation and Allocate of one resource."""

    def __init__(self, resource: Resource, *, office: Office, witness: Witness) -> None:
        self.resource = resource
        self._office = office
        self._witness = witness
        self.served = 0
        self.refused = 0

    async def prefer(self, offer: Offer) -> tuple[str, ...]:
        """Answer IDs of the asking container's cards and remember whose they are; nothing where that is not clear."""
        async with self._office.turn:
            asker = await self._witness.of_offer(offer)
            if asker is None:
                log.info(
                    "whose preference the kubelet asks for (%d of %s) is not clear", offer.size, self.resource.name
                )
                return ()
            grants = await self._grants(asker, offer.size)
            ids = await self._free_ids(asker, offer, grants)
            self._office.table.put(self._entry(asker, ids, grants))
            return ids

    async def allocate(self, ids: Sequence[str]) -> Edits:
        """Answer what the container behind these IDs gets, and confirm it to the allocator."""
        async with self._office.turn:
            asker = await self._witness.of_ids(ids)
            if asker is None:
                raise Refusal(
                    f"no one pod of this node can be told to have asked for {self.resource.name} ({', '.join(ids)}): "
                    "create the pod again"
                )
            with self._office.telemetry.span(
                "Allocate", parent=self._trace(asker.pod), pod=str(asker.pod), container=asker.container
            ):
                return await self._serve(asker, ids)

    def refuse(self, refusal: Refusal) -> None:
        """Report a refusal; the kubelet fails the pod with its sentence."""
        self.refused += 1
        parent = self._trace(refusal.pod) if refusal.pod is not None else ""
        self._office.reports.refuse(str(refusal), pod=refusal.pod, container=refusal.container, parent=parent)

    async def _serve(self, asker: Asker, ids: Sequence[str]) -> Edits:
        grants = await self._grants(asker, len(ids))
        entry = self._entry(asker, tuple(ids), grants, served=True)
        await self._wait_room(asker, lambda: self._objection(entry))
        receiver = Receiver(
            uid=asker.pod.uid,
            name=asker.container,
            spec=await self._spec(asker),
            instances=await self._instances(asker, grants),
        )
        try:
            given = self.resource.limiter(receiver, grants)
        except OSError as e:
            raise Refusal(f"the container's folder cannot be made on the node: {e}", asker) from e
        self._office.table.put(entry)
        self.served += 1
        self._office.reports.confirm(entry, parent=traceparent() or self._trace(asker.pod))
        return given

    async def _instances(self, asker: Asker, grants: Sequence[Grant]) -> tuple[Piece, ...]:
        if self._office.cutter is None:
            return ()
        try:
            return await self._office.cutter.make(asker.pod, asker.container, grants)
        except CannotCut as e:
            raise Refusal(str(e), asker) from e
        except OSError as e:
            raise Refusal(f"whose a MIG instance is cannot be written down on the node: {e}", asker) from e

    async def _grants(self, asker: Asker, count: int) -> tuple[Grant, ...]:
        """Return what the allocation gives the container; wait for one that is on its way, then read the pod once."""
        found = await self._office.pods.wait_for(lambda: self._granted(asker), self._office.patience)
        if found is None:
            await self._office.reader.read(asker.pod.namespace, asker.pod.name)
            found = self._granted(asker)
        if found is None:
            raise Refusal(
                f"pod {asker.pod} was bound without an allocation of {self.resource.name}: "
                "let it be scheduled by the scheduler that our webhook names",
                asker,
            )
        if len(found) != count:
            raise Refusal(
                f"the allocation gives container {asker.container} {len(found)} of {self.resource.name}, "
                f"the kubelet asks for {count}",
                asker,
            )
        return found

    def _granted(self, asker: Asker) -> tuple[Grant, ...] | None:
        allocation = self._office.pods.allocation(asker.pod)
        if allocation is None:
            return None
        return tuple(
            grant
            for container in allocation.containers
            if container.name == asker.container
            for grant in container.grants
            if grant.vendor == self.resource.vendor
        )

    async def _free_ids(self, asker: Asker, offer: Offer, grants: Sequence[Grant]) -> tuple[str, ...]:
        def choose() -> tuple[str, ...] | None:
            return identity.choose_ids(
                offer,
                cards=[grant.uuid for grant in grants],
                is_held=lambda i: self._is_held(i, asker),
                card_of=card_of,
            )

        await self._wait_room(
            asker, lambda: None if choose() else f"too few device IDs of {self.resource.name} are free on this node"
        )
        return choose() or ()

    def _is_held(self, device_id: str, asker: Asker) -> bool:
        mine = (asker.pod.uid, asker.container, self.resource.name)
        return any(entry.key != mine for entry in self._office.table.holders(device_id))

    def _objection(self, entry: Entry) -> str | None:
        other = identity.held_by_another(entry.ids, entry.pod.uid, self._office.table)
        if other is not None:
            return f"device {other[0]} is still held by pod {other[1].pod}"
        inventory, pods, cutter = self._office.inventory, self._office.pods, self._office.cutter
        full = fence.overfull(self._office.table.entries, entry, card=inventory.card, pod=pods.get)
        if full is not None or cutter is None:
            return full
        return cutter.objection(pieces(entry.pod, entry.container, entry.grants))

    async def _wait_room(self, asker: Asker, objection: Callable[[], str | None]) -> None:
        """Return when nothing stands against it; while somebody is on the way out, wait for that, else refuse soon."""
        start = self._office.clock.monotonic()
        while (why := objection()) is not None:
            waited = self._office.clock.monotonic() - start
            if waited >= (self._office.patience if self._office.releases.expected else LAG):
                raise Refusal(why, asker)
            await self._office.releases.sweep()
            await asyncio.sleep(PAUSE)

    def _entry(self, asker: Asker, ids: tuple[str, ...], grants: tuple[Grant, ...], *, served: bool = False) -> Entry:
        return Entry(
            pod=asker.pod,
            container=asker.container,
            position=asker.position,
            role=asker.role,
            resource=self.resource.name,
            ids=ids,
            grants=grants,
            served=served,
        )

    async def _spec(self, asker: Asker) -> Container | None:
        """Return the container's spec; of a pod known only from its push, what the API server has, if it answers."""
        if self._office.pods.get(asker.pod.uid) is None:
            await self._office.reader.read(asker.pod.namespace, asker.pod.name)
        pod = self._office.pods.get(asker.pod.uid)
        return next((c for c in pod.all_containers if c.name == asker.container), None) if pod is not None else None

    def _trace(self, pod: PodRef) -> str:
        return trace_of(self._office.pods, pod)


def trace_of(pods: NodePods, pod: PodRef) -> str:
    """Return the traceparent of a pod's trace: as pushed, as the webhook wrote it, else as everybody derives it."""
    seen = pods.get(pod.uid)
    written = parent_of_pod(seen) if seen is not None else None
    return pods.pushed_trace(pod.uid) or written or parent_of_uid(pod.uid)
