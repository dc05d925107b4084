"""From the watches to the books: nodes, pods and quotas as Kubernetes shows them.

One rule: Kubernetes is the durable truth, and a list replaces what was known; what it has and we cannot read stays as
it was. Long lists are taken in portions, so that a filter never waits behind one.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from typing import TypeVar

from hami_kit.clock import Clock
from hami_kit.kube.reflector import ChangeKind
from hami_kit.kube.wire import Identity
from hami_model import quota as quotas
from hami_model.life import Event, Released
from hami_model.objects import Node, Pod, PodRef, ResourceQuota
from hami_model.observe import Doubtful, Malformed, Notice, Unaccounted, gone, has_ended, missing, observe

from hami_allocator.agents import Agents
from hami_allocator.facts import Fact, about
from hami_allocator.world import World
from hami_allocator.writer import Writer

T = TypeVar("T")
LINGER = 30.0
"""Seconds for which the containers of a pod that ended are waited for."""
PORTION = 10
"""Objects of a list that are taken at once: about a millisecond's work."""


class Reconcile:
    """Takes what reflectors bring to the writer."""

    def __init__(self, world: World, writer: Writer, agents: Agents, clock: Clock) -> None:
        self._world = world
        self._writer = writer
        self._agents = agents
        self._clock = clock
        self._names = world.catalog.resource_names
        self._quotas: set[tuple[str, str]] = set()
        self._told_of: dict[tuple[str, str], tuple[str, ...]] = {}
        self.lingering: dict[str, tuple[float, Released]] = {}
        """Pods that ended and whose containers still hold devices, by uid: until when they are waited for."""
        self.complaints: dict[str, Notice] = {}
        """Pods that are not accounted for as they say, by uid."""
        self.doubtful: list[PodRef] = []
        """Pods that a list lacks and no watch has shown: somebody must read them."""

    # Pods

    def pods_listed(self, pods: Sequence[Pod], _version: str, unread: Sequence[Identity] = ()) -> None:
        """Take a list of all pods."""
        self._in_portions(pods, self.saw)
        there = {pod.metadata.uid for pod in pods} | {found.uid for found in unread}
        self._writer.tell(lambda: self._retain(there))

    def pod_changed(self, kind: ChangeKind, pod: Pod) -> None:
        """Take one pod's change."""
        gone_now = kind is ChangeKind.DELETED
        self._writer.tell(lambda: self._pod_gone(pod.metadata.uid) if gone_now else self.saw(pod))

    def concerns(self, pod: Pod) -> bool:
        """Say whether the pod asks for devices or holds some."""
        return asks_for_any(pod, self._names) or self._world.ledger.entry(pod.metadata.uid) is not None

    def saw(self, pod: Pod) -> None:
        """Take note of a pod as it is now; one letter's work."""
        uid = pod.metadata.uid
        entry = self._world.ledger.entry(uid)
        if not self.concerns(pod):
            return
        if pod.spec.node_name or has_ended(pod):
            self._world.unbound.pop(uid, None)
        else:
            self._world.unbound[uid] = pod
        sight = observe(entry, pod, self._world.catalog, self._world.nodes.devices, at=self._clock.monotonic())
        if has_ended(pod):
            self._apply(sight.events)
        else:
            self._world.apply(*sight.events)
        if has_ended(pod) or (entry is None and not sight.notices):
            self.complaints.pop(uid, None)
        for notice in sight.notices:
            self._complain(pod, notice)

    def _pod_gone(self, uid: str) -> None:
        self._world.unbound.pop(uid, None)
        self.complaints.pop(uid, None)
        self._apply(gone(self._world.ledger.entry(uid)).events)

    def _retain(self, there: Set[str]) -> None:
        """Forget every pod that a list does not have."""
        for uid in [uid for uid in self._world.unbound if uid not in there]:
            del self._world.unbound[uid]
        for uid in [uid for uid in self.complaints if uid not in there]:
            del self.complaints[uid]
        sight = missing(self._world.ledger.entries, there)
        self._apply(sight.events)
        self._look_again(sight.notices)

    def _apply(self, events: Sequence[Event]) -> None:
        """Apply events; the end of a pod whose containers its agent still sees waits for them, for a while."""
        for event in events:
            entry = self._world.ledger.entry(event.uid)
            if isinstance(event, Released) and entry is not None and self._world.nodes.is_held(entry.node, event.uid):
                self.lingering.setdefault(event.uid, (self._clock.monotonic() + LINGER, event))
            else:
                self._world.apply(event)

    def tick(self) -> None:
        """End the pods whose containers are gone by now, or have been waited for long enough."""
        now = self._clock.monotonic()
        for uid, (deadline, event) in list(self.lingering.items()):
            entry = self._world.ledger.entry(uid)
            if entry is None or now >= deadline or not self._world.nodes.is_held(entry.node, uid):
                del self.lingering[uid]
                self._world.apply(event)

    def _complain(self, pod: Pod, notice: Notice) -> None:
        """Tell a complaint once, however often the watch shows the pod."""
        if isinstance(notice, Doubtful):
            self._look_again([notice])
        elif self.complaints.get(pod.metadata.uid) != notice:
            self.complaints[pod.metadata.uid] = notice
            self._world.duty.tell(_fact(notice, pod))

    def _look_again(self, notices: Iterable[Notice]) -> None:
        """Have pods read once more that were bound when last seen and are in doubt now."""
        for notice in notices:
            entry = self._world.ledger.entry(notice.pod.uid)
            if entry is not None and entry.is_bound:
                self.doubtful.append(notice.pod)

    # Nodes

    def nodes_listed(self, nodes: Sequence[Node], _version: str, unread: Sequence[Identity] = ()) -> None:
        """Take a list of all nodes."""
        self._in_portions(nodes, self._saw_node)
        there = {node.metadata.name for node in nodes} | {found.name for found in unread}

        def retain() -> None:
            for name in [name for name in self._world.nodes.names if name not in there]:
                self._node_gone(name)

        self._writer.tell(retain)

    def node_changed(self, kind: ChangeKind, node: Node) -> None:
        """Take one node's change."""
        gone_now = kind is ChangeKind.DELETED
        self._writer.tell(lambda: self._node_gone(node.metadata.name) if gone_now else self._saw_node(node))

    def _saw_node(self, node: Node) -> None:
        changes = self._world.nodes.saw(node, self._clock.monotonic())
        self._world.fleet.set_node(node)
        self._agents.note(changes)

    def _node_gone(self, name: str) -> None:
        self._agents.note(self._world.nodes.gone(name))
        self._world.fleet.drop(name)

    # Quotas

    def quotas_listed(self, quotas: Sequence[ResourceQuota], _version: str, unread: Sequence[Identity] = ()) -> None:
        """Take a list of all quotas."""

        def take() -> None:
            there = {(q.metadata.namespace, q.metadata.name) for q in quotas}
            there |= {(found.namespace, found.name) for found in unread}
            for namespace, name in self._quotas - there:
                self._drop_quota(namespace, name)
            for quota in quotas:
                self._set_quota(quota)

        self._writer.tell(take)

    def quota_changed(self, kind: ChangeKind, quota: ResourceQuota) -> None:
        """Take one quota's change."""
        meta = quota.metadata
        if kind is ChangeKind.DELETED:
            self._writer.tell(lambda: self._drop_quota(meta.namespace, meta.name))
        else:
            self._writer.tell(lambda: self._set_quota(quota))

    def _set_quota(self, quota: ResourceQuota) -> None:
        self._quotas.add((quota.metadata.namespace, quota.metadata.name))
        hard = quota.spec.hard or {}
        self._world.quotas.set(quota.metadata.namespace, quota.metadata.name, hard)
        self._complain_of_quota((quota.metadata.namespace, quota.metadata.name), hard)

    def _complain_of_quota(self, key: tuple[str, str], hard: Mapping[str, quotas.Quantity]) -> None:
        """Tell what is wrong with a quota once, however often its status changes."""
        found = tuple(quotas.complaints(hard, self._world.catalog))
        if found != self._told_of.get(key, ()):
            subject = "/".join(key)
            for sentence in found:
                error = f"ResourceQuota {subject}: {sentence}"
                self._world.duty.tell(Fact(kind="malformed", subject=subject, data={"error": error}))
        self._told_of[key] = found

    def _drop_quota(self, namespace: str, name: str) -> None:
        self._quotas.discard((namespace, name))
        self._told_of.pop((namespace, name), None)
        self._world.quotas.drop(namespace, name)

    def _in_portions(self, items: Sequence[T], take: Callable[[T], None]) -> None:
        def portion(start: int) -> None:
            for item in items[start : start + PORTION]:
                take(item)

        for start in range(0, len(items), PORTION):
            self._writer.tell(lambda start=start: portion(start))  # type: ignore[misc]


def asks_for_any(pod: Pod, names: frozenset[str]) -> bool:
    """Say whether any container names one of the resources; cheap, since every pod of the cluster is asked."""
    return any(
        not names.isdisjoint(amounts)
        for container in pod.all_containers
        if container.resources is not None
        for amounts in (container.resources.limits, container.resources.requests)
        if amounts
    )


def _fact(notice: Malformed | Unaccounted, pod: Pod) -> Fact:
    if isinstance(notice, Unaccounted):
        return about(pod, "unaccounted", node=notice.node, vendors=list(notice.vendors))
    return about(pod, "malformed", node=notice.node, error=notice.why)
