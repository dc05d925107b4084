"""From the watches to the books."""

import asyncio
from collections.abc import Sequence

import pytest
from hami_allocator.reconcile import Reconcile, asks_for_any
from hami_allocator.writer import Writer
from hami_kit.kube.reflector import ChangeKind
from hami_kit.kube.wire import Identity
from hami_model.allocation import Allocation
from hami_model.annotations import encode_register
from hami_model.bus.messages import Done, FilterPod, Heartbeat, Inventory, Placed, Unplaced
from hami_model.charge import Charge
from hami_model.device import Device
from hami_model.life import BindSent, Bound, Confirmed
from hami_model.objects import Container, Pod, PodSpec, PodStatus, QuotaSpec, ResourceQuota, Resources
from hami_model.objects import Meta as ObjectMeta
from msgspec import structs

from .conftest import REGISTER, Bench, a_node, a_pod

CARD = Device(id="GPU-a", vendor="NVIDIA", slots=10, memory=8000, cores=100, model="NVIDIA A40", mode="hami-core")


class Watching:
    """Reconcile with its writer, letter by letter."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.writer = Writer()
        self.reconcile = Reconcile(bench.world, self.writer, bench.agents, bench.clock)

    async def settle(self) -> None:
        running = asyncio.create_task(self.writer.run())
        await self.writer.wait_caught_up()
        running.cancel()

    async def saw(self, *pods: Pod, kind: ChangeKind = ChangeKind.MODIFIED) -> None:
        for pod in pods:
            self.reconcile.pod_changed(kind, pod)
        await self.settle()

    async def listed(self, pods: Sequence[Pod]) -> None:
        self.reconcile.pods_listed(pods, "7")
        await self.settle()


def bound(name: str, node: str = "node-1", *, card: str = "GPU-node-1-0", phase: str = "Running") -> Pod:
    pod = a_pod(name)
    notes = {"hami.io/vgpu-node": node, "hami.io/vgpu-devices-allocated": f"{card},NVIDIA,1000,0:;"}
    return Pod(
        metadata=structs.replace(pod.metadata, annotations=notes),
        spec=structs.replace(pod.spec, node_name=node),
        status=PodStatus(phase=phase),
    )


async def test_a_bound_pod_is_counted_and_its_end_frees_it(bench: Bench) -> None:
    """By phase or by deletion."""
    watching = Watching(bench)
    await watching.saw(bound("p"), bound("q"))
    both = bench.used("node-1")
    await watching.saw(bound("p", phase="Failed"))
    await watching.saw(bound("q"), kind=ChangeKind.DELETED)

    assert (2000, 0) == (both, bench.used("node-1"))


async def test_a_served_pod_that_no_watch_has_shown_and_a_list_lacks_is_read_once_more(bench: Bench) -> None:
    """Its own answers told the leader that it was bound and served; whether it is still there, only a read can tell."""
    watching, pod, allocation = Watching(bench), a_pod("p"), placed(bench, a_pod("p"))
    bench.world.apply(BindSent(uid="uid-p", pod=pod, allocation=allocation), Bound(uid="uid-p"))
    bench.world.apply(Confirmed(uid="uid-p"))

    await watching.listed([])

    assert [allocation.pod] == watching.reconcile.doubtful


def placed(bench: Bench, pod: Pod) -> Allocation:
    bench.desk.filter(FilterPod(pod=pod, nodes=["node-1"]))
    entry = bench.world.ledger.entry(pod.metadata.uid)
    assert entry is not None
    return entry.allocation


async def test_a_list_replaces_what_the_watch_said(bench: Bench) -> None:
    """A pod that the list lacks is gone; long lists are taken in portions."""
    watching = Watching(bench)
    await watching.saw(bound("old"), a_pod("waiting"))
    await watching.listed([bound(f"p{i}") for i in range(8)])

    assert 8000 == bench.used("node-1")
    assert {} == bench.world.unbound


async def test_what_a_list_has_and_nobody_can_read_stays_as_it_was(bench: Bench) -> None:
    """A pod, a node or a quota in a form that we cannot read is still there: nothing of it is free."""
    watching = Watching(bench)
    await watching.saw(bound("p"))
    watching.reconcile.quotas_listed([a_quota("low", 2000)], "7")
    watching.reconcile.pods_listed([], "8", [Identity(uid="uid-p")])
    watching.reconcile.nodes_listed([], "8", [Identity(name="node-1")])
    watching.reconcile.quotas_listed([], "8", [Identity(name="low", namespace="team-a")])
    await watching.settle()

    assert 1000 == bench.used("node-1")
    assert ("node-1",) == bench.world.fleet.nodes
    assert 2000 == bench.world.quotas.limit("team-a", "nvidia.com/gpumem")


async def test_a_namesake_made_later_is_another_pod(bench: Bench) -> None:
    """The list has the name, and not the uid that held the card: that pod is gone."""
    watching = Watching(bench)
    await watching.saw(bound("p"))
    other = bound("p", card="GPU-node-1-1")
    namesake = structs.replace(other, metadata=structs.replace(other.metadata, uid="uid-later"))
    await watching.listed([namesake])

    assert [("NVIDIA", "GPU-node-1-1")] == list(bench.world.fleet.use("node-1"))
    assert None is bench.world.ledger.entry("uid-p")


async def test_what_is_kept_of_a_list_asks_for_devices_or_holds_some(bench: Bench) -> None:
    """A pod in the books that were forgotten as it is read would be taken for gone, and its cards for free."""
    watching = Watching(bench)
    await watching.saw(bound("p"))
    plain = Pod(metadata=ObjectMeta(name="web", uid="uid-web"), spec=PodSpec(containers=[Container(name="main")]))
    holder = structs.replace(bound("p"), spec=structs.replace(plain.spec, node_name="node-1"))

    kept = [watching.reconcile.concerns(pod) for pod in (a_pod("waiting"), plain, holder)]

    assert [True, False, True] == kept


async def test_a_complaint_is_told_once_however_often_the_watch_shows_the_pod(bench: Bench) -> None:
    """And again only when it changes."""
    watching = Watching(bench)
    broken = bound("p", card="nonsense,x")
    await watching.saw(broken, broken, broken)
    await watching.saw(structs.replace(broken, status=PodStatus(phase="Succeeded")))

    assert 1 == bench.duty.kinds.count("malformed")
    assert {} == watching.reconcile.complaints


async def test_a_pod_without_devices_leaves_no_trace(bench: Bench) -> None:
    """Most pods of a cluster are none of our business."""
    watching = Watching(bench)
    await watching.saw(a_pod("web", gpu=0))

    assert {} == bench.world.unbound
    assert () == bench.world.ledger.entries


async def test_devices_are_free_when_the_containers_are_gone(bench: Bench) -> None:
    """A force-deleted pod's containers run on for a while: its agent still names it."""
    watching = Watching(bench)
    bench.see(a_node("agent-1", annotations={}))
    told = Inventory(node="agent-1", agent="a", digest="d", vendors=["NVIDIA"], devices=[CARD])
    assert Done() == bench.agents.inventory(told)
    pod = bound("p", "agent-1", card="GPU-a")
    await watching.saw(pod)
    bench.agents.heartbeat(Heartbeat(node="agent-1", agent="a", digest="d", holding=["uid-p"]))
    await watching.saw(pod, kind=ChangeKind.DELETED)
    watching.reconcile.tick()
    held = bench.used("agent-1")
    bench.agents.heartbeat(Heartbeat(node="agent-1", agent="a", digest="d"))
    watching.reconcile.tick()

    assert (1000, 0) == (held, bench.used("agent-1"))


