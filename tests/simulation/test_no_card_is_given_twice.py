"""No card is ever given twice: any order of filter, bind, lost answers, late Bindings, restarts and lost nodes."""

from typing import Any

from hami_model import config, vendors
from hami_model.allocation import Allocation
from hami_model.charge import Card, Charge, charge
from hami_model.device import Device
from hami_model.life import Entry
from hami_model.objects import Container, Meta, Pod, PodSpec, Resources
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, multiple, rule

from tests.simulation.allocator_model import AllocatorModel
from tests.simulation.api_model import ApiModel, Binding

CATALOG = vendors.build(config.DEFAULTS, ascend=False, iluvatar=False)
SLOTS, MEMORY, CORES = 3, 10000, 100


def a_card(uuid: str) -> Device:
    return Device(id=uuid, vendor="NVIDIA", slots=SLOTS, memory=MEMORY, cores=CORES, model="NVIDIA A10")


INVENTORY: dict[str, tuple[Device, ...]] = {
    node: (a_card(f"GPU-{node}-0"), a_card(f"GPU-{node}-1")) for node in ("node-1", "node-2")
}
NODES = st.sampled_from(sorted(INVENTORY))
QUOTA_MIB = 26000
ALLOCATED = "hami.io/vgpu-devices-allocated"
LIES = st.sampled_from(["", "rubbish;", "GPU-node-1-0,NVIDIA,0,0:;", "GPU-node-1-1,NVIDIA,9000,100:;"])

Ask = tuple[int, dict[str, int], int, str]
"""How many cards, memory and cores of each, and the container's role."""

CONTAINERS: st.SearchStrategy[Ask] = st.tuples(
    st.sampled_from([1, 1, 2, 0]),
    st.sampled_from([{"nvidia.com/gpumem": 2500}, {"nvidia.com/gpumem": 5000}, {"nvidia.com/gpumem-percentage": 40}]),
    st.sampled_from([0, 30, 60, 100]),
    st.sampled_from(["init", "sidecar", "app", "app"]),
)
ASKS = st.lists(CONTAINERS, min_size=1, max_size=3)


def a_pod(number: int, containers: list[Ask]) -> Pod:
    """Return a pending pod with these containers."""
    built: dict[str, list[Container]] = {"init": [], "app": []}
    for at, (count, memory, cores, role) in enumerate(containers):
        limits: dict[str, Any] = {"nvidia.com/gpu": count, "nvidia.com/gpucores": cores, **memory} if count else {}
        policy = "Always" if role == "sidecar" else None
        container = Container(name=f"c{at}", resources=Resources(limits=limits), restart_policy=policy)
        built["app" if role == "app" else "init"].append(container)
    return Pod(
        metadata=Meta(name=f"pod-{number}", namespace="team-a", uid=f"uid-{number}"),
        spec=PodSpec(init_containers=built["init"], containers=built["app"] or [Container(name="main")]),
    )


