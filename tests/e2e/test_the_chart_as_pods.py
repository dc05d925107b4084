"""The chart's pods on a real kubelet: what Helm installs serves pods, is upgraded and rolled back, and leaves nothing.

One rule: what is asserted is what a user sees: pods, what their containers were given, what hamictl prints.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import pytest_asyncio
from hami_testkit.check import assert_nothing_wrong

from tests.e2e.charted import NODE, PODS, SYSTEM, Charted, Json, a_charted_cluster, why_not
from tests.e2e.ground import DEADLINE
from tests.e2e.pods import a_container, a_pod, booked, given

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(300)]
DOCTOR = (
    "doctor", "--no-enable-ascend", "--no-enable-iluvatar",
    *("--allocator-as", "system:serviceaccount:kube-system:hami-allocator"),
    *("--agent-as", "system:serviceaccount:kube-system:hami-device-plugin"),
)  # fmt: skip


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cluster(binaries: Path) -> AsyncIterator[Charted]:
    """A cluster with the chart installed, all pods ready, and a pod that holds a slice."""
    if why := why_not(binaries):
        pytest.skip(f"the chart's pods cannot run here: {why}")
    async with a_charted_cluster(binaries) as found:
        await found.chart.helm("install")
        await found.wait_ready()
        await a_slice(found, "held", 5000)
        yield found


async def a_slice(cluster: Charted, name: str, memory: int) -> None:
    """Apply a pod that wants a slice, and see it get just that."""
    made = a_pod(name, a_container(memory=memory), out=cluster.node.out)
    del made["spec"]["schedulerName"]  # the webhook's business
    await cluster.api.create(PODS, made)
    pod = await cluster.wait(name, lambda pod: pod["status"].get("phase") == "Running")
    (told,) = cluster.node.told(pod["metadata"]["uid"], "main")

    assert given(told) == booked(pod)["main"]
    assert [memory] == [size for _, size in given(told)]


async def until(is_so: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(DEADLINE):
        while not await is_so():
            await asyncio.sleep(0.2)


def starts(pods: list[Json]) -> dict[str, int]:
    """Count the restarts of all containers."""
    return {
        f"{p['metadata']['name']}/{c['name']}": c["restartCount"]
        for p in pods
        for c in p["status"]["containerStatuses"]
    }


async def test_every_pod_of_the_chart_becomes_ready_at_its_first_start(cluster: Charted) -> None:
    """Whatever comes up first waits for the others."""
    pods = await cluster.pods()
    workloads = {pod["metadata"]["labels"]["app.kubernetes.io/component"] for pod in pods}

    assert {"hami-allocator", "hami-device-plugin", "hami-nats", "hami-scheduler", "admission-webhook"} == workloads
    assert {0} == set(starts(pods).values())


async def test_a_user_asks_for_a_slice_and_the_container_sees_it(cluster: Charted) -> None:
    """Through the webhook's Service, the chart's own kube-scheduler, NATS, and the agent's socket on the node."""
    await a_slice(cluster, "asks", 3000)

    code, said = await cluster.hamictl("nodes")
    assert (0, True) == (code, NODE in said), said
    await assert_nothing_wrong(cluster.kubeconfig)


async def test_the_doctor_finds_nothing(cluster: Charted) -> None:
    """With the accounts, the Services and the configuration that the pods really have."""
    assert (0, "[]\n") == await cluster.hamictl(*DOCTOR, "-o", "json")


async def test_nobody_is_refused_anything_by_the_api_server(cluster: Charted) -> None:
    """Each pod has its own account's rights, and asks for no more."""
    lines = [line for log in cluster.logs() for line in log.read_text().splitlines()]

    assert lines
    assert [] == [line for line in lines if "forbidden" in line.lower()]


async def test_another_allocator_serves_when_the_leaders_pod_is_gone(cluster: Charted) -> None:
    """The lease says who leads; its pod is deleted without grace, as by a node that is lost."""
    lease = await cluster.api.get("/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/hami-allocator")
    holder = lease["spec"]["holderIdentity"]
    leader = next(pod for pod in await cluster.pods() if holder.startswith(pod["metadata"]["name"]))
    await cluster.api.delete(f"{SYSTEM}/{leader['metadata']['name']}", {"gracePeriodSeconds": 0})

    await a_slice(cluster, "after-the-leader", 2000)
    await cluster.wait_ready()


async def test_pods_keep_their_cards_through_upgrade_and_rollback(cluster: Charted) -> None:
    """Each rolls every pod of ours; who holds a slice runs on, and who comes gets one."""
    before = {pod["metadata"]["uid"] for pod in await cluster.pods()}
    held = await cluster.api.get(f"{PODS}/held")
    await cluster.chart.helm("upgrade", "logLevel=debug")
    await cluster.wait_ready()
    await a_slice(cluster, "upgraded", 1000)
    await cluster.chart.rollback(1)
    await cluster.wait_ready()
    await a_slice(cluster, "rolled-back", 1000)

    assert before.isdisjoint(
        {p["metadata"]["uid"] for p in await cluster.pods() if "nats" not in p["metadata"]["name"]}
    )
    now = await cluster.api.get(f"{PODS}/held")
    assert booked(held) == booked(now)
    assert [0] == [status["restartCount"] for status in now["status"]["containerStatuses"]]
    await assert_nothing_wrong(cluster.kubeconfig)


async def test_uninstalling_takes_all_along_but_the_users_pods(cluster: Charted) -> None:
    """Who holds a slice runs on; what is left is what the how-to says, and no webhook that would hold up every pod."""
    await cluster.chart.uninstall()

    async def is_gone() -> bool:
        return not await cluster.pods()

    await until(is_gone)
    assert {"Lease": ["hami-allocator", "hami-scheduler"]} == await cluster.left_behind()
    assert "Running" == (await cluster.api.get(f"{PODS}/held"))["status"]["phase"]
