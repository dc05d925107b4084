"""What the leader answers out of memory."""

from hami_allocator.desk import Granted, Plain, Unknown
from hami_model.allocation import State
from hami_model.bus.messages import (
    AskQuota,
    Done,
    FilterPod,
    NoDevices,
    Placed,
    QuotaAllowed,
    QuotaDenied,
    QuotaNeed,
    Refused,
    Unplaced,
)
from hami_model.life import BindSent, Bound
from hami_model.objects import PodRef
from hami_model.request import Role

from .conftest import Bench, a_node, a_pod

BOTH = ["node-1", "node-2"]


def reserved_on(bench: Bench, name: str, **ask: int) -> str:
    answer = bench.desk.filter(FilterPod(pod=a_pod(name, **ask), nodes=BOTH))
    assert isinstance(answer, Placed), answer
    return answer.node


def test_a_yes_reserves_the_devices(bench: Bench) -> None:
    """The next filter sees them taken, though nothing was written anywhere."""
    node = reserved_on(bench, "p", mem=8000)

    assert 8000 == bench.used(node)
    assert ["reserved"] == [step.step.lower() for step in bench.duty.steps if hasattr(step, "step")]
    assert "FilteringSucceed" == bench.duty.told[0].reason


def test_a_no_counts_its_reasons_and_reserves_nothing(bench: Bench) -> None:
    """HAMi's words, by position in the request."""
    answer = bench.desk.filter(FilterPod(pod=a_pod("p", mem=9000), nodes=[*BOTH, "node-9"]))

    assert Unplaced(reasons={"2/2 CardInsufficientMemory": [0, 1], "node unregistered": [2]}) == answer
    assert "rejected" in bench.duty.kinds
    assert 0 == bench.used("node-1") + bench.used("node-2")


def test_a_pod_without_devices_is_none_of_our_business(bench: Bench) -> None:
    """Every offered node will do."""
    assert NoDevices() == bench.desk.filter(FilterPod(pod=a_pod("p", gpu=0), nodes=BOTH))


def test_a_newer_filter_of_a_pod_replaces_its_reservation(bench: Bench) -> None:
    """kube-scheduler tried again: the pod holds one reservation, not two."""
    reserved_on(bench, "p", mem=3000)
    reserved_on(bench, "p", mem=3000)

    assert 3000 == bench.used("node-1") + bench.used("node-2")


def test_a_filter_of_a_pod_whose_binding_is_on_its_way_changes_nothing(bench: Bench) -> None:
    """The outcome is unknown; its devices are not given out again, and not chosen anew."""
    node = reserved_on(bench, "p")
    bench.desk.plan_bind(PodRef("team-a", "p", "uid-p"), node, None)
    answer = bench.desk.filter(FilterPod(pod=a_pod("p"), nodes=BOTH))

    assert isinstance(answer, Refused)
    assert answer.retriable
    assert 1000 == bench.used(node)


def test_an_amount_that_cannot_be_read_is_one_clear_error(bench: Bench) -> None:
    """The next pod is placed as if nothing had been."""
    answer = bench.desk.filter(FilterPod(pod=a_pod("p", mem="lots"), nodes=BOTH))  # type: ignore[arg-type]

    assert isinstance(answer, Refused)
    assert "lots" in answer.error
    reserved_on(bench, "q")


def test_a_bind_sends_what_was_reserved(bench: Bench) -> None:
    """From now on the outcome is unknown."""
    node = reserved_on(bench, "p")
    plan = bench.desk.plan_bind(PodRef("team-a", "p", "uid-p"), node, None)

    assert isinstance(plan, Granted)
    assert node == plan.allocation.node
    assert Role.APP is plan.allocation.containers[0].role
    entry = bench.world.ledger.entry("uid-p")
    assert entry is not None
    assert State.BINDING is entry.state


def test_a_bind_for_another_node_decides_again_there(bench: Bench) -> None:
    """kube-scheduler has the last word on the node, we on its cards."""
    node = reserved_on(bench, "p")
    other = next(name for name in BOTH if name != node)
    plan = bench.desk.plan_bind(PodRef("team-a", "p", "uid-p"), other, None)

    assert isinstance(plan, Granted)
    assert other == plan.allocation.node
    assert 0 == bench.used(node)


def test_a_bind_of_a_pod_we_have_not_seen_needs_the_pod_first(bench: Bench) -> None:
    """A bind names a pod and brings none; what was read then decides on the named node."""
    ref = PodRef("team-a", "p", "uid-p")

    assert Unknown() == bench.desk.plan_bind(ref, "node-1", None)
    assert isinstance(bench.desk.plan_bind(ref, "node-1", a_pod("p")), Granted)


def test_a_bind_of_a_pod_without_devices_is_plain(bench: Bench) -> None:
    """It is bound and nothing else."""
    pod = a_pod("p", gpu=0)

    assert Plain(pod) == bench.desk.plan_bind(PodRef.of(pod), "node-1", pod)


def test_a_bind_that_does_not_fit_any_more_leaves_nothing_behind(bench: Bench) -> None:
    """Its reservation ran out, and others took the cards."""
    bench.see(a_node("node-1", cards=1))
    pod = a_pod("p", gpu=2)
    answer = bench.desk.plan_bind(PodRef.of(pod), "node-1", pod)

    assert isinstance(answer, Refused)
    assert "NodeInsufficientDevice" in answer.error
    assert bench.world.ledger.entry("uid-p") is None


def test_a_bind_of_a_pod_already_bound_there_is_done(bench: Bench) -> None:
    """Our first answer was lost; the scheduler asks again."""
    node = reserved_on(bench, "p")
    bench.world.apply(BindSent(uid="uid-p"), Bound(uid="uid-p"))
    other = next(name for name in BOTH if name != node)

    assert Done() == bench.desk.plan_bind(PodRef("team-a", "p", "uid-p"), node, None)
    assert isinstance(bench.desk.plan_bind(PodRef("team-a", "p", "uid-p"), other, None), Refused)


def test_the_quota_question_counts_what_is_reserved(bench: Bench) -> None:
    """Admission asks before a pod exists, filter holds the line afterwards."""
    bench.world.quotas.set("team-a", "gpus", {"limits.nvidia.com/gpumem": "2000"})
    reserved_on(bench, "p", mem=1500)
    need = [QuotaNeed(vendor="NVIDIA", memory=1000, cores=0)]
    denied = bench.desk.quota(AskQuota(namespace="team-a", needs=need))

    assert QuotaDenied(resource="nvidia.com/gpumem", used=1500, limit=2000, wanted=1000) == denied
    assert QuotaAllowed() == bench.desk.quota(AskQuota(namespace="team-b", needs=need))
    assert isinstance(
        bench.desk.quota(AskQuota(namespace="a", needs=[QuotaNeed(vendor="XYZ", memory=1, cores=0)])), Refused
    )
    assert "quota.denied" in bench.duty.kinds