class CardsAreGivenOnce(RuleBasedStateMachine):
    """Everything that can happen to pods with devices, in any order."""

    uids: Bundle[str] = Bundle("uids")

    def __init__(self) -> None:
        super().__init__()
        self.api = ApiModel()
        self.now = 0.0
        self.under_way: list[Binding] = []
        self.listed: tuple[list[Pod], int] | None = None
        self.given: dict[str, Allocation] = {}
        """What each landed Binding gave."""
        self.spoilt: set[str] = set()
        """Bound pods whose annotations somebody made unreadable."""
        self.allocator = self.a_new_process()

    def a_new_process(self) -> AllocatorModel:
        return AllocatorModel(self.api, CATALOG, INVENTORY, {"limits.nvidia.com/gpumem": str(QUOTA_MIB)})

    # People

    @initialize(target=uids, asks=st.lists(ASKS, min_size=2, max_size=5))
    def begin_with_some_pods(self, asks: list[list[Ask]]) -> Any:
        return multiple(*(self.run_through(containers, starts=False) for containers in asks))

    @rule(target=uids, containers=ASKS)
    def create_a_pod(self, containers: list[Ask]) -> str:
        return self.create(containers)

    def create(self, containers: list[Ask]) -> str:
        pod = a_pod(len(self.api.log), containers)
        self.api.create(pod)
        return pod.metadata.uid

    @rule(uid=uids, text=LIES)
    def edit_a_pending_pod(self, uid: str, text: str) -> None:
        """Anybody may write anything on a pod that is not bound yet."""
        if uid in self.api.pods and not self.api.pods[uid].spec.node_name:
            self.api.annotate(uid, {ALLOCATED: text, "hami.io/vgpu-node": "node-1"})

    @rule(uid=uids)
    def spoil_a_bound_pod(self, uid: str) -> None:
        if self.api.holds_devices(uid) and uid in self.given:
            self.api.annotate(uid, {ALLOCATED: "rubbish;"})
            self.spoilt.add(uid)

    @rule(uid=uids)
    def delete_a_pod(self, uid: str) -> None:
        if uid in self.api.pods:
            self.api.terminate(uid)

    # The scheduler's calls, and the API server's answers

    @rule(uid=uids)
    def filter_a_pod(self, uid: str) -> None:
        pod = self.api.pods.get(uid)
        if pod is not None and not pod.spec.node_name:
            self.check_decision(self.allocator.filter(pod, at=self.now))

    @rule(uid=uids, node=st.none() | NODES)
    def send_a_binding(self, uid: str, node: str | None) -> None:
        """The scheduler binds to the node that was reserved, or to another one."""
        entry = self.allocator.ledger.entry(uid)
        binding = self.allocator.bind(uid, node or (entry.node if entry else "node-1"))
        if binding is not None:
            self.under_way.append(binding)
            self.check_decision(self.allocator.ledger.entry(uid))

    @rule(at=st.integers(0, 5), is_answered=st.booleans())
    def a_binding_arrives(self, at: int, is_answered: bool) -> None:
        """Late or soon, answered or not."""
        if self.under_way:
            binding = self.under_way.pop(at % len(self.under_way))
            landed = self.api.bind(binding)
            if landed:
                self.given[binding.uid] = binding.gives
            if is_answered and landed:
                self.allocator.hear_bound(binding.uid)

    @rule(uid=uids, with_patch=st.booleans())
    def ask_for_proof(self, uid: str, with_patch: bool) -> None:
        self.allocator.prove(uid, with_patch=with_patch)

    @rule(target=uids, containers=ASKS, starts=st.booleans())
    def everything_goes_well(self, containers: list[Ask], starts: bool) -> str:
        return self.run_through(containers, starts=starts)

    def run_through(self, containers: list[Ask], *, starts: bool) -> str:
        """Take a new pod the common way, so that cards fill up."""
        uid = self.create(containers)
        self.filter_a_pod(uid)
        if self.allocator.ledger.entry(uid) is not None:
            self.send_a_binding(uid, None)
            self.a_binding_arrives(len(self.under_way) - 1, is_answered=True)
            if starts:
                self.start(uid)
        return uid

    # The node

    @rule(uid=uids)
    def confirm(self, uid: str) -> None:
        self.allocator.confirm(uid)

    @rule(uid=uids)
    def start(self, uid: str) -> None:
        if self.api.holds_devices(uid):
            self.api.start(uid)

    @rule(uid=uids, phase=st.sampled_from(["Succeeded", "Failed"]))
    def finish(self, uid: str, phase: str) -> None:
        if self.api.holds_devices(uid):
            self.api.finish(uid, phase)

    @rule(uid=uids)
    def remove(self, uid: str) -> None:
        """The grace period is over, and so are the containers."""
        if uid in self.api.pods and self.api.pods[uid].metadata.deletion_timestamp:
            self.api.remove(uid)

    @rule(node=NODES)
    def lose_a_node(self, node: str) -> None:
        self.allocator.fleet.drop(node)

    @rule(node=NODES)
    def a_node_reports(self, node: str) -> None:
        self.allocator.report(node)

    @rule(node=NODES, is_ready=st.booleans())
    def an_agent_falls_silent_or_speaks(self, node: str, is_ready: bool) -> None:
        self.allocator.fleet.set_ready(node, "NVIDIA", ready=is_ready)

    # Time, watches and lists

    @rule(seconds=st.sampled_from([1, 30, 61]))
    def time_passes(self, seconds: int) -> None:
        self.now += seconds
        self.allocator.expire(self.now)

    @rule(events=st.integers(1, 4))
    def watch(self, events: int) -> None:
        if self.listed is None:
            for _ in range(events):
                self.allocator.watch()

    @rule(back=st.integers(1, 6))
    def an_old_unbound_sight_comes_again(self, back: int) -> None:
        old = self.api.log[-back:][:1]
        if old and old[0][1] and not old[0][0].spec.node_name:
            self.allocator.sight(old[0][0])

    @rule()
    def begin_a_list(self) -> None:
        self.listed = (list(self.api.pods.values()), len(self.api.log))

    @rule()
    def end_the_list(self) -> None:
        if self.listed is not None:
            self.allocator.relist(*self.listed)
            self.listed = None

    # The process

    @rule()
    def crash(self) -> None:
        """Another process leads; Bindings of the dead one are still under way."""
        self.listed = None
        self.allocator = self.a_new_process()

    @rule()
    def restart_and_compare(self) -> None:
        """What a new process finds is what the old one knew, without reservations and Bindings under way."""
        self.listed = None
        while self.allocator.watch():
            pass
        old = {e.uid: (e.node, e.charges) for e in self.allocator.ledger.entries if e.is_bound}
        self.allocator = self.a_new_process()
        new = {e.uid: (e.node, e.charges) for e in self.allocator.ledger.entries}

        assert old.keys() == new.keys()
        for uid in old.keys() - self.spoilt:
            assert old[uid] == new[uid]

    # What must hold

    def check_decision(self, entry: Entry | None) -> None:
        """No decision raises the use of a card above the card, nor of a namespace above its quota."""
        for card in entry.charges if entry else ():
            assert entry
            assert fits(self.allocator.fleet.use(entry.node)[card])
            assert self.allocator.quotas.used("team-a", "NVIDIA")[0] <= QUOTA_MIB

    @invariant()
    def no_card_is_given_twice(self) -> None:
        """What bound pods really hold fits their cards, whatever anybody believes."""
        for card, held in self.truly_held().items():
            assert fits(held), f"{card} is given twice: {held}"

    def truly_held(self) -> dict[Card, Charge]:
        held: dict[Card, Charge] = {}
        for uid, allocation in self.given.items():
            if self.api.holds_devices(uid):
                for card, cost in charge(allocation, self.api.pods[uid]).items():
                    held[card] = held.get(card, Charge()) + cost
        return held

    @invariant()
    def the_books_are_right(self) -> None:
        assert () == self.allocator.ledger.audit()

    @invariant()
    def the_columns_show_what_is_booked(self) -> None:
        fleet = self.allocator.fleet
        for node in fleet.nodes:
            rows, use = fleet.cards["NVIDIA"].of(fleet.ids[node]), fleet.use(node)
            columns = [*zip(rows.used_slots.tolist(), rows.used_memory.tolist(), rows.used_cores.tolist(), strict=True)]
            booked = [use.get(("NVIDIA", device.id), Charge()) for device in fleet.devices(node)]
            assert [(b.slots, b.memory, b.cores) for b in booked] == columns


def fits(use: Charge) -> bool:
    return use.slots <= SLOTS and use.memory <= MEMORY and use.cores <= CORES


TestCardsAreGivenOnce = CardsAreGivenOnce.TestCase
TestCardsAreGivenOnce.settings = settings(max_examples=150, stateful_step_count=50, deadline=None)
