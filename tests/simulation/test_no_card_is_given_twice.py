"""No card is ever given twice: any order of filter, bind, lost answers, late Bindings, restarts and lost nodes."""

from typing import Any

import pytest
from hami_model import config, vendors
from hami_model.allocation import Allocation, State
from hami_model.charge import Card, Charge, charge
from hami_model.device import Device
from hami_model.life import Entry
from hami_model.objects import Container, Meta, Pod, PodSpec, Resources
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, multiple, precondition, rule

from tests.simulation.allocator_model import AllocatorModel
from tests.simulation.api_model import ApiModel, Binding

CATALOG = vendors.build(config.DEFAULTS, ascend=False, iluvatar=False)
SLOTS, MEMORY, CORES = 3, 16000, 100


def a_card(uuid: str) -> Device:
    return Device(id=uuid, vendor="NVIDIA", slots=SLOTS, memory=MEMORY, cores=CORES, model="NVIDIA A10")


INVENTORY: dict[str, tuple[Device, ...]] = {
    node: (a_card(f"GPU-{node}-0"), a_card(f"GPU-{node}-1")) for node in ("node-1", "node-2")
}
NODES = st.sampled_from(sorted(INVENTORY))
QUOTA_MIB = 30000
ALLOCATED = "hami.io/vgpu-devices-allocated"
LIES = st.sampled_from(["", "rubbish;", "GPU-node-1-0,NVIDIA,0,0:;", "GPU-node-1-1,NVIDIA,9000,100:;"])

Ask = tuple[int, dict[str, int], int, str]
"""How many cards, memory and cores of each, and the container's role."""

