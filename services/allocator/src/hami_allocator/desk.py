"""What the leader answers out of memory: filter, quota, and what a bind is to do.

One rule: decide, then apply. A decision is a value; only ``World.apply`` changes who holds what.
"""

from collections.abc import Sequence

from hami_kit.clock import Clock
from hami_model.allocation import Allocation
from hami_model.bus.messages import (
    AskQuota,
    Done,
    FilterAnswer,
    FilterPod,
    NoDevices,
    Placed,
    QuotaAllowed,
    QuotaAnswer,
    QuotaDenied,
    Refused,
    Unplaced,
)
from hami_model.demands import pod_demand
from hami_model.errors import BadDemand, DomainError
from hami_model.life import BindSent, Entry, Released, Reserved
from hami_model.objects import Pod, PodRef
from hami_model.place import Placement, Unfit, place
from hami_model.policies import for_pod
from hami_model.request import PodDemand, asks_for_devices
from msgspec import Struct

from hami_allocator.facts import Fact, PodNews, about, placed_message, unplaced_messages
from hami_allocator.world import World


class Plain(Struct, frozen=True):
    """The pod asks for no device: bind it and nothing else."""

    pod: Pod


class Granted(Struct, frozen=True):
    """The pod's devices are booked as on their way: write them with the Binding."""

    pod: Pod
    allocation: Allocation


class Unknown(Struct, frozen=True):
    """We have not seen this pod: read it first."""


BindPlan = Plain | Granted | Unknown | Done | Refused


