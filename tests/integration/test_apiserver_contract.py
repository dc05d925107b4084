"""What we rely on from an API server when writing objects, one behaviour per test.

The stand-in answers by default; with HAMI_TEST_KUBECONFIG set, the same tests ask the real server it leads to.
"""

import uuid

import pytest
from hami_testkit.cluster.client import JSON_PATCH, STRATEGIC, ApiClient

from tests.integration.contract import CORE, Json, a_pod, refusal

# Creating


async def test_a_created_object_gets_identity_and_is_found_again(api: ApiClient, pods: str) -> None:
    """A created pod has uid, time, revision and phase, and reading it gives the same object."""
    made = await api.send("POST", pods, a_pod())

    assert 201 == made.code
    assert {"uid", "creationTimestamp", "resourceVersion"} <= set(made.object["metadata"])
    assert ("Pod", "v1", "Pending") == (made.object["kind"], made.object["apiVersion"], made.object["status"]["phase"])
    assert made.object["metadata"]["uid"] == (await api.get(f"{pods}/p0"))["metadata"]["uid"]


async def test_a_generated_name_begins_as_asked(api: ApiClient, pods: str) -> None:
    """With generateName the server chooses the rest of the name."""
    pod = a_pod()
    pod["metadata"] = {"generateName": "job-"}

    made = [(await api.create(pods, pod))["metadata"]["name"] for _ in range(2)]

    assert all(name.startswith("job-") and len(name) == len("job-") + 5 for name in made)
    assert 2 == len(set(made))


async def test_a_name_is_taken_once(api: ApiClient, pods: str) -> None:
    """A second pod of the same name is refused as AlreadyExists."""
    await api.create(pods, a_pod())

    async with refusal(409, "already exists"):
        await api.create(pods, a_pod())


async def test_quantities_are_stored_in_one_spelling(api: ApiClient, pods: str) -> None:
    """``3000`` comes back as ``3k``, and the limits of a vendor's resource are copied to the requests."""
    made = await api.create(pods, a_pod(limits={"nvidia.com/gpu": 1, "nvidia.com/gpumem": 3000, "memory": "2048Mi"}))

    resources = made["spec"]["containers"][0]["resources"]
    assert {"nvidia.com/gpu": "1", "nvidia.com/gpumem": "3k", "memory": "2Gi"} == resources["limits"]
    assert resources["limits"] == resources["requests"]


@pytest.mark.parametrize(
    ("limits", "requests", "text"),
    [
        ({"nvidia.com/gpu": "0.5"}, None, "must be an integer"),
        ({"nvidia.com/gpu": 1}, {"nvidia.com/gpu": 2}, "must be equal to nvidia.com/gpu limit"),
        (None, {"nvidia.com/gpu": 1}, "Limit must be set for non overcommitable resources"),
    ],
)
async def test_vendor_resources_are_whole_and_never_overcommitted(
    api: ApiClient, pods: str, limits: Json | None, requests: Json | None, text: str
) -> None:
    """An extended resource is a whole number, and its request equals its limit."""
    async with refusal(422, text):
        await api.create(pods, a_pod(limits=limits, requests=requests))


async def test_what_is_no_quantity_is_refused(api: ApiClient, pods: str) -> None:
    """A limit that cannot be read is a bad request."""
    async with refusal(400, "quantities must match the regular expression"):
        await api.create(pods, a_pod(limits={"nvidia.com/gpumem": "16 gigs"}))


async def test_a_dry_run_writes_nothing(api: ApiClient, pods: str) -> None:
    """A dry run answers as if, and leaves no pod behind."""
    await api.create(pods, a_pod(), query={"dryRun": "All"})

    async with refusal(404, 'pods "p0" not found'):
        await api.get(f"{pods}/p0")


async def test_what_is_not_served_is_not_found(api: ApiClient) -> None:
    """An unknown resource is 404."""
    async with refusal(404):
        await api.get("/apis/nobody.example/v1/things")


# Changing


async def test_a_replacement_of_an_old_state_is_refused(api: ApiClient, pods: str) -> None:
    """Who writes what was changed meanwhile gets 409, and nothing is overwritten."""
    read = await api.create(pods, a_pod())
    await api.patch(f"{pods}/p0", {"metadata": {"annotations": {"who": "first"}}})

    read["metadata"]["annotations"] = {"who": "second"}
    async with refusal(409, "the object has been modified"):
        await api.replace(f"{pods}/p0", read)

    assert {"who": "first"} == (await api.get(f"{pods}/p0"))["metadata"]["annotations"]