CONTAINERS: st.SearchStrategy[Ask] = st.tuples(
    st.sampled_from([1, 1, 2, 0]),
    st.sampled_from([{"nvidia.com/gpumem": mib} for mib in (100, 4000, 9000)] + [{"nvidia.com/gpumem-percentage": 40}]),
    st.sampled_from([0, 20, 40, 100]),
    st.sampled_from(["init", "sidecar", "app", "app"]),
)
MEANWHILE = ("time", "filter", "bind", "watch", "read", "patch")
ASKS = st.lists(CONTAINERS, min_size=1, max_size=2)


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

    @initialize(target=uids, asks=st.lists(ASKS, min_size=1, max_size=3))
    def begin_with_some_pods(self, asks: list[list[Ask]]) -> Any:
        return multiple(*(self.run_through(containers, end="answered") for containers in asks))

    @rule(target=uids, containers=ASKS)
    def create_a_pod(self, containers: list[Ask]) -> str:
        return self.create(containers)

    def create(self, containers: list[Ask]) -> str:
        pod = a_pod(len(self.api.log), containers)
        self.api.create(pod)
        return pod.metadata.uid

    @rule(uid=uids, what=st.sampled_from(["edit", "spoil", "delete"]), text=LIES)
    def somebody_meddles(self, uid: str, what: str, text: str) -> None:
        """Anybody may write anything on a pending pod, make a bound one's annotations unreadable, or delete it."""
        is_pending = uid in self.api.pods and not self.api.pods[uid].spec.node_name
        if what == "edit" and is_pending:
            self.api.annotate(uid, {ALLOCATED: text, "hami.io/vgpu-node": "node-1"})
        if what == "spoil" and uid in self.given and self.api.holds_devices(uid):
            self.api.annotate(uid, {ALLOCATED: "rubbish;"})
            self.spoilt.add(uid)
        if what == "delete" and uid in self.api.pods:
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

    @precondition(lambda self: self.under_way)
    @rule(at=st.integers(0, 5), is_answered=st.booleans())
    def a_binding_arrives(self, at: int, is_answered: bool) -> None:
        """Late or soon, answered or not."""
        binding = self.under_way.pop(at % len(self.under_way))
        if self.api.bind(binding):
            self.given[binding.uid] = binding.gives
            if is_answered:
                self.allocator.hear_bound(binding.uid)

    @precondition(lambda self: self.doubtful())
    @rule(at=st.integers(0, 5), with_patch=st.booleans())
    def ask_for_proof(self, at: int, with_patch: bool) -> None:
        uids = self.doubtful()
        self.allocator.prove(uids[at % len(uids)], with_patch=with_patch)

    def doubtful(self) -> list[str]:
        return [e.uid for e in self.allocator.ledger.entries if e.state is State.BINDING]

    @rule(target=uids, containers=ASKS, end=st.sampled_from(["sent", "bound", "answered", "started", "over"]))
    def schedule_a_pod(self, containers: list[Ask], end: str) -> str:
        return self.run_through(containers, end=end)

    @rule(target=uids, containers=ASKS, meanwhile=st.lists(st.sampled_from(MEANWHILE), max_size=3))
    def schedule_a_pod_whose_binding_dawdles(self, containers: list[Ask], meanwhile: list[str]) -> str:
        """While a Binding is on its way, nobody can know what becomes of it."""
        uid = self.run_through(containers, end="sent")
        for what in meanwhile:
            match what:
                case "time":
                    self.time_passes(61)
                case "filter":
                    self.filter_a_pod(uid)
                case "bind":
                    self.send_a_binding(uid, None)
                case "watch":
                    if self.listed is None:  # a reflector does not watch while it lists
                        self.watch(20)
                case proof:
                    self.allocator.prove(uid, with_patch=proof == "patch")
        if self.under_way:
            self.a_binding_arrives(len(self.under_way) - 1, is_answered=False)
        return uid

    @rule(target=uids, containers=ASKS)
    def schedule_a_pod_while_a_list_is_under_way(self, containers: list[Ask]) -> str:
        self.listed = (list(self.api.pods.values()), len(self.api.log))
        uid = self.run_through(containers, end="answered")
        self.end_the_list()
        return uid

    def run_through(self, containers: list[Ask], *, end: str) -> str:
        """Take a new pod the common way, up to where it ``end``s, so that cards fill up."""
        uid = self.create(containers)
        self.filter_a_pod(uid)
        if self.allocator.ledger.entry(uid) is not None:
            self.send_a_binding(uid, None)
            if end != "sent":
                self.a_binding_arrives(len(self.under_way) - 1, is_answered=end != "bound")
            if end == "started":
                self.api.start(uid)
            if end == "over" and self.api.holds_devices(uid):
                self.api.finish(uid, "Succeeded")
        return uid

    # The node

    @rule(uid=uids, what=st.sampled_from(["confirm", "start", "Succeeded", "Failed"]))
    def the_node_acts(self, uid: str, what: str) -> None:
        if what == "confirm":
            self.allocator.confirm(uid)
        elif self.api.holds_devices(uid) and what == "start":
            self.api.start(uid)
        elif self.api.holds_devices(uid):
            self.api.finish(uid, what)

    @rule(uid=uids)
    def a_grace_period_ends(self, uid: str) -> None:
        """The containers are over, and so is the object."""
        if uid in self.api.pods and self.api.pods[uid].metadata.deletion_timestamp:
            self.api.remove(uid)

    @rule(node=NODES, what=st.sampled_from(["lost", "reports", "silent", "speaks"]))
    def a_node_comes_or_goes(self, node: str, what: str) -> None:
        match what:
            case "lost":
                self.allocator.fleet.drop(node)
            case "reports":
                self.allocator.report(node)
            case _:
                self.allocator.fleet.set_ready(node, "NVIDIA", ready=what == "speaks")

    # Time, watches and lists

    @rule(seconds=st.sampled_from([1, 30, 61]))
    def time_passes(self, seconds: int) -> None:
        self.now += seconds
        self.allocator.expire(self.now)

    @precondition(lambda self: self.listed is None and self.allocator.position < len(self.api.log))
    @rule(events=st.integers(1, 4))
    def watch(self, events: int) -> None:
        for _ in range(events):
            self.allocator.watch()

    @rule(back=st.integers(1, 6))
    def an_old_unbound_sight_comes_again(self, back: int) -> None:
        old = self.api.log[: self.allocator.position][-back:][:1]
        if old and old[0][1] and not old[0][0].spec.node_name:
            self.allocator.sight(old[0][0])

    @precondition(lambda self: self.listed is None)
    @rule()
    def begin_a_list(self) -> None:
        self.listed = (list(self.api.pods.values()), len(self.api.log))

    @precondition(lambda self: self.listed is not None)
    @rule()
    def end_the_list(self) -> None:
        assert self.listed is not None
        self.allocator.relist(*self.listed)
        self.listed = None

    # The process

    @precondition(lambda self: self.allocator.ledger.entries)
    @rule(knows_all=st.booleans())
    def another_process_leads(self, knows_all: bool) -> None:
        """Bindings of the dead process are still under way; what it had learned, the next one finds."""
        self.listed = None
        if knows_all:
            self.restart_and_compare()
        else:
            self.allocator = self.a_new_process()

    def restart_and_compare(self) -> None:
        """What a new process finds is what the old one knew, without reservations and Bindings under way."""
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
        for costs in self.holders().values():
            for card, cost in costs.items():
                held[card] = held.get(card, Charge()) + cost
        return held

    def holders(self) -> dict[str, dict[Card, Charge]]:
        """Return what each pod on a node really holds now."""
        there = {uid: gift for uid, gift in self.given.items() if self.api.holds_devices(uid)}
        return {uid: charge(gift, self.api.pods[uid]) for uid, gift in there.items()}

    @invariant()
    def every_holder_is_in_the_books(self) -> None:
        """The allocator may believe that a pod holds more than it does, never less."""
        for uid, costs in self.holders().items():
            entry = self.allocator.ledger.entry(uid)
            assert entry is not None, f"{uid} holds devices and is not in the books"
            assert entry.is_committed
            for card, cost in costs.items():
                assert entry.charges.get(card, Charge()) | cost == entry.charges.get(card)

    @invariant()
    def nobody_books_himself(self) -> None:
        """Only what a landed Binding gave is in the books as bound, whatever pods say of themselves."""
        assert {e.uid for e in self.allocator.ledger.entries if e.is_bound} <= self.given.keys()

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
TestCardsAreGivenOnce.settings = settings(max_examples=200, stateful_step_count=50)
TestCardsAreGivenOnce = pytest.mark.timeout(300)(TestCardsAreGivenOnce)
