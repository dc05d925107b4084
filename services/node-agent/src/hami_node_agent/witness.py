"""Gathers what tells whose call it is: PodResources, the own pod watch, pushes, and a read where all are behind.

One rule: List only while the kubelet asks for a preference; Get only in Allocate. What follows from the sights is
decided in ``identity.py``.
"""

import asyncio
import logging
from collections.abc import Iterable, Sequence
from typing import Protocol

from hami_model.objects import PodRef
from hami_model.request import Role
from msgspec import Struct

from hami_node_agent import identity
from hami_node_agent.identity import Candidate, Offer, PodView, Wanting
from hami_node_agent.kubelet import KubeletUnreachable, ListedPod, Sights
from hami_node_agent.pods import NodePods
from hami_node_agent.table import Entry, Table

log = logging.getLogger(__name__)

WATCH_LAG = 0.1
"""Seconds given to our pod watch to show a pod that the kubelet has already: 14 ms is the most that was measured."""


class Asker(Struct, frozen=True, kw_only=True):
    """The container that a call is for."""

    pod: PodRef
    container: str
    position: int
    role: Role


class Reader(Protocol):
    """Reads a pod from the API server when the watch is behind."""

    async def read(self, namespace: str, name: str) -> None:
        """Read the pod once and show it to the node's pods; a pod that cannot be read changes nothing."""
        ...


class Witness:
    """Finds the container that a call about one resource is for."""

    def __init__(
        self, *, resource: str, vendor: str, table: Table, pods: NodePods, kubelet: Sights, reader: Reader
    ) -> None:
        self._resource = resource
        self._vendor = vendor
        self._table = table
        self._pods = pods
        self._kubelet = kubelet
        self._reader = reader

    async def of_offer(self, offer: Offer) -> Asker | None:
        """Return who asks in GetPreferredAllocation, where List is allowed."""
        if offer.must_include:
            return self._after_init(offer.must_include, offer.size) or await self._by_get(offer.size)
        try:
            listed = await self._kubelet.list_pods()
        except KubeletUnreachable as e:
            log.warning("whose call it is must be told without List: %s", e)
            return None
        await self._know(listed)
        found = await self._pods.wait_for(lambda: self._among(listed, offer.size), WATCH_LAG)
        # By now the watch has shown which containers do not run any more: one of them may be asking again.
        found = found or self._among(listed, offer.size, restarts=True)
        return _asker(found) if found is not None else None

    async def of_ids(self, ids: Sequence[str]) -> Asker | None:
        """Return whose Allocate it is: by the IDs answered, by an init container's IDs, else by asking for each pod."""
        answered = self._table.pending(self._resource, ids)
        if answered is not None:
            return _known(answered)
        return self._after_init(ids, len(ids)) or await self._by_get(len(ids))

    def view(self, uid: str) -> PodView | None:
        """Return a pod as seen, else as pushed."""
        pod = self._pods.get(uid)
        if pod is not None:
            return identity.view_of(pod, self._resource)
        pushed = next((a for a in self._pods.pushed if a.pod.uid == uid), None)
        return identity.view_of_allocation(pushed, self._vendor) if pushed is not None else None

    def is_served(self, uid: str) -> bool:
        """Say whether every container of the pod that wants the resource has it."""
        view = self.view(uid)
        return view is not None and identity.is_served(view, self._table, self._resource)

    def _after_init(self, ids: Iterable[str], size: int) -> Asker | None:
        view = identity.after_init(ids, self.view, self._table, resource=self._resource)
        if view is None:
            return None
        container = identity.next_container(view, self._table, resource=self._resource, size=size)
        return _asker(Candidate(view=view, container=container)) if container is not None else None

    async def _know(self, listed: Iterable[ListedPod]) -> None:
        """Wait until every listed pod is known, for a moment; then read those that are not."""

        def unknown() -> list[ListedPod]:
            return [sight for sight in listed if not self._namesakes(sight)]

        if await self._pods.wait_for(lambda: None if unknown() else True, WATCH_LAG) is None:
            async with asyncio.TaskGroup() as reads:
                for sight in unknown():
                    reads.create_task(self._reader.read(sight.namespace, sight.name))

    def _namesakes(self, sight: ListedPod) -> list[PodView]:
        """Return every pod that the listed one may be: it has a name and no uid. The living first."""
        named = self._pods.named(sight.namespace, sight.name)
        live = [identity.view_of(pod, self._resource) for pod in named if self._pods.is_live(pod.metadata.uid)]
        gone = [identity.view_of(pod, self._resource) for pod in named if not self._pods.is_live(pod.metadata.uid)]
        pushed = [
            identity.view_of_allocation(allocation, self._vendor)
            for allocation in self._pods.pushed
            if (allocation.pod.namespace, allocation.pod.name) == (sight.namespace, sight.name)
        ]
        return [*live, *pushed, *gone]

    def _among(self, listed: Iterable[ListedPod], size: int, *, restarts: bool = False) -> Candidate | None:
        """Return the one candidate among the listed pods, one per name at most; containers that restart if asked to."""
        found = []
        for sight in listed:
            namesakes = [self._candidate(view, sight, size) for view in self._namesakes(sight) if not view.ended]
            best = min((c for c in namesakes if c is not None), key=identity.rank, default=None)
            if best is not None and (restarts or not identity.is_restart(best)):
                found.append(best)
        return identity.pick(found)

    async def _by_get(self, size: int) -> Asker | None:
        """Ask the kubelet for each pod that may be meant: one that it does not know was not admitted yet."""
        nobody = ListedPod(namespace="", name="", containers={})
        asking = [c for view in self._bound() if (c := self._candidate(view, nobody, size)) is not None]
        try:
            for group in _by_likelihood(asking):
                admitted = [found for c in group if (found := await self._admitted(c, size)) is not None]
                if admitted:
                    picked = identity.pick(admitted)
                    return _asker(picked) if picked is not None else None
        except KubeletUnreachable as e:
            log.warning("whose Allocate it is must be told without Get: %s", e)
            picked = identity.pick(asking)
            return _asker(picked) if picked is not None else None
        return None

    async def _admitted(self, asking: Candidate, size: int) -> Candidate | None:
        pod = asking.view.pod
        sight = await self._kubelet.get_pod(pod.namespace, pod.name)
        return self._candidate(asking.view, sight, size) if sight is not None else None

    def _bound(self) -> list[PodView]:
        live = [identity.view_of(pod, self._resource) for pod in self._pods.live]
        pushed = [identity.view_of_allocation(allocation, self._vendor) for allocation in self._pods.pushed]
        return [view for view in (*live, *pushed) if view.wanting and not view.ended]

    def _candidate(self, view: PodView, sight: ListedPod, size: int) -> Candidate | None:
        shown = sight.shown(self._resource)
        return identity.candidate(view, shown, self._table, resource=self._resource, size=size)


def _by_likelihood(asking: Sequence[Candidate]) -> list[list[Candidate]]:
    """Group candidates: unserved and not started; unserved; served and not started (an Allocate lost on its way)."""
    unserved = [c for c in asking if identity.rank(c) < 2]
    return [
        [c for c in unserved if not c.view.started],
        [c for c in unserved if c.view.started],
        [c for c in asking if identity.rank(c) == 2 and not c.view.started],
    ]


def _asker(found: Candidate) -> Asker:
    container: Wanting = found.container
    return Asker(pod=found.view.pod, container=container.name, position=container.position, role=container.role)


def _known(entry: Entry) -> Asker:
    return Asker(pod=entry.pod, container=entry.container, position=entry.position, role=entry.role)
