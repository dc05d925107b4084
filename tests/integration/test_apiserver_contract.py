"""What we rely on from an API server, one behaviour per test.

The stand-in answers by default; with HAMI_TEST_KUBECONFIG set, the same tests ask the real server it leads to.
"""

import asyncio
import base64
import json
import os
import subprocess
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from hami_testkit.cluster import Standin
from hami_testkit.cluster.access import connect
from hami_testkit.cluster.client import JSON_PATCH, STRATEGIC, ApiClient
from hami_testkit.cluster.status import ApiError

Json = dict[str, Any]
REAL = os.environ.get("HAMI_TEST_KUBECONFIG")
CORE = "/api/v1"


@pytest.fixture
async def api() -> AsyncIterator[ApiClient]:
    if REAL:
        async with connect(Path(REAL)) as client:
            yield client
    else:
        async with Standin.start(bookmark_seconds=0.2) as cluster, ApiClient.connect(cluster.url) as client:
            yield client


@pytest.fixture
async def namespace(api: ApiClient) -> AsyncIterator[str]:
    """A namespace of this test alone, labelled so that only its own webhooks are called for it."""
    name = f"contract-{uuid.uuid4().hex[:8]}"
    await api.create(f"{CORE}/namespaces", {"metadata": {"name": name, "labels": {"contract": name}}})
    yield name
    await api.delete(f"{CORE}/namespaces/{name}/pods", {"gracePeriodSeconds": 0})
    await api.delete(f"{CORE}/namespaces/{name}")


@pytest.fixture
def pods(namespace: str) -> str:
    return f"{CORE}/namespaces/{namespace}/pods"


def a_pod(name: str = "p0", *, limits: Json | None = None, requests: Json | None = None, **spec: Any) -> Json:
    resources = {key: value for key, value in (("limits", limits), ("requests", requests)) if value}
    container = {"name": "main", "image": "busybox", "resources": resources}
    return {"metadata": {"name": name}, "spec": {"containers": [container], **spec}}