class Desk:
    """Answers questions; every method is one letter's work."""

    def __init__(self, world: World, clock: Clock) -> None:
        self._world = world
        self._clock = clock

    def filter(self, question: FilterPod) -> FilterAnswer:
        """Say which node takes the pod and reserve its devices there, or why none does."""
        pod = question.pod
        uid = pod.metadata.uid
        entry = self._world.ledger.entry(uid)
        if entry is not None and entry.is_committed:
            return Refused(
                error=f"pod {PodRef.of(pod)} is being bound to {entry.node}: wait for the outcome", retriable=True
            )
        try:
            demand = pod_demand(pod, self._world.catalog)
        except BadDemand as error:
            return self._refuse(pod, str(error))
        if not asks_for_devices(demand):
            return NoDevices()
        if entry is not None:
            self._world.apply(Released(uid=uid, why="a newer filter of the pod"))
        return self._place(pod, demand, question.nodes)

    def _place(self, pod: Pod, demand: PodDemand, nodes: Sequence[str]) -> FilterAnswer:
        try:
            outcome = self._decide(pod, demand, nodes)
        except DomainError as error:
            return self._refuse(pod, str(error))
        match outcome:
            case Placement():
                allocation = _allocation(pod, outcome)
                at = self._clock.monotonic()
                self._world.apply(Reserved(uid=pod.metadata.uid, pod=pod, allocation=allocation, at=at))
                self._say_placed(pod, outcome, len(nodes))
                return Placed(node=outcome.node)
            case Unfit():
                self._world.refused_at = self._clock.monotonic()
                self._say_unplaced(pod, outcome, nodes)
                return Unplaced(reasons=outcome.reasons)

    def plan_bind(self, pod: PodRef, node: str, seen: Pod | None) -> BindPlan:
        """Say what binding the pod to the node means, and book its devices as on their way.

        ``seen`` is the pod as just read from the API server, where we had to ask. Without a live reservation for this
        node the devices are chosen now, on this node only.
        """
        entry = self._world.ledger.entry(pod.uid)
        if entry is not None and entry.is_committed:
            if entry.is_bound and entry.node == node:
                return Done()
            return Refused(error=f"pod {pod} is bound, or being bound, to {entry.node}", retriable=not entry.is_bound)
        newest = seen or self._world.unbound.get(pod.uid) or (entry.pod if entry else None)
        if newest is None:
            return Unknown()
        try:
            demand = pod_demand(newest, self._world.catalog)
        except BadDemand as error:
            return Refused(error=str(error))
        if not asks_for_devices(demand):
            return Plain(newest)
        at = self._clock.monotonic()
        if entry is not None and entry.node == node and self._is_same_demand(entry, demand):
            self._world.apply(BindSent(uid=pod.uid, at=at))
            return Granted(newest, entry.allocation)
        return self._decide_again(newest, demand, node, entry)

    def _decide_again(self, pod: Pod, demand: PodDemand, node: str, entry: Entry | None) -> BindPlan:
        uid = pod.metadata.uid
        if entry is not None:
            self._world.apply(Released(uid=uid, why=f"bind names {node}, and the reservation does not fit it"))
        try:
            outcome = self._decide(pod, demand, [node])
        except DomainError as error:
            return Refused(error=str(error))
        match outcome:
            case Placement():
                allocation = _allocation(pod, outcome)
                at = self._clock.monotonic()
                self._world.apply(BindSent(uid=uid, pod=pod, allocation=allocation, at=at))
                return Granted(pod, allocation)
            case Unfit():
                why = ", ".join(outcome.reasons)
                return Refused(error=f"node {node} does not take pod {PodRef.of(pod)} any more: {why}", retriable=True)

    def _is_same_demand(self, entry: Entry, demand: PodDemand) -> bool:
        return pod_demand(entry.pod, self._world.catalog) == demand

    def _decide(self, pod: Pod, demand: PodDemand, nodes: Sequence[str]) -> Placement | Unfit:
        policies = for_pod(pod, self._world.policies)
        return place(
            self._world.fleet,
            pod,
            demand,
            nodes,
            policies=policies,
            quota=self._world.quotas.view(pod.metadata.namespace),
        )

    def quota(self, question: AskQuota) -> QuotaAnswer:
        """Say whether a pod's needs still fit its namespace's quota."""
        for need in question.needs:
            if self._world.catalog.find(need.vendor) is None:
                return Refused(error=f"vendor {need.vendor} is not known here: check HAMI_DEVICE_CONFIG of the webhook")
            denied = self._world.quotas.fits(question.namespace, need.vendor, need.memory, need.cores)
            if isinstance(denied, QuotaDenied):
                data = {"namespace": question.namespace, "resource": denied.resource, "used": denied.used}
                numbers = {"limit": denied.limit, "wanted": denied.wanted}
                self._world.duty.tell(Fact(kind="quota.denied", subject=question.namespace, data={**data, **numbers}))
                return denied
        return QuotaAllowed()

    def _refuse(self, pod: Pod, error: str, *, news: str = "") -> Refused:
        ref = PodRef.of(pod)
        self._world.duty.tell(about(pod, "malformed", error=error))
        self._world.duty.news(PodNews(pod=ref, reason="FilteringFailed", write=lambda: (news or error,), warning=True))
        return Refused(error=error)

    def _say_placed(self, pod: Pod, placement: Placement, offered: int) -> None:
        def write() -> tuple[str, ...]:
            return (placed_message(placement.node, offered, placement.fitting, placement.scores),)

        self._world.duty.news(PodNews(pod=PodRef.of(pod), reason="FilteringSucceed", write=write))

    def _say_unplaced(self, pod: Pod, unfit: Unfit, nodes: Sequence[str]) -> None:
        def write() -> tuple[str, ...]:
            return unplaced_messages(nodes, unfit.reasons)

        ref = PodRef.of(pod)
        counts = {text: len(at) for text, at in unfit.reasons.items()}
        self._world.duty.tell(about(pod, "rejected", reasons=counts))
        self._world.duty.news(PodNews(pod=ref, reason="FilteringFailed", write=write, warning=True))


def _allocation(pod: Pod, placement: Placement) -> Allocation:
    return Allocation(pod=PodRef.of(pod), node=placement.node, containers=placement.containers)
