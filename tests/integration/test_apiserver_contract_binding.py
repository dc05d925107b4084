"""What we rely on from an API server when binding pods, one behaviour per test.

The stand-in answers by default; with HAMI_TEST_KUBECONFIG set, the same tests ask the real server it leads to.
"""

from hami_testkit.cluster.client import ApiClient

from tests.integration.contract import CORE, a_binding, a_pod, bind, events, refusal


async def test_a_binding_writes_node_and_annotations_in_one_step(api: ApiClient, pods: str) -> None:
    """The watch sees one change with both; annotations are added and overwritten, labels ignored."""
    pod = a_pod()
    pod["metadata"]["annotations"] = {"kept": "1", "changed": "1"}
    made = await api.create(pods, pod)

    answer = await api.send(
        "POST", f"{pods}/p0/binding", a_binding(annotations={"changed": "2", "new": "3"}, labels={"l": "1"})
    )
    seen = await events(api, pods, until=bool, resourceVersion=made["metadata"]["resourceVersion"])

    bound = seen[0]["object"]
    assert (201, "Success") == (answer.code, answer.object["status"])
    assert ("node-a", {"kept": "1", "changed": "2", "new": "3"}) == (
        bound["spec"]["nodeName"],
        bound["metadata"]["annotations"],
    )
    assert "l" not in bound["metadata"].get("labels", {})
    assert ["True"] == [c["status"] for c in bound["status"]["conditions"] if c["type"] == "PodScheduled"]


async def test_a_binding_may_be_posted_to_the_list_of_bindings(api: ApiClient, namespace: str, pods: str) -> None:
    """``/bindings`` takes the name from the object and merges annotations as well."""
    await api.create(pods, a_pod())

    await api.create(f"{CORE}/namespaces/{namespace}/bindings", a_binding(annotations={"a": "1"}))

    bound = await api.get(f"{pods}/p0")
    assert ("node-a", {"a": "1"}) == (bound["spec"]["nodeName"], bound["metadata"]["annotations"])


async def test_a_bound_pod_is_not_bound_again(api: ApiClient, pods: str) -> None:
    """A second binding is a conflict, to the same node as to another."""
    await api.create(pods, a_pod())
    await bind(api, pods, a_binding(node="node-a"))

    for node in ("node-a", "node-b"):
        async with refusal(409, 'pod p0 is already assigned to node "node-a"'):
            await bind(api, pods, a_binding(node=node))


async def test_a_binding_may_insist_on_uid_and_revision(api: ApiClient, pods: str) -> None:
    """A namesake's uid or an old resourceVersion is a conflict; the right ones bind."""
    meta = (await api.create(pods, a_pod()))["metadata"]

    async with refusal(409, "Precondition failed: UID in precondition: other-uid, UID in object meta:"):
        await bind(api, pods, a_binding(uid="other-uid"))
    async with refusal(409, "Precondition failed: ResourceVersion in precondition: 1,"):
        await bind(api, pods, a_binding(resourceVersion="1"))
    await bind(api, pods, a_binding(uid=meta["uid"], resourceVersion=meta["resourceVersion"]))


async def test_who_is_leaving_or_gated_is_not_bound(api: ApiClient, pods: str) -> None:
    """A pod being deleted or with scheduling gates is a conflict, a pod that is not there 404."""
    pod = a_pod("leaving")
    pod["metadata"]["finalizers"] = ["contract.hami.io/hold"]
    await api.create(pods, pod)
    await api.delete(f"{pods}/leaving")
    await api.create(pods, a_pod("gated", schedulingGates=[{"name": "contract.hami.io/gate"}]))

    async with refusal(409, "pod leaving is being deleted, cannot be assigned to a host"):
        await bind(api, pods, a_binding("leaving"))
    async with refusal(409, "pod gated has non-empty .spec.schedulingGates"):
        await bind(api, pods, a_binding("gated"))
    async with refusal(404, 'pods "nobody" not found'):
        await bind(api, pods, a_binding("nobody"))
    await api.patch(f"{pods}/leaving", {"metadata": {"finalizers": None}})


async def test_a_binding_that_makes_no_sense_is_refused(api: ApiClient, pods: str) -> None:
    """A target that is no node is 500, another name than the path's 400, and the pod stays unbound."""
    await api.create(pods, a_pod())

    async with refusal(500):
        await bind(api, pods, {**a_binding(), "target": {"kind": "Service", "name": "s"}})
    async with refusal(400):
        await api.create(f"{pods}/p0/binding", a_binding("p1"))
    assert "nodeName" not in (await api.get(f"{pods}/p0"))["spec"]


async def test_a_bindings_dry_run_binds_nothing(api: ApiClient, pods: str) -> None:
    """dryRun answers 201 and leaves the pod unbound."""
    await api.create(pods, a_pod())

    await api.create(f"{pods}/p0/binding", a_binding(), query={"dryRun": "All"})

    assert "nodeName" not in (await api.get(f"{pods}/p0"))["spec"]


async def test_a_bindings_annotations_are_not_checked_but_later_writes_are(api: ApiClient, pods: str) -> None:
    """A bad annotation key in a binding is stored; from then on even the kubelet's status is refused."""
    await api.create(pods, a_pod())

    await bind(api, pods, a_binding(annotations={"not a key": "1"}))

    async with refusal(422, "not a key"):
        await api.patch(f"{pods}/p0/status", {"status": {"phase": "Running"}})
