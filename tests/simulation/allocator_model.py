"""The allocator as one sequence of steps: every decision of the real one, none of its waiting.

One rule: it only uses what the model offers (``place``, ``Ledger``, ``observe``, ``settle``, ``rebuild``), and learns
of the API server only what it reads or watches there.
"""

from dataclasses import dataclass, field

from hami_model.allocation import Allocation
from hami_model.annotations import allocation_annotations
from hami_model.binding import StillUnknown, settle
from hami_model.catalog import Catalog
from hami_model.demands import pod_demand
from hami_model.device import Device
from hami_model.fleet import Fleet
from hami_model.ledger import Ledger
from hami_model.life import BindSent, Bound, Confirmed, Entry, Released, Reserved
from hami_model.objects import Pod, PodRef
from hami_model.observe import Doubtful, Sight, gone, observe, recount
from hami_model.place import Placement, place
from hami_model.policies import PodPolicies
from hami_model.quota import Quotas
from hami_model.rebuild import rebuild
from hami_model.request import asks_for_devices

from tests.simulation.api_model import ApiModel, Binding

TERM = "hami.io/allocator-term"


@dataclass
class AllocatorModel:
    """One process of the allocator, leading. ``position``: how far its watch has come in the API's log."""

    api: ApiModel
    catalog: Catalog
    inventory: dict[str, tuple[Device, ...]]
    quota: dict[str, str]
    position: int = 0
    fleet: Fleet = field(init=False)
    quotas: Quotas = field(init=False)
    ledger: Ledger = field(init=False)

    def __post_init__(self) -> None:
        self.fleet, self.quotas = Fleet(self.catalog), Quotas(self.catalog)
        self.ledger = Ledger(self.fleet, self.quotas)
        self.quotas.set("team-a", "quota", self.quota)
        for node in self.inventory:
            self.report(node)
        self.take_the_lead()

    def report(self, node: str) -> None:
        """Take a node's list of cards."""
        self.fleet.set_devices(node, "NVIDIA", self.inventory[node])
        for event in recount(self.ledger.on_node(node), self.fleet.devices(node)):
            self.ledger.apply(event)

    def take_the_lead(self) -> None:
        """Fence every Binding of the past, then learn what is there."""
        for uid, pod in list(self.api.pods.items()):
            if not pod.spec.node_name:
                self.api.annotate(uid, {TERM: f"term-{len(self.api.log)}"})
        self.relist(list(self.api.pods.values()), len(self.api.log))

    def relist(self, pods: list[Pod], position: int) -> None:
        """Take a list made at ``position``; whoever it lacks and no watch has shown is asked for again."""
        for notice in rebuild(self.ledger, pods, self.catalog, self.fleet.devices):
            if isinstance(notice, Doubtful) and notice.pod.uid not in self.api.pods:
                self._take(gone(self.ledger.entry(notice.pod.uid)))
        self.position = position

    def watch(self) -> bool:
        """Take the next event of the watch, if there is one."""
        if self.position >= len(self.api.log):
            return False
        pod, is_there = self.api.log[self.position]
        self.position += 1
        self.sight(pod) if is_there else self._take(gone(self.ledger.entry(pod.metadata.uid)))
        return True

    def sight(self, pod: Pod) -> None:
        """Take one sight of a pod, however old it is."""
        self._take(observe(self.ledger.entry(pod.metadata.uid), pod, self.catalog, self.fleet.devices))

    def filter(self, pod: Pod, *, at: float) -> Entry | None:
        """Reserve devices; a pod whose Binding may be on its way is refused."""
        before = self.ledger.entry(pod.metadata.uid)
        if before is not None and before.is_committed:
            return None
        self.ledger.apply(Released(uid=pod.metadata.uid, why="filtered again"))
        allocation = self._decide(pod, list(self.inventory))
        if allocation is None:
            return None
        return self.ledger.apply(Reserved(uid=pod.metadata.uid, pod=pod, allocation=allocation, at=at))

    def bind(self, uid: str, node: str) -> Binding | None:
        """Send a Binding: of what was reserved on this node, else of what is decided on it now."""
        entry, pod = self.ledger.entry(uid), self.api.pods.get(uid)
        if pod is None or pod.spec.node_name or (entry is not None and entry.is_committed):
            return None
        if entry is not None and entry.node != node:
            self.ledger.apply(Released(uid=uid, why="bound to another node than reserved"))
            entry = None
        allocation = entry.allocation if entry else self._decide(pod, [node])
        if allocation is None:
            return None
        self.ledger.apply(BindSent(uid=uid, pod=pod, allocation=allocation))
        annotations = allocation_annotations(self.catalog, allocation, pod, now=0)
        return Binding(uid, allocation.node, pod.metadata.resource_version, annotations, allocation)

    def hear_bound(self, uid: str) -> None:
        """Hear the API server's 201, perhaps after the watch has shown it; another answer would prove nothing."""
        entry = self.ledger.entry(uid)
        if entry is not None and not entry.is_bound:
            self.ledger.apply(Bound(uid=uid))

    def prove(self, uid: str, *, with_patch: bool) -> None:
        """Find out what became of a Binding by a fresh read, or by the answer to a patch."""
        entry, fresh = self.ledger.entry(uid), self.api.pods.get(uid)
        if entry is None or entry.is_bound or not entry.is_committed:
            return
        if with_patch and fresh is not None:
            fresh = self.api.annotate(uid, {TERM: f"term-{len(self.api.log)}"})
        outcome = settle(entry, fresh, has_patched=with_patch)
        if not isinstance(outcome, StillUnknown):
            self.ledger.apply(outcome)

    def confirm(self, uid: str) -> None:
        """Hear the node agent confirm that the pod has its devices, perhaps again."""
        entry = self.ledger.entry(uid)
        if entry is not None and entry.is_bound:
            self.ledger.apply(Confirmed(uid=uid))

    def expire(self, now: float) -> None:
        """End old reservations."""
        for event in self.ledger.expired(now, 60):
            self.ledger.apply(event)

    def _decide(self, pod: Pod, nodes: list[str]) -> Allocation | None:
        view = self.quotas.view(pod.metadata.namespace)
        demand = pod_demand(pod, self.catalog)
        if not asks_for_devices(demand):
            return None
        placed = place(self.fleet, pod, demand, nodes, policies=PodPolicies(), quota=view)
        if not isinstance(placed, Placement):
            return None
        return Allocation(pod=PodRef.of(pod), node=placed.node, containers=placed.containers)

    def _take(self, sight: Sight) -> None:
        for event in sight.events:
            self.ledger.apply(event)