async def test_a_patch_may_insist_on_a_revision(api: ApiClient, pods: str) -> None:
    """A resourceVersion inside a merge patch makes it conditional."""
    read = await api.create(pods, a_pod())
    revision = read["metadata"]["resourceVersion"]

    changed = {"resourceVersion": revision, "annotations": {"n": "1"}}
    await api.patch(f"{pods}/p0", {"metadata": changed})

    async with refusal(409, "the object has been modified"):
        await api.patch(f"{pods}/p0", {"metadata": changed})


async def test_a_merge_patch_sets_and_removes(api: ApiClient, pods: str) -> None:
    """Null removes a key, everything not named stays."""
    await api.create(pods, a_pod())
    await api.patch(f"{pods}/p0", {"metadata": {"annotations": {"a": "1", "b": "2"}}})

    changed = await api.patch(f"{pods}/p0", {"metadata": {"annotations": {"a": None, "c": "3"}}})

    assert {"b": "2", "c": "3"} == changed["metadata"]["annotations"]


async def test_a_json_patch_applies_whole_or_not_at_all(api: ApiClient, pods: str) -> None:
    """Operations apply in order; a failed test refuses all of them."""
    await api.create(pods, a_pod())
    add = {"op": "add", "path": "/metadata/annotations", "value": {"hami.io/x": "1"}}
    change = {"op": "replace", "path": "/metadata/annotations/hami.io~1x", "value": "2"}

    changed = await api.patch(f"{pods}/p0", [add, change], content=JSON_PATCH)
    assert {"hami.io/x": "2"} == changed["metadata"]["annotations"]

    wrong = {"op": "test", "path": "/metadata/annotations/hami.io~1x", "value": "1"}
    async with refusal(422, "the server rejected our request due to an error in our request"):
        await api.patch(f"{pods}/p0", [change, wrong], content=JSON_PATCH)


async def test_a_json_patch_replaces_what_is_not_there(api: ApiClient, pods: str) -> None:
    """Unlike RFC 6902 has it, replacing an absent member adds it; removing one is refused."""
    await api.create(pods, {**a_pod(), "metadata": {"name": "p0", "annotations": {"a": "1"}}})

    replace = {"op": "replace", "path": "/metadata/annotations/b", "value": "2"}
    changed = await api.patch(f"{pods}/p0", [replace], content=JSON_PATCH)

    assert {"a": "1", "b": "2"} == changed["metadata"]["annotations"]
    async with refusal(422):
        await api.patch(f"{pods}/p0", [{"op": "remove", "path": "/metadata/annotations/c"}], content=JSON_PATCH)


async def test_an_apply_creates_or_joins(api: ApiClient, pods: str) -> None:
    """Server-side apply makes what is absent, and adds to what is there."""
    how: Json = {"content": "application/apply-patch+yaml", "query": {"fieldManager": "contract"}}
    pod = {"apiVersion": "v1", "kind": "Pod", **a_pod()}

    made = await api.patch(f"{pods}/p0", pod, **how)
    pod["metadata"] = {"name": "p0", "annotations": {"a": "1"}}
    joined = await api.patch(f"{pods}/p0", pod, **how)

    assert made["metadata"]["uid"] == joined["metadata"]["uid"]
    assert {"a": "1"} == joined["metadata"]["annotations"]
    async with refusal(422, "fieldManager: Required value"):
        await api.patch(f"{pods}/p0", pod, content=how["content"])


async def test_a_strategic_patch_joins_conditions_by_type(api: ApiClient, pods: str) -> None:
    """A condition is set without repeating the others."""
    await api.create(pods, a_pod())
    for kind in ("PodScheduled", "Ready", "PodScheduled"):
        condition = {"type": kind, "status": "False", "reason": "Waiting"}
        await api.patch(f"{pods}/p0/status", {"status": {"conditions": [condition]}}, content=STRATEGIC)

    conditions = (await api.get(f"{pods}/p0"))["status"]["conditions"]

    assert ["PodScheduled", "Ready"] == sorted(condition["type"] for condition in conditions)


async def test_a_change_of_nothing_makes_no_revision(api: ApiClient, pods: str) -> None:
    """A patch that leaves the object as it is does not wake any watch."""
    await api.create(pods, a_pod())
    once = await api.patch(f"{pods}/p0", {"metadata": {"annotations": {"a": "1"}}})

    again = await api.patch(f"{pods}/p0", {"metadata": {"annotations": {"a": "1"}}})

    assert once["metadata"]["resourceVersion"] == again["metadata"]["resourceVersion"]


