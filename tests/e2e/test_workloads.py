"""Deployments and Jobs, whose pods kube-controller-manager makes and deletes: quota, deletion, ended pods.

One rule: a user looks at what Kubernetes shows of their workload, so our sentences must come through its controllers.
"""

import pytest
from hami_testkit.check import assert_nothing_wrong

from tests.e2e.installed import Installed, Json, Namespace, a_pod, runs

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(300)]
WHOLE = 40_000
NODE = "gpu-a"
RUN_SECONDS = "standin.hami.io/run-seconds"
"""What the kubelet that is played takes for how long containers run."""


def a_deployment(name: str, *, replicas: int, **pod: int) -> Json:
    """Return a Deployment of pods that ask for these cards and memory on one node."""
    template = {"metadata": {"labels": {"app": name}}, "spec": a_pod(name, node=NODE, **pod)["spec"]}
    spec = {"replicas": replicas, "selector": {"matchLabels": {"app": name}}, "template": template}
    return {"metadata": {"name": name}, "spec": spec}


async def scale(there: Namespace, name: str, replicas: int) -> None:
    """Set how many pods are wanted."""
    await there.api.patch(there.path("apps/v1/deployments", name), {"spec": {"replicas": replicas}})


async def test_a_replicaset_says_why_it_cannot_scale_over_the_quota(installed: Installed) -> None:
    """The refusal stands in its events, with asked, used and limit; once the quota allows it, the pod is there."""
    quota: Json = {"metadata": {"name": "gpu"}, "spec": {"hard": {"limits.nvidia.com/gpumem": "3000"}}}
    async with installed.namespace("quota") as there:
        await there.create("resourcequotas", quota)
        await there.create("apps/v1/deployments", a_deployment("web", replicas=3))
        await there.wait_pods(lambda pods: 3 == sum(map(runs, pods)))
        await scale(there, "web", 4)
        said = await there.wait_event("FailedCreate", "nvidia.com/gpumem")
        pods = await there.pods()
        quota["spec"]["hard"]["limits.nvidia.com/gpumem"] = "4000"
        await there.api.patch(there.path("resourcequotas", "gpu"), {"spec": quota["spec"]})
        await there.wait_pods(lambda pods: 4 == sum(map(runs, pods)))
        await assert_nothing_wrong(installed.cluster.kubeconfig)

    assert 3 == len(pods)
    assert "denied the request: exceeding resource quota: namespace quota uses 3000 of 3000 nvidia.com/gpumem" in said


async def test_deleting_a_deployment_lets_those_that_wait_have_its_cards(installed: Installed) -> None:
    """Its pods go one after the other, and another Deployment's take their cards as they come free."""
    async with installed.namespace("deletion") as there:
        await there.create("apps/v1/deployments", a_deployment("old", replicas=2, memory=WHOLE))
        await there.wait_pods(lambda pods: 2 == sum(map(runs, pods)), app="old")
        await there.create("apps/v1/deployments", a_deployment("new", replicas=2, memory=WHOLE))
        await there.wait_event("FilteringFailed")
        await there.api.delete(there.path("apps/v1/deployments", "old"))
        await there.wait_pods(lambda pods: 2 == sum(map(runs, pods)), app="new")
        assert [] == await there.pods(app="old")
        await assert_nothing_wrong(installed.cluster.kubeconfig)

    await installed.wait_booked(NODE, 0)


async def test_a_jobs_ended_pods_hold_nothing(installed: Installed) -> None:
    """Four pods of a Job, two at a time, have both cards in turn; the ended ones stay in Kubernetes, without cards."""
    template = {"metadata": {"annotations": {RUN_SECONDS: "1"}},
                "spec": a_pod("batch", memory=WHOLE, node=NODE, restartPolicy="Never")["spec"]}  # fmt: skip
    job = {"metadata": {"name": "batch"}, "spec": {"completions": 4, "parallelism": 2, "template": template}}
    async with installed.namespace("jobs") as there:
        await there.create("batch/v1/jobs", job)
        pods = await there.wait_pods(lambda pods: 4 == sum(pod["status"]["phase"] == "Succeeded" for pod in pods))
        await installed.wait_booked(NODE, 0)
        await assert_nothing_wrong(installed.cluster.kubeconfig)

    assert 4 == len(pods)