def a_binding(name: str = "p0", node: str = "node-a", **meta: Any) -> Json:
    target = {"kind": "Node", "name": node}
    return {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": name, **meta}, "target": target}


async def bind(api: ApiClient, pods: str, binding: Json) -> None:
    await api.create(f"{pods}/{binding['metadata']['name']}/binding", binding)


@asynccontextmanager
async def refusal(code: int, text: str = "") -> AsyncIterator[None]:
    with pytest.raises(ApiError) as refused:
        yield
    assert (code, True) == (refused.value.code, text in refused.value.message), refused.value.message


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


# Deleting


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


# Listing


async def test_a_list_names_its_revision_and_its_items_have_no_kind(api: ApiClient, pods: str) -> None:
    """The list carries kind and resourceVersion, its items neither kind nor apiVersion."""
    await api.create(pods, a_pod())

    listed = await api.get(pods)

    assert "PodList" == listed["kind"]
    assert int(listed["metadata"]["resourceVersion"]) >= int(listed["items"][0]["metadata"]["resourceVersion"])
    assert set() == {"kind", "apiVersion"} & set(listed["items"][0])


async def test_labels_and_fields_select(api: ApiClient, pods: str) -> None:
    """Label and field selectors narrow a list; a field that is not served is refused."""
    for name, labels in (("a", {"app": "x"}), ("b", {"app": "y", "tier": "1"}), ("c", {})):
        pod = a_pod(name)
        pod["metadata"]["labels"] = labels
        await api.create(pods, pod)
    await bind(api, pods, a_binding("b", node="node-b"))

    async def names(**query: str) -> list[str]:
        return [item["metadata"]["name"] for item in (await api.get(pods, query=query))["items"]]

    assert ["a"] == await names(labelSelector="app=x")
    assert ["b", "c"] == await names(labelSelector="app!=x")
    assert ["a", "b"] == await names(labelSelector="app in (x,y)")
    assert ["b"] == await names(labelSelector="app,tier=1")
    assert ["a", "c"] == await names(labelSelector="!tier")
    assert ["b"] == await names(fieldSelector="spec.nodeName=node-b")
    assert ["a", "c"] == await names(fieldSelector="spec.nodeName=")
    assert ["b", "c"] == await names(fieldSelector="metadata.name!=a,status.phase=Pending")
    async with refusal(400, "field label not supported"):
        await names(fieldSelector="spec.mood=good")


async def test_pages_show_one_moment(api: ApiClient, pods: str) -> None:
    """What is made or deleted between two pages changes none of them."""
    for name in "abc":
        await api.create(pods, a_pod(name))

    first = await api.get(pods, query={"limit": 2})
    await api.delete(f"{pods}/c")
    await api.create(pods, a_pod("d"))
    second = await api.get(pods, query={"limit": 2, "continue": first["metadata"]["continue"]})

    assert 1 == first["metadata"]["remainingItemCount"]
    assert ["a", "b", "c"] == [item["metadata"]["name"] for item in (*first["items"], *second["items"])]
    assert first["metadata"]["resourceVersion"] == second["metadata"]["resourceVersion"]
    assert not second["metadata"].get("continue")


# Watching


async def events(api: ApiClient, path: str, *, until: Callable[[Json], bool], **query: str | int) -> list[Json]:
    """Return the events of a watch up to the first that ``until`` accepts."""
    seen = []
    async with asyncio.timeout(30):
        async for event in api.watch(path, **query):
            seen.append(event)
            if until(event):
                return seen
    raise AssertionError(f"the watch ended after {seen}")


def told(seen: list[Json]) -> list[tuple[str, str]]:
    return [(event["type"], event["object"]["metadata"]["name"]) for event in seen]


async def test_a_watch_tells_what_happened_since_a_revision(api: ApiClient, pods: str) -> None:
    """Every change after the list is told, in order; a pod is marked as being deleted before it is gone."""
    since = (await api.get(pods))["metadata"]["resourceVersion"]
    await api.create(pods, a_pod())
    await api.patch(f"{pods}/p0", {"metadata": {"annotations": {"a": "1"}}})
    await api.delete(f"{pods}/p0")

    seen = await events(api, pods, until=lambda event: event["type"] == "DELETED", resourceVersion=since)

    assert ["ADDED", "MODIFIED", "MODIFIED", "DELETED"] == [event["type"] for event in seen]
    revisions = [int(event["object"]["metadata"]["resourceVersion"]) for event in seen]
    assert sorted(set(revisions)) == revisions
    marks = [event["object"]["metadata"].get("deletionGracePeriodSeconds") for event in seen]
    assert [None, None, 0, 0] == marks
    assert {"a": "1"} == seen[-1]["object"]["metadata"]["annotations"]
    assert "Pod" == seen[0]["object"]["kind"]


async def test_a_watch_without_a_revision_begins_with_what_is_there(api: ApiClient, pods: str) -> None:
    """Every present object comes first, as ADDED."""
    for name in "ab":
        await api.create(pods, a_pod(name))

    seen = await events(api, pods, until=lambda event: event["object"]["metadata"]["name"] == "b")

    assert [("ADDED", "a"), ("ADDED", "b")] == told(seen)


async def test_what_leaves_a_selection_is_deleted_for_its_watch(api: ApiClient, pods: str) -> None:
    """Who watches unbound pods is told DELETED when one is bound, who watches the node ADDED."""
    made = await api.create(pods, a_pod())
    since = made["metadata"]["resourceVersion"]
    await bind(api, pods, a_binding(node="node-a"))

    unbound = await events(api, pods, until=bool, resourceVersion=since, fieldSelector="spec.nodeName=")
    on_node = await events(api, pods, until=bool, resourceVersion=since, fieldSelector="spec.nodeName=node-a")

    assert [("DELETED", "p0")] == told(unbound)
    assert [("ADDED", "p0")] == told(on_node)


async def test_a_watch_ends_when_its_time_is_over(api: ApiClient, pods: str) -> None:
    """timeoutSeconds ends a watch without an error."""
    async with asyncio.timeout(10):
        seen = [event async for event in api.watch(pods, timeoutSeconds=1)]

    assert [] == [event for event in seen if event["type"] != "BOOKMARK"]


async def test_bookmarks_say_how_far_a_watch_has_come(api: ApiClient, pods: str) -> None:
    """After a change while it was open, a watch gets a revision to resume from, and nothing else of the object."""
    await api.create(pods, a_pod("a"))
    changed = 0

    async with asyncio.timeout(20):
        async for event in api.watch(pods, allowWatchBookmarks="true", timeoutSeconds=10):
            meta = event["object"]["metadata"]
            if event["type"] == "BOOKMARK" and changed and int(meta["resourceVersion"]) >= changed:
                assert ("Pod", None) == (event["object"]["kind"], meta.get("name"))
                return
            if event["type"] == "ADDED" and not changed:
                changed = int((await api.create(pods, a_pod("b")))["metadata"]["resourceVersion"])
    raise AssertionError("the watch ended without a bookmark")


async def test_a_watch_of_a_resource_at_rest_gets_no_bookmark(api: ApiClient) -> None:
    """Silence is no sign of a broken watch: without a change after its start, nothing at all is said."""
    since = (await api.get(HOOKS))["metadata"]["resourceVersion"]

    query: Json = {"resourceVersion": since, "allowWatchBookmarks": "true", "timeoutSeconds": 4}
    async with asyncio.timeout(10):
        assert [] == [event async for event in api.watch(HOOKS, **query)]


# Binding


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


# Webhooks


Review = Callable[[Json], Json]


def allow(request: Json, *, patch: list[Json] | None = None, **more: Any) -> Json:
    response = {"uid": request["uid"], "allowed": True, **more}
    if patch is not None:
        response |= {"patchType": "JSONPatch", "patch": base64.b64encode(json.dumps(patch).encode()).decode()}
    return response


class Hook:
    """A webhook of one test: what it was asked, and what it answers."""

    def __init__(self, api: ApiClient, namespace: str, client: Json) -> None:
        self.asked: list[Json] = []
        self.answer: Review = allow
        self.hangs = asyncio.Event()
        self.hangs.set()
        self.code = 200
        self.name = f"{namespace}.contract.hami.io"
        self._api, self._namespace, self._client = api, namespace, client

    async def handle(self, request: web.Request) -> web.Response:
        review = await request.json()
        self.asked.append({**review, "query": dict(request.query)})
        await self.hangs.wait()
        answer = {
            "apiVersion": review["apiVersion"],
            "kind": review["kind"],
            "response": self.answer(review["request"]),
        }
        return web.json_response(answer, status=self.code)

    async def register(self, policy: str) -> None:
        rule = {"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}
        webhook = {
            "name": self.name, "admissionReviewVersions": ["v1"], "sideEffects": "None", "rules": [rule],
            "failurePolicy": policy, "timeoutSeconds": 1, "clientConfig": self._client,
            "namespaceSelector": {"matchLabels": {"contract": self._namespace}},
        }  # fmt: skip
        await self._api.create(HOOKS, {"metadata": {"name": self._namespace}, "webhooks": [webhook]})
        if REAL:  # a real server learns of a new webhook a little later
            await self._wait_called()

    async def _wait_called(self) -> None:
        path = f"{CORE}/namespaces/{self._namespace}/pods"
        async with asyncio.timeout(20):
            while not self.asked:
                with suppress(ApiError):  # what the webhook answers is the test's business
                    await self._api.create(path, a_pod("probe"), query={"dryRun": "All"})
        self.asked.clear()


HOOKS = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations"


@pytest.fixture
async def hook(api: ApiClient, namespace: str, tmp_path: Path) -> AsyncIterator[Hook]:
    """A webhook on a free port; with TLS where the server is real, which takes no other."""
    tls, client = (_certificate(tmp_path), {}) if REAL else (None, {})
    app = web.Application()
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    hook = Hook(api, namespace, client)
    app.router.add_post("/webhook", hook.handle)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
    await site.start()
    scheme = "https" if tls else "http"
    client["url"] = f"{scheme}://127.0.0.1:{runner.addresses[0][1]}/webhook"
    if tls:
        client["caBundle"] = base64.b64encode((tmp_path / "tls.crt").read_bytes()).decode()
    yield hook
    hook.hangs.set()
    await api.delete(f"{HOOKS}/{namespace}")
    await runner.cleanup()


def _certificate(folder: Path) -> Any:
    import ssl  # noqa: PLC0415 - only where a real server asks for it

    key, crt = folder / "tls.key", folder / "tls.crt"
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=h -addext subjectAltName=IP:127.0.0.1"
    subprocess.run([*command.split(), "-keyout", key, "-out", crt], check=True, capture_output=True)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(crt, key)
    return context


async def test_a_webhook_sees_the_pod_as_kubernetes_shows_it(
    api: ApiClient, namespace: str, pods: str, hook: Hook
) -> None:
    """The review has the pod with its kind, its namespace, no uid yet, and the timeout in the query."""
    await hook.register("Fail")

    await api.create(pods, a_pod(limits={"nvidia.com/gpu": 1}))

    review, request = hook.asked[0], hook.asked[0]["request"]
    assert ("admission.k8s.io/v1", "AdmissionReview") == (review["apiVersion"], review["kind"])
    assert "1s" == review["query"]["timeout"]
    assert ("CREATE", namespace, "p0") == (request["operation"], request["namespace"], request["name"])
    assert {"group": "", "version": "v1", "kind": "Pod"} == request["kind"]
    assert {"group": "", "version": "v1", "resource": "pods"} == request["resource"]
    assert ("Pod", "v1") == (request["object"]["kind"], request["object"]["apiVersion"])
    assert "uid" not in request["object"]["metadata"]
    assert (None, False) == (request["oldObject"], request["dryRun"])


async def test_a_webhook_sees_no_name_where_one_is_generated(api: ApiClient, pods: str, hook: Hook) -> None:
    """With generateName neither request nor object has a name."""
    await hook.register("Fail")
    pod = a_pod()
    pod["metadata"] = {"generateName": "job-"}

    await api.create(pods, pod)

    request = hook.asked[0]["request"]
    assert (False, False) == ("name" in request, "name" in request["object"]["metadata"])


async def test_a_webhooks_patch_and_warnings_arrive(api: ApiClient, pods: str, hook: Hook) -> None:
    """The pod is stored as patched, defaults included, and the client is warned."""
    limits = {"op": "add", "path": "/spec/containers/0/resources/limits", "value": {"nvidia.com/gpumem": "3000"}}
    scheduler = {"op": "replace", "path": "/spec/schedulerName", "value": "hami-scheduler"}
    hook.answer = lambda request: allow(request, patch=[limits, scheduler], warnings=["quota was not asked"])
    await hook.register("Fail")

    made = await api.send("POST", pods, a_pod())

    resources = made.object["spec"]["containers"][0]["resources"]
    assert ("hami-scheduler", "3k") == (
        made.object["spec"]["schedulerName"],
        resources["requests"]["nvidia.com/gpumem"],
    )
    assert '299 - "quota was not asked"' == made.headers["Warning"]


async def test_a_denial_reaches_the_user_in_its_own_words(api: ApiClient, pods: str, hook: Hook) -> None:
    """Code and message of a denial are the webhook's."""
    hook.answer = lambda request: {
        "uid": request["uid"], "allowed": False, "status": {"code": 422, "message": "gpumem is no number"},
    }  # fmt: skip
    await hook.register("Ignore")

    async with refusal(422, f'admission webhook "{hook.name}" denied the request: gpumem is no number'):
        await api.create(pods, a_pod())


@pytest.mark.parametrize("fault", ["code 500", "another uid", "silence"])
@pytest.mark.parametrize("policy", ["Ignore", "Fail"])
async def test_a_failing_webhook_is_passed_over_or_fatal(
    api: ApiClient, pods: str, hook: Hook, *, fault: str, policy: str
) -> None:
    """With failurePolicy Ignore the pod is admitted unchanged, with Fail it is refused with 500."""
    await hook.register(policy)
    if fault == "code 500":
        hook.code = 500
    elif fault == "another uid":
        hook.answer = lambda request: allow({**request, "uid": "other"})
    else:
        hook.hangs.clear()

    if policy == "Ignore":
        await api.create(pods, a_pod())
    else:
        async with refusal(500, f'failed calling webhook "{hook.name}"'):
            await api.create(pods, a_pod())


async def test_a_patch_that_does_not_apply_is_fatal_even_when_ignored(api: ApiClient, pods: str, hook: Hook) -> None:
    """A broken patch refuses the pod whatever the failurePolicy says."""
    broken = [{"op": "replace", "path": "/spec/nowhere/deeper", "value": 1}]
    hook.answer = lambda request: allow(request, patch=broken)
    await hook.register("Ignore")

    async with refusal(500):
        await api.create(pods, a_pod())
