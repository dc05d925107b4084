"""Reading a cluster for the checker: versions, clocks, rights, and what a cluster at work breaks for moments."""

from pathlib import Path
from typing import Any

import pytest
from hami_kit.clock import SystemClock, rfc3339
from hami_kit.errors import KubeUnavailable
from hami_kit.kube import Kube, sight
from hami_kit.kube.rights import Deed, deeds, may
from hami_kit.kube.server import Server, Version, about
from hami_kit.kube.sight import inspect_cluster, see
from hami_model.inspection import Finding
from hami_testkit.builders import a_catalog
from hami_testkit.check import assert_nothing_wrong, check_cluster
from hami_testkit.cluster import Standin
from hami_testkit.cluster.faults import Fault
from hami_testkit.cluster.resources import NODES, PODS

CATALOG = a_catalog()
ALLOCATOR = "system:serviceaccount:kube-system:hami-allocator"


async def a_node(cluster: Standin, **annotations: str) -> None:
    status = {"allocatable": {"nvidia.com/gpu": "10"}, "capacity": {"nvidia.com/gpu": "10"}}
    register = '[{"id":"GPU-0","count":10,"devmem":8000,"devcore":100,"health":true}]'
    meta = {"name": "n1", "annotations": {"hami.io/node-nvidia-register": register, **annotations}}
    await cluster.registry.create(NODES, {"metadata": meta, "status": status})


async def a_holder(cluster: Standin, name: str, mib: int) -> None:
    limits = {"nvidia.com/gpu": "1"}
    annotations = {"hami.io/vgpu-node": "n1", "hami.io/bind-phase": "success",
                   "hami.io/vgpu-devices-allocated": f"GPU-0,NVIDIA,{mib},0:;"}  # fmt: skip
    spec: dict[str, Any] = {"schedulerName": "hami-scheduler",
                            "containers": [{"name": "main", "resources": {"limits": limits}}]}  # fmt: skip
    await cluster.registry.create(PODS, {"metadata": {"name": name, "annotations": annotations}, "spec": spec},
                                  namespace="default")  # fmt: skip
    cluster.registry.bind("default", name, {"metadata": {"name": name}, "target": {"kind": "Node", "name": "n1"}})


def rules(findings: "list[Finding] | tuple[Finding, ...]") -> list[str]:
    return [finding.rule for finding in findings]


async def test_a_cluster_where_all_is_well(cluster: Standin, kube: Kube) -> None:
    """Two pods fill a card."""
    await a_node(cluster)
    await a_holder(cluster, "a", 4000)
    await a_holder(cluster, "b", 4000)

    assert () == await inspect_cluster(kube, CATALOG)


async def test_a_card_given_twice_is_told_with_its_pods(cluster: Standin, tmp_path: Path) -> None:
    """A fault test that ends so says who holds what; nobody waits for it to pass."""
    await a_node(cluster)
    await a_holder(cluster, "a", 8000)
    await a_holder(cluster, "b", 1)
    kubeconfig = cluster.kubeconfig(tmp_path / "kc")

    assert ["over-memory"] == rules(await check_cluster(kubeconfig))
    with pytest.raises(AssertionError, match="has 8000 MiB and gave 8001: default/a 8000, default/b 1"):
        await assert_nothing_wrong(kubeconfig, within=3600)


async def test_a_lock_that_goes_away_by_itself_is_no_finding(
    cluster: Standin, kube: Kube, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is looked at twice; one that stays is found."""
    monkeypatch.setattr(sight, "BETWEEN_LOOKS", 0.0)
    key = "hami.io/mutex.lock"
    await a_node(cluster, **{key: f"{rfc3339(SystemClock().now())},default,gone"})

    assert ["lock-left"] == rules(await inspect_cluster(kube, CATALOG))

    async def unlock(_seconds: float) -> None:
        await kube.patch_node("n1", annotations={key: None})

    monkeypatch.setattr(sight.asyncio, "sleep", unlock)
    assert () == await inspect_cluster(kube, CATALOG)


async def test_what_is_never_cleared_away_fails_in_the_end(cluster: Standin, tmp_path: Path) -> None:
    """A lock of a deleted pod may need the allocator's next step, and no more than that."""
    key = "hami.io/mutex.lock"
    await a_node(cluster, **{key: f"{rfc3339(SystemClock().now())},default,gone"})

    with pytest.raises(AssertionError, match="lock-left"):
        await assert_nothing_wrong(cluster.kubeconfig(tmp_path / "kc"), within=0)


async def test_who_has_heard_of_a_scheduler(cluster: Standin, kube: Kube) -> None:
    """A condition ``PodScheduled`` is a scheduler's word; without one the pod is untried."""
    spec = {"containers": [{"name": "main"}]}
    told = {"conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}]}
    for name in ("new", "told"):
        await cluster.registry.create(PODS, {"metadata": {"name": name}, "spec": spec}, namespace="default")
    cluster.registry.patch(PODS, ("default", "told"), lambda pod: {**pod, "status": {**pod["status"], **told}},
                           status=True, dry_run=False)  # fmt: skip
    seen = await see(kube)
    by_uid = {pod.metadata.uid: pod.metadata.name for pod in seen.pods}

    assert {"new"} == {by_uid[uid] for uid in seen.untried}


async def test_version_and_time_of_the_api_server(kube: Kube) -> None:
    """One call tells both, and how far our clock is off."""
    server = await about(kube, SystemClock())

    assert (1, 34) == server.version.number
    assert 0 == server.skew


@pytest.mark.parametrize(("ours", "skew"), [(1000.0, 0), (1000.9, 0), (1003.0, 2.0), (990.0, -9.5)])
def test_how_far_a_clock_is_off(ours: float, skew: float) -> None:
    """The server's date is a whole second; nothing is told that it does not prove."""
    server = Server(version=Version(), time=1000.0, asked=ours, answered=ours + 0.5)

    assert skew == server.skew


async def test_rights_of_oneself_and_of_others(cluster: Standin, kube: Kube) -> None:
    """Asked one by one; sub-resources and groups among them."""
    cluster.reviews.forbidden = {(ALLOCATOR, "create", "pods/binding"), ("", "list", "nodes")}
    bind, list_nodes = Deed(verb="create", resource="pods/binding"), Deed(verb="list", resource="nodes")

    assert (True, False) == (await may(kube, bind), await may(kube, bind, account=ALLOCATOR))
    assert (False, True) == (await may(kube, list_nodes), await may(kube, list_nodes, account=ALLOCATOR))
    cluster.faults.set(Fault(kind="refuse", resource="subjectaccessreviews"))
    with pytest.raises(KubeUnavailable):
        await may(kube, bind, account=ALLOCATOR)


def test_the_lease_is_asked_about_where_it_lives() -> None:
    """Everything else is cluster-wide."""
    allocator = [str(deed) for deed in deeds("allocator", lease_namespace="hami")]

    assert "update leases.coordination.k8s.io in hami" in allocator
    assert "create pods/binding" in allocator


async def test_nothing_to_wait_for(cluster: Standin, tmp_path: Path) -> None:
    """A cluster that is well is left at once."""
    await a_node(cluster)

    await assert_nothing_wrong(cluster.kubeconfig(tmp_path / "kc"), within=3600)
