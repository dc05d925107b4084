"""What the allocator knows: cards, quotas, allocations, nodes, and the pods that wait for devices.

One rule: only letters of the writer change it, so it needs no lock. A follower keeps it warm from the watch alone; what
must be done about a change is the business of whoever is on duty: the leader acts, a follower does nothing.
"""

from typing import Protocol

from hami_model.allocation import Allocation
from hami_model.catalog import Catalog
from hami_model.fleet import Fleet
from hami_model.ledger import Ledger
from hami_model.life import Entry, Event
from hami_model.objects import Pod
from hami_model.policies import Policies
from hami_model.quota import Quotas
from hami_model.vendor import Lock

from hami_allocator.facts import Fact, PodNews
from hami_allocator.nodes import Nodes
from hami_allocator.registration import Source


class Duty(Protocol):
    """Who acts on what the world shows."""

    def after(self, event: Event, before: Entry | None, after: Entry | None) -> None:
        """Act on an allocation's step."""

    def tell(self, fact: Fact) -> None:
        """Tell integrations."""

    def news(self, news: PodNews) -> None:
        """Tell people who look at the pod."""

    def registered(self, node: str) -> None:
        """Act on a node whose cards, or who serves them, may have changed."""


class OffDuty:
    """A follower: knows everything, does nothing."""

    def after(self, event: Event, before: Entry | None, after: Entry | None) -> None:
        """Leave it to the leader."""

    def tell(self, fact: Fact) -> None:
        """Leave it to the leader."""

    def news(self, news: PodNews) -> None:
        """Leave it to the leader."""

    def registered(self, node: str) -> None:
        """Leave it to the leader."""


class World:
    """The memory of one allocator."""

    def __init__(self, catalog: Catalog, policies: Policies, nodes: Nodes) -> None:
        self.catalog = catalog
        self.policies = policies
        self.fleet = Fleet(catalog)
        self.quotas = Quotas(catalog)
        self.ledger = Ledger(self.fleet, self.quotas)
        self.nodes = nodes
        self.unbound: dict[str, Pod] = {}
        """Pods that ask for devices and have no node, by uid, as last seen."""
        self.refused_at = float("-inf")
        """When no node took a pod, last, by the monotonic clock."""
        self.duty: Duty = OffDuty()

    def apply(self, *events: Event) -> None:
        """Take note of what happened, and let whoever is on duty act on it."""
        for event in events:
            before = self.ledger.entry(event.uid)
            self.duty.after(event, before, self.ledger.apply(event))

    def newest(self, pod: Pod) -> Pod:
        """Return the pod as last seen by our watch, or as given where the watch has not shown it yet."""
        return self.unbound.get(pod.metadata.uid, pod)

    def locks_for(self, allocation: Allocation) -> tuple[Lock, ...]:
        """Return the node locks that somebody on the node reads to find this pod, in the order of HAMi."""
        needed = {
            vendor.lock.key: vendor.lock
            for word in sorted(allocation.vendors)
            if (vendor := self.catalog.find(word)) is not None
            and vendor.lock is not None
            and self.nodes.needs_lock(allocation.node, word)
        }
        return tuple(needed.values())

    def is_agents(self, allocation: Allocation) -> bool:
        """Say whether our node-agent serves any of the allocation's vendors."""
        return any(self.nodes.source(allocation.node, word) is Source.AGENT for word in allocation.vendors)