async def test_containers_that_never_seem_to_go_are_waited_for_thirty_seconds(bench: Bench) -> None:
    """The agent's own fence has the last word after that."""
    watching = Watching(bench)
    bench.see(a_node("agent-1", annotations={}))
    bench.agents.inventory(Inventory(node="agent-1", agent="a", digest="d", vendors=["NVIDIA"], devices=[CARD]))
    pod = bound("p", "agent-1", card="GPU-a")
    await watching.saw(pod)
    bench.agents.heartbeat(Heartbeat(node="agent-1", agent="a", digest="d", holding=["uid-p"]))
    await watching.saw(pod, kind=ChangeKind.DELETED)
    bench.clock.seconds += 30
    watching.reconcile.tick()

    assert 0 == bench.used("agent-1")


async def test_a_pod_that_failed_while_its_containers_run_is_waited_for_too(bench: Bench) -> None:
    """A phase may be written by others than the kubelet; the agent sees what runs."""
    watching = Watching(bench)
    bench.see(a_node("agent-1", annotations={}))
    bench.agents.inventory(Inventory(node="agent-1", agent="a", digest="d", vendors=["NVIDIA"], devices=[CARD]))
    await watching.saw(bound("p", "agent-1", card="GPU-a"))
    bench.agents.heartbeat(Heartbeat(node="agent-1", agent="a", digest="d", holding=["uid-p"]))
    await watching.saw(bound("p", "agent-1", card="GPU-a", phase="Failed"))
    watching.reconcile.tick()
    held = bench.used("agent-1")
    bench.agents.heartbeat(Heartbeat(node="agent-1", agent="a", digest="d"))
    watching.reconcile.tick()

    assert (1000, 0) == (held, bench.used("agent-1"))


