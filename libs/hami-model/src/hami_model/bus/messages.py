"""The messages of the bus.

One rule: frozen, tagged with a version, and they only grow: a new field has a default, a new meaning a new tag.
JSON on the wire, so that ``nats sub 'hami.>'`` is readable. Memory in MiB, cores in percent throughout.
"""

from msgspec import Struct

from hami_model.allocation import Allocation, MadeInstance, State
from hami_model.device import Device
from hami_model.objects import Node, Pod, PodRef


class FilterPod(Struct, frozen=True, kw_only=True, tag="filter_pod.v1"):
    """Extender asks: which of these nodes takes the pod? A yes reserves its devices."""

    pod: Pod
    nodes: list[str]


class Placed(Struct, frozen=True, kw_only=True, tag="placed.v1"):
    """The one node that takes the pod; its devices are reserved."""

    node: str


class Unplaced(Struct, frozen=True, kw_only=True, tag="unplaced.v1"):
    """No node takes the pod: HAMi's reason text -> positions in the request's list of nodes."""

    reasons: dict[str, list[int]]


class NoDevices(Struct, frozen=True, kw_only=True, tag="no_devices.v1"):
    """The pod asks for no device that we know: every offered node will do."""


class Refused(Struct, frozen=True, kw_only=True, tag="refused.v1"):
    """The question could not be answered; one sentence why. ``retriable`` says whether asking again later helps."""

    error: str
    retriable: bool = False


FilterAnswer = Placed | Unplaced | NoDevices | Refused


class BindPod(Struct, frozen=True, kw_only=True, tag="bind_pod.v1"):
    """Extender asks: bind this pod to this node, with the devices reserved for it."""

    pod: PodRef
    node: str


class Done(Struct, frozen=True, kw_only=True, tag="done.v1"):
    """It is done, or was taken note of."""


BindAnswer = Done | Refused


class QuotaNeed(Struct, frozen=True, kw_only=True):
    """What a pod would add to its namespace: one vendor's memory in MiB and cores in percent, over all its cards."""

    vendor: str
    memory: int
    cores: int


class AskQuota(Struct, frozen=True, kw_only=True, tag="ask_quota.v1"):
    """Webhook asks: does this still fit the namespace's quota?"""

    namespace: str
    needs: list[QuotaNeed]


class QuotaAllowed(Struct, frozen=True, kw_only=True, tag="quota_allowed.v1"):
    """It fits, or there is no quota."""


class QuotaDenied(Struct, frozen=True, kw_only=True, tag="quota_denied.v1"):
    """It does not fit: which quota, in its own unit, is used, limited and asked for."""

    resource: str
    used: int
    limit: int
    wanted: int


QuotaAnswer = QuotaAllowed | QuotaDenied | Refused


class ExplainPod(Struct, frozen=True, kw_only=True, tag="explain_pod.v1"):
    """Ask why a pod is where it is, or why no node takes it. ``uid`` may be empty: the newest pod of that name."""

    namespace: str
    name: str
    uid: str = ""


class CardVerdict(Struct, frozen=True, kw_only=True, gc=False):  # texts alone: tens of thousands at a time
    """One card's answer: ``reason`` is empty where it fits; else HAMi's word, what was wanted and what was there."""

    device: str
    reason: str = ""
    wanted: str = ""
    had: str = ""


class NodeVerdict(Struct, frozen=True, kw_only=True):
    """One node's answer: HAMi's text when refused, its score when it fits, and each card's verdict."""

    node: str
    fits: bool
    text: str = ""
    score: float | None = None
    cards: list[CardVerdict] = []


class Explanation(Struct, frozen=True, kw_only=True, tag="explanation.v1"):
    """Why: the pod's allocation and its state, or, for a pod that waits, each node's verdict as of now."""

    pod: PodRef
    state: State | None = None
    allocation: Allocation | None = None
    nodes: list[NodeVerdict] = []
    summary: str = ""


ExplainAnswer = Explanation | Refused


class Simulate(Struct, frozen=True, kw_only=True, tag="simulate.v1"):
    """What-if: would one of these nodes, empty, take the pod? Changes nothing. For autoscalers' filter calls."""

    pod: Pod
    nodes: list[Node]


class Simulated(Struct, frozen=True, kw_only=True, tag="simulated.v1"):
    """The best node's name, or none, and why each other refused."""

    node: str | None
    failed: dict[str, str] = {}


SimulateAnswer = Simulated | NoDevices | Refused


class AskSnapshot(Struct, frozen=True, kw_only=True, tag="ask_snapshot.v1"):
    """Ask for everything the allocator knows. Pages of nodes keep the answer under the bus's payload limit."""

    after: str = ""
    limit: int = 500


