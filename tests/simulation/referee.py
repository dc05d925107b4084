"""What must hold, whatever happens: judged by the API server's own state and by what nodes really gave.

One rule: the allocator's own books are never the measure of truth. They are read to know what a sender meant, and
compared with the truth when all is quiet.
"""

from collections.abc import Callable
from typing import Any

from hami_model.allocation import Allocation
from hami_model.annotations import read_allocation
from hami_model.bus.messages import PushAllocation
from hami_model.charge import Card, Charge, charge
from hami_model.errors import MalformedAllocation
from hami_model.objects import Pod
from msgspec import Struct, structs

from tests.simulation.allocators import Allocator, a_catalog
from tests.simulation.given import asks_of, grants_of, pod_of
from tests.simulation.kubelets import Kubelet
from tests.simulation.store import Change, Json, Store

QUOTA_KEY = "limits.nvidia.com/gpumem"


class Held(Struct, frozen=True):
    """What a landed Binding gave a pod."""

    name: str
    namespace: str
    allocation: Allocation
    charges: dict[Card, Charge]


class Ticket(Struct, frozen=True):
    """What the sender of a Binding meant."""

    uid: str
    allocation: Allocation


class Referee:
    """Looks at every write as it is sent, and as it lands."""

    def __init__(
        self, store: Store, capacity: dict[tuple[str, str, str], Charge], blame: Callable[[str], None]
    ) -> None:
        self._store = store
        self._capacity = capacity
        self._blame = blame
        self._pushed: dict[tuple[str, str], Allocation] = {}
        self.allocators: dict[str, Allocator] = {}
        self.kubelets: dict[str, Kubelet] = {}
        self.held: dict[str, Held] = {}
        self._known: dict[str, set[str]] = {}
        """Which pods each allocator knew to be bound, a moment ago."""
        self.landed = 0
        self._ticket: Ticket | None = None
        self.quota: dict[str, int] = {}
        """NVIDIA memory in MiB that a namespace may use."""
        store.on_change.append(self._hear)

    # As it is sent

    def published(self, sender: str, _subject: str, message: Struct) -> None:
        """Remember what was pushed to nodes."""
        if isinstance(message, PushAllocation):
            self._pushed[sender, message.allocation.pod.uid] = message.allocation

    def sent(self, sender: str, method: str, path: str, body: Any) -> Ticket | None:
        """Judge a Binding as it leaves its sender."""
        allocator = self.allocators.get(sender)
        if allocator is None or not path.endswith("/binding"):
            return None
        holder = self._holder()
        if holder not in ("", sender):
            self._blame(f"{sender} sends a Binding while {holder} holds the Lease")
        name = body["metadata"]["name"]
        entries = [
            e
            for e in allocator.world.ledger.entries
            if e.allocation.pod.name == name and e.allocation.pod.namespace == body["metadata"]["namespace"]
            and e.is_committed  # a watch may have shown it bound while it was being sent once more
        ]  # fmt: skip
        if not entries:
            found = self._store.find("pods", (body["metadata"]["namespace"], name))
            if "uid" in body["metadata"] and (found is None or found["metadata"]["uid"] != body["metadata"]["uid"]):
                return None  # a watch has shown the pod's end meanwhile: this cannot land any more
            self._blame(f"{sender} sends a Binding of {name} that is not booked as on its way")
            return None
        entry = entries[-1]
        if allocator.world.is_agents(entry.allocation) and (self._pushed.get((sender, entry.uid)) != entry.allocation):
            self._blame(
                f"{sender} sends the Binding of {name} to {entry.node} and has not pushed its allocation before"
            )
        return Ticket(entry.uid, entry.allocation)

    def _holder(self) -> str:
        lease = self._store.find("leases", ("kube-system", "hami-allocator"))
        return (lease["spec"].get("holderIdentity") or "") if lease else ""

    # As it lands

    def arrives(self, ticket: Ticket | None, sender: str, path: str, _body: Any) -> None:
        """Remember whom the Binding that lands next was meant for."""
        self._ticket = ticket

    def _hear(self, change: Change) -> None:
        if change.kind != "pods":
            return
        obj = change.new or change.old
        assert obj is not None
        uid = obj["metadata"]["uid"]
        if change.new is None or obj["status"]["phase"] in ("Succeeded", "Failed"):
            self.held.pop(uid, None)
        elif change.old is not None and obj["spec"].get("nodeName") and not change.old["spec"].get("nodeName"):
            self._bound(change.sender, obj)

    def _bound(self, sender: str, obj: Json) -> None:
        pod = pod_of(obj)
        name, uid, ticket = pod.metadata.name, pod.metadata.uid, self._ticket
        self.landed += 1
        try:
            allocation = _asked_for(pod, read_allocation(a_catalog(), pod))
        except MalformedAllocation as error:
            self._blame(f"{sender} binds {name} with an unreadable allocation: {error}")
            return
        if allocation is None:
            self._blame(f"{sender} binds {name} without an allocation")
            return
        if ticket is not None and ticket.uid != uid:
            self._blame(f"the Binding of {name} meant uid {ticket.uid} and meets {uid}")
        if ticket is not None and grants_of(ticket.allocation.containers) != grants_of(allocation.containers):
            self._blame(f"{sender} binds {name} with other devices than it booked")
        self.held[uid] = Held(name, pod.metadata.namespace, allocation, charge(allocation, pod))
        self._check_cards(allocation.node, name)
        self._check_quota(pod.metadata.namespace, name)

    def _check_cards(self, node: str, name: str) -> None:
        total: dict[Card, Charge] = {}
        for held in self.held.values():
            if held.allocation.node == node:
                for card, cost in held.charges.items():
                    total[card] = total.get(card, Charge()) + cost
        for (word, uuid), use in total.items():
            most = self._capacity.get((node, word, uuid))
            if most is None:
                self._blame(f"{name} is given {uuid}, which {node} does not have")
            elif use.slots > most.slots or use.memory > most.memory or use.cores > most.cores:
                holders = sorted(h.name for h in self.held.values() if (word, uuid) in h.charges)
                self._blame(
                    f"card {uuid} is given twice: {', '.join(holders)} hold {use.slots} slots, {use.memory} MiB, "
                    f"{use.cores} cores of {most.slots}, {most.memory}, {most.cores}"
                )

    def _check_quota(self, namespace: str, name: str) -> None:
        limit = self.quota.get(namespace)
        used = sum(
            cost.memory
            for held in self.held.values()
            if held.namespace == namespace
            for (word, _), cost in held.charges.items()
            if word == "NVIDIA"
        )
        if limit is not None and used > limit:
            self._blame(f"with {name} namespace {namespace} uses {used} MiB of a quota of {limit}")

    # From time to time

    def look(self) -> None:
        """Judge what can be seen at any time: one leader, books that add up, pods served with what is theirs."""
        leaders = [a.identity for a in self.allocators.values() if a.leads]
        if len(leaders) > 1:
            self._blame(f"{' and '.join(leaders)} lead at once")
        for allocator in self.allocators.values():
            if allocator.is_alive and (wrong := allocator.world.ledger.audit()):
                self._blame(f"the books of {allocator.identity} do not add up: {wrong[0]}")
            if allocator.is_alive:
                self._check_memory(allocator)

    def _check_memory(self, allocator: Allocator) -> None:
        """Whoever has once known that a pod is bound knows it until the pod ends."""
        bound = {entry.uid for entry in allocator.world.ledger.entries if entry.is_bound}
        forgotten = (self._known.get(allocator.identity, set()) & self.held.keys()) - bound
        for uid in forgotten:
            self._blame(f"{allocator.identity} has forgotten {self.held[uid].name}, which is still bound")
        self._known[allocator.identity] = bound

    def served(self, kubelet: Kubelet, uid: str) -> None:
        """Judge what a node gave to a pod."""
        given, held = kubelet.given[uid], self.held.get(uid)
        if held is None:
            return
        if given.refused:
            self._blame(f"{kubelet.name} refuses {held.name}, which is bound there: {given.refused}")
        elif given.whose != uid:
            other = self.held.get(given.whose)
            self._blame(f"{kubelet.name} serves {held.name} with the devices of {other.name if other else given.whose}")
        elif given.grants != grants_of(held.allocation.containers):
            self._blame(f"{kubelet.name} gives {held.name} other devices than its Binding says")


def _asked_for(pod: Pod, allocation: Allocation | None) -> Allocation | None:
    """Return what a pod holds of the vendors that it asks for; of others anybody may have written anything."""
    if allocation is None:
        return None
    words = {vendor.word for vendor in a_catalog().vendors if asks_of(pod, vendor)}
    kept = tuple(
        structs.replace(c, grants=tuple(g for g in c.grants if g.vendor in words)) for c in allocation.containers
    )
    return structs.replace(allocation, containers=kept)