async def test_a_complaint_ends_when_the_pod_says_what_it_holds(bench: Bench) -> None:
    """Somebody wrote the annotations that were missing."""
    watching = Watching(bench)
    bare = structs.replace(bound("p"), metadata=structs.replace(bound("p").metadata, annotations={}))
    pending = structs.replace(bare, status=PodStatus(phase="Pending"))
    await watching.saw(pending)
    complained = set(watching.reconcile.complaints)
    await watching.saw(bound("p"))

    assert ({"uid-p"}, {}) == (complained, watching.reconcile.complaints)


async def test_a_node_made_anew_has_nothing_of_its_namesake(bench: Bench) -> None:
    """Other cards, another agent: only what runs there by name is still booked, and counts on the same cards."""
    watching = Watching(bench)
    old, new = a_node("agent-1", annotations={}), a_node("agent-1", annotations={})
    old = structs.replace(old, metadata=structs.replace(old.metadata, uid="node-uid-1"))
    new = structs.replace(new, metadata=structs.replace(new.metadata, uid="node-uid-2"))
    bench.see(old)
    bench.agents.inventory(Inventory(node="agent-1", agent="a", digest="d", vendors=["NVIDIA"], devices=[CARD]))
    await watching.saw(bound("p", "agent-1", card="GPU-a"))
    watching.reconcile.nodes_listed([a_node("node-1"), a_node("node-2"), new], "9")
    await watching.settle()
    without = bench.world.fleet.devices("agent-1")
    asked = bench.agents.heartbeat(Heartbeat(node="agent-1", agent="b", digest="d"))
    other = structs.replace(CARD, id="GPU-b")
    bench.agents.inventory(Inventory(node="agent-1", agent="b", digest="e", vendors=["NVIDIA"], devices=[CARD, other]))
    shown = {d.id: bench.world.fleet.use("agent-1").get(("NVIDIA", d.id)) for d in bench.world.fleet.devices("agent-1")}

    assert ((), True) == (without, asked)
    assert {"GPU-a": Charge(slots=1, memory=1000), "GPU-b": None} == shown


async def test_a_card_that_two_nodes_list_is_booked_on_each_for_itself(bench: Bench) -> None:
    """It was moved, and its old node's registration stayed behind: no pod of one node costs the other anything."""
    watching = Watching(bench)
    text = encode_register([CARD])
    for name in ("old", "new"):
        bench.see(a_node(name, annotations={REGISTER: text}))
    await watching.saw(bound("p", "old", card="GPU-a"), bound("q", "new", card="GPU-a"))
    await watching.saw(bound("p", "old", card="GPU-a"), kind=ChangeKind.DELETED)
    bench.see(a_node("old", annotations={}))

    assert (0, 1000) == (bench.used("old"), bench.used("new"))
    assert "drift" not in bench.duty.kinds


@pytest.mark.parametrize("lowered", [{"slots": 1}, {"memory": 500}], ids=["slots", "memory"])
async def test_a_card_that_lists_less_than_is_booked_takes_nobody_until_pods_end(
    bench: Bench, lowered: dict[str, int]
) -> None:
    """Who runs there keeps what it has; people hear of it."""
    watching = Watching(bench)
    bench.see(a_node("small", annotations={REGISTER: encode_register([CARD])}))
    pods = [bound("p", "small", card="GPU-a"), bound("q", "small", card="GPU-a")]
    await watching.saw(*pods)
    bench.see(a_node("small", annotations={REGISTER: encode_register([structs.replace(CARD, **lowered)])}))
    full = bench.desk.filter(FilterPod(pod=a_pod("r", mem=100), nodes=["small"]))
    kept = bench.used("small")
    await watching.saw(*pods, kind=ChangeKind.DELETED)

    assert isinstance(full, Unplaced)
    assert 2000 == kept
    assert [["GPU-a"]] == [fact.data["devices"] for fact in bench.duty.facts if fact.kind == "drift"]
    assert Placed(node="small") == bench.desk.filter(FilterPod(pod=a_pod("s", mem=100), nodes=["small"]))


