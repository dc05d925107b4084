"""What we rely on from an API server when deleting objects, one behaviour per test.

The stand-in answers by default; with HAMI_TEST_KUBECONFIG set, the same tests ask the real server it leads to.
"""

import uuid

from hami_testkit.cluster.client import ApiClient

from tests.integration.contract import CORE, a_binding, a_pod, bind, refusal


async def test_an_unbound_pod_is_gone_at_once(api: ApiClient, pods: str) -> None:
    """Nobody has to end a pod that no node runs."""
    await api.create(pods, a_pod())

    await api.delete(f"{pods}/p0")

    async with refusal(404):
        await api.get(f"{pods}/p0")


async def test_a_bound_pod_stays_until_its_kubelet_lets_it_go(api: ApiClient, pods: str) -> None:
    """A pod on a node is only marked; deletion with grace 0 takes it away."""
    await api.create(pods, a_pod())
    await bind(api, pods, a_binding())

    await api.delete(f"{pods}/p0")

    marked = await api.get(f"{pods}/p0")
    assert (True, 30) == ("deletionTimestamp" in marked["metadata"], marked["metadata"]["deletionGracePeriodSeconds"])
    await api.delete(f"{pods}/p0", {"gracePeriodSeconds": 0})
    async with refusal(404):
        await api.get(f"{pods}/p0")


async def test_a_deletion_may_insist_on_the_uid(api: ApiClient, pods: str) -> None:
    """Deleting a namesake by mistake is refused."""
    await api.create(pods, a_pod())

    async with refusal(409, "the UID in the precondition"):
        await api.delete(f"{pods}/p0", {"preconditions": {"uid": str(uuid.uuid4())}})


async def test_a_deletion_may_be_a_dry_run(api: ApiClient, pods: str) -> None:
    """Asked for in the query or in the body, it deletes nothing."""
    await api.create(pods, a_pod())

    await api.delete(f"{pods}/p0", query={"dryRun": "All"})
    await api.delete(f"{pods}/p0", {"dryRun": ["All"]})

    assert "p0" == (await api.get(f"{pods}/p0"))["metadata"]["name"]


async def test_many_are_deleted_by_a_selector(api: ApiClient, pods: str) -> None:
    """The list of what is deleted comes back, and the others stay."""
    for name in ("a", "b", "c"):
        await api.create(pods, {**a_pod(name), "metadata": {"name": name, "labels": {"keep": str(name == "b")}}})

    deleted = await api.delete(pods, {"gracePeriodSeconds": 0}, query={"labelSelector": "keep=False"})

    assert ("PodList", ["a", "c"]) == (deleted["kind"], [item["metadata"]["name"] for item in deleted["items"]])
    assert ["b"] == [item["metadata"]["name"] for item in (await api.get(pods))["items"]]


async def test_a_deletion_answers_with_the_object_or_its_name(api: ApiClient, namespace: str) -> None:
    """Quotas come back as they were, leases as a Status that names them."""
    quotas = f"{CORE}/namespaces/{namespace}/resourcequotas"
    leases = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"
    await api.create(quotas, {"metadata": {"name": "q"}, "spec": {"hard": {"limits.nvidia.com/gpumem": 4000}}})
    lease = await api.create(leases, {"metadata": {"name": "l"}, "spec": {"holderIdentity": "a"}})

    quota = await api.delete(f"{quotas}/q")
    gone = await api.delete(f"{leases}/l")

    assert {"limits.nvidia.com/gpumem": "4k"} == quota["spec"]["hard"]
    named = {"name": "l", "group": "coordination.k8s.io", "kind": "leases", "uid": lease["metadata"]["uid"]}
    assert ("Success", named) == (gone["status"], gone["details"])