class DeviceUse(Struct, frozen=True, kw_only=True):
    """One card and what is booked on it."""

    device: Device
    used_slots: int
    used_memory: int
    used_cores: int


class NodeUse(Struct, frozen=True, kw_only=True):
    """One node's cards, who reported them, and whether they may take pods."""

    node: str
    source: str = ""
    ready: bool = True
    devices: list[DeviceUse] = []
    drift: list["Drift"] = []
    """What its agent sees there and should not."""


class Booking(Struct, frozen=True, kw_only=True):
    """One allocation in its state."""

    allocation: Allocation
    state: State


class Snapshot(Struct, frozen=True, kw_only=True, tag="snapshot.v1"):
    """A page of nodes with their bookings; ``next`` is the ``after`` of the following page, empty on the last."""

    nodes: list[NodeUse]
    bookings: list[Booking]
    next: str = ""
    leader: str = ""


SnapshotAnswer = Snapshot | Refused


class Inventory(Struct, frozen=True, kw_only=True, tag="inventory.v1"):
    """Node-agent tells what its node has. ``digest`` names this content and rides in each heartbeat."""

    node: str
    agent: str
    digest: str
    vendors: list[str]
    devices: list[Device]
    identifies_pods: bool = True
    """The agent finds out whose Allocate it is (PodResources), so no node lock is needed for its vendors."""
    driver: str = ""
    """Version of the cards' driver, and of its CUDA; empty = not told."""
    cuda: str = ""


class MeasuredCard(Struct, frozen=True, kw_only=True):
    """What is used of a card now, by its driver: MiB, and percent of time that it computes; None = not known."""

    device: str
    memory: int | None = None
    busy: int | None = None


class MeasuredContainer(Struct, frozen=True, kw_only=True):
    """What a container uses of a card, by its limiter: MiB and percent."""

    pod: PodRef
    container: str
    device: str
    memory: int
    cores: int


class Drift(Struct, frozen=True, kw_only=True):
    """What an agent sees on its node and should not: ``kind`` is stranger, ghost, wrong-card or unseen."""

    kind: str
    says: str
    device: str = ""
    pod: PodRef | None = None


class Heartbeat(Struct, frozen=True, kw_only=True, tag="heartbeat.v1"):
    """Node-agent lives; which cards are unhealthy now, and what is used of them."""

    node: str
    agent: str
    digest: str
    unhealthy: list[str] = []
    holding: list[str] = []
    """Uids of pods whose containers still hold devices: a pod that ended frees its devices when it is not named."""
    cards: list[MeasuredCard] = []
    containers: list[MeasuredContainer] = []
    drift: list[Drift] = []
    leaving: bool = False
    """The agent is about to stop: its cards take no new pod until it, or its successor, is heard again."""
    offered: list[str] = []
    """Words of the vendors whose devices the kubelet takes from this agent now, and so from no other plugin."""


class PushAllocation(Struct, frozen=True, kw_only=True, tag="push_allocation.v1"):
    """Leader tells a node, before the Binding is sent, what the pod will get there."""

    allocation: Allocation
    term: str
    traceparent: str = ""


class Withdraw(Struct, frozen=True, kw_only=True, tag="withdraw.v1"):
    """Leader tells a node that a pushed allocation is void."""

    pod: PodRef
    node: str


class ReportWanted(Struct, frozen=True, kw_only=True, tag="report_wanted.v1"):
    """Leader asks an agent for its inventory again."""

    node: str


class Confirm(Struct, frozen=True, kw_only=True, tag="confirm.v1"):
    """Node-agent has served a container's Allocate with these cards. ``complete``: it was the pod's last one.

    ``instances``: what it has made for the pod so far, this container's among them.
    """

    node: str
    pod: PodRef
    container: str
    devices: list[str]
    complete: bool = False
    instances: list[MadeInstance] = []


class Refuse(Struct, frozen=True, kw_only=True, tag="refuse.v1"):
    """Node-agent refused an Allocate; the kubelet will fail the pod. ``pod`` is absent where it could not be told."""

    node: str
    why: str
    pod: PodRef | None = None
    container: str = ""


NodeAnswer = Done | Refused


class Leading(Struct, frozen=True, kw_only=True, tag="leading.v1"):
    """Who leads, from which term: agents re-state what they serve."""

    term: str
    identity: str


class Following(Struct, frozen=True, kw_only=True, tag="following.v1"):
    """A follower that has seen the whole cluster: it answers what is only read, and the leader need not."""

    identity: str