async def test_a_registration_that_turns_to_garbage_offers_nothing_and_loses_nothing(bench: Bench) -> None:
    """Running pods stay booked; the repaired registration offers what is left. Other nodes notice nothing."""
    watching = Watching(bench)
    await watching.saw(bound("p"))
    bench.see(a_node("node-1", annotations={REGISTER: "[{"}))
    broken = bench.desk.filter(FilterPod(pod=a_pod("q", mem=8000), nodes=["node-1"]))
    other = bench.desk.filter(FilterPod(pod=a_pod("r", mem=8000), nodes=["node-1", "node-2"]))
    bench.see(a_node("node-1"))
    repaired = bench.desk.filter(FilterPod(pod=a_pod("s", mem=8000, gpu=2), nodes=["node-1"]))

    assert isinstance(broken, Unplaced)
    assert Placed(node="node-2") == other
    assert isinstance(repaired, Unplaced)
    assert 1000 == bench.used("node-1")
    assert 1 == bench.duty.kinds.count("inventory.malformed")


async def test_the_lowest_of_several_quotas_holds_until_it_is_deleted(bench: Bench) -> None:
    """Each object is kept by name."""
    watching = Watching(bench)
    high, low = a_quota("high", 4000), a_quota("low", 2000)
    watching.reconcile.quotas_listed([high, low], "7")
    await watching.settle()
    lowest = bench.world.quotas.limit("team-a", "nvidia.com/gpumem")
    watching.reconcile.quota_changed(ChangeKind.DELETED, low)
    await watching.settle()
    left = bench.world.quotas.limit("team-a", "nvidia.com/gpumem")
    watching.reconcile.quotas_listed([], "8")
    await watching.settle()

    assert (2000, 4000, None) == (lowest, left, bench.world.quotas.limit("team-a", "nvidia.com/gpumem"))


async def test_a_deleted_node_offers_nothing(bench: Bench) -> None:
    """And comes back with its cards."""
    watching = Watching(bench)
    watching.reconcile.nodes_listed([a_node("node-2")], "7")
    await watching.settle()
    without = bench.world.fleet.nodes
    watching.reconcile.node_changed(ChangeKind.ADDED, a_node("node-1"))
    await watching.settle()
    watching.reconcile.node_changed(ChangeKind.DELETED, a_node("node-2"))
    await watching.settle()

    assert (("node-2",), ("node-1",)) == (without, bench.world.fleet.nodes)


def a_quota(name: str, mem: int) -> ResourceQuota:
    hard: dict[str, str | int | float] = {"limits.nvidia.com/gpumem": str(mem)}
    return ResourceQuota(metadata=ObjectMeta(name=name, namespace="team-a"), spec=QuotaSpec(hard=hard))


def test_a_pod_asks_by_limits_or_requests_of_any_container(bench: Bench) -> None:
    """Cheap enough to be asked of every pod of the cluster."""
    names = bench.world.catalog.resource_names
    asked = Pod(spec=PodSpec(init_containers=[Container(resources=Resources(requests={"huawei.com/Ascend310P": "1"}))]))

    assert asks_for_any(asked, names)
    assert not asks_for_any(a_pod("web", gpu=0), names)


async def test_a_quota_that_cannot_be_meant_is_told_of_once(bench: Bench) -> None:
    """Its status changes with every pod; its author hears of it again when it was mended and is wrong once more."""
    watching = Watching(bench)
    wrong, right = {"limits.nvidia.com/gpumem": "10Gi"}, {"limits.nvidia.com/gpumem": "10240"}

    for hard in (wrong, wrong, right, wrong):
        quota = ResourceQuota(metadata=ObjectMeta(name="q", namespace="team-a"), spec=QuotaSpec(hard=dict(hard)))
        watching.reconcile.quota_changed(ChangeKind.MODIFIED, quota)
        await watching.settle()

    told = [fact for fact in bench.duty.facts if fact.kind == "malformed"]
    expected = (
        "ResourceQuota team-a/q: limits.nvidia.com/gpumem 10Gi is too much to limit anything: it counts MiB: "
        "write 10240"
    )
    assert [("team-a/q", expected)] * 2 == [(fact.subject, fact.data["error"]) for fact in told]