async def test_status_and_the_rest_are_written_apart(api: ApiClient, pods: str) -> None:
    """The object's own path leaves the status alone, the status path everything else."""
    await api.create(pods, a_pod())

    await api.patch(f"{pods}/p0", {"status": {"phase": "Running"}})
    assert "Pending" == (await api.get(f"{pods}/p0"))["status"]["phase"]

    await api.patch(f"{pods}/p0/status", {"status": {"phase": "Running"}, "spec": {"nodeName": "node-a"}})
    found = await api.get(f"{pods}/p0")
    assert ("Running", None) == (found["status"]["phase"], found["spec"].get("nodeName"))


async def test_a_status_is_replaced_whole_but_for_the_class_of_service(api: ApiClient, pods: str) -> None:
    """What a replacement of the status does not name is gone; the server keeps only what it reckons itself."""
    asked = {"cpu": "1", "memory": "1Gi"}
    pod = await api.create(pods, a_pod(limits=asked))
    await api.patch(f"{pods}/p0/status", {"status": {"phase": "Running", "reason": "Busy"}})

    done = await api.replace(f"{pods}/p0/status", {**pod, "metadata": {"name": "p0"}, "status": {"phase": "Succeeded"}})

    assert {"phase": "Succeeded", "qosClass": "Guaranteed"} == done["status"]


async def test_a_node_and_its_status_are_written_as_a_kubelet_does(api: ApiClient) -> None:
    """Capacity comes by the status path and outlives a change of the rest."""
    path = f"{CORE}/nodes/node-{uuid.uuid4().hex[:8]}"
    name = path.rpartition("/")[2]
    await api.create(f"{CORE}/nodes", {"metadata": {"name": name}})

    capacity = {"nvidia.com/gpu": 8, "memory": "65536Mi"}
    await api.patch(f"{path}/status", {"status": {"capacity": capacity, "allocatable": {"nvidia.com/gpu": "7"}}})
    await api.patch(path, {"metadata": {"annotations": {"a": "1"}}, "status": {"capacity": {}}})
    found = await api.get(path)
    await api.delete(path)

    assert {"nvidia.com/gpu": "8", "memory": "64Gi"} == found["status"]["capacity"]
    assert ({"nvidia.com/gpu": "7"}, {"a": "1"}) == (found["status"]["allocatable"], found["metadata"]["annotations"])


async def test_a_pod_gets_its_node_only_by_a_binding(api: ApiClient, pods: str) -> None:
    """nodeName and resources of a pod cannot be patched."""
    await api.create(pods, a_pod())

    async with refusal(422, "pod updates may not change fields other than"):
        await api.patch(f"{pods}/p0", {"spec": {"nodeName": "node-a"}})


async def test_a_namesake_is_not_mistaken_for_the_pod(api: ApiClient, pods: str) -> None:
    """A write that names another uid is refused: a replacement as a conflict, a patch as invalid."""
    made = await api.create(pods, a_pod())
    other = {"uid": str(uuid.uuid4()), "annotations": {"a": "1"}}

    async with refusal(409, "Precondition failed: UID in precondition"):
        await api.replace(f"{pods}/p0", {**made, "metadata": {**made["metadata"], **other}})
    async with refusal(422, "field is immutable"):
        await api.patch(f"{pods}/p0", {"metadata": other})


async def test_an_unknown_way_to_patch_is_refused(api: ApiClient, pods: str) -> None:
    """A patch of an unknown media type is 415."""
    await api.create(pods, a_pod())

    async with refusal(415):
        await api.patch(f"{pods}/p0", {}, content="application/unknown")


async def test_a_lease_is_replaced_only_by_who_read_it(api: ApiClient, namespace: str) -> None:
    """Replacing a Lease needs its resourceVersion, and the present one."""
    leases = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"
    lease = await api.create(leases, {"metadata": {"name": "l"}, "spec": {"holderIdentity": "a"}})

    await api.replace(f"{leases}/l", {**lease, "spec": {"holderIdentity": "b"}})

    async with refusal(409, "the object has been modified"):
        await api.replace(f"{leases}/l", {**lease, "spec": {"holderIdentity": "c"}})
    async with refusal(422, "must be specified for an update"):
        await api.replace(f"{leases}/l", {"metadata": {"name": "l"}, "spec": {"holderIdentity": "c"}})
    assert "b" == (await api.get(f"{leases}/l"))["spec"]["holderIdentity"]


async def test_a_node_fills_its_allocatable_from_its_capacity(api: ApiClient) -> None:
    """A node made with a capacity only offers all of it."""
    name = f"node-{uuid.uuid4().hex[:8]}"

    made = await api.create(f"{CORE}/nodes", {"metadata": {"name": name}, "status": {"capacity": {"a.b/gpu": "10"}}})
    await api.delete(f"{CORE}/nodes/{name}")

    assert {"a.b/gpu": "10"} == made["status"]["allocatable"]
