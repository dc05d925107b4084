"""What we rely on from an API server when listing and watching, one behaviour per test.

The stand-in answers by default; with HAMI_TEST_KUBECONFIG set, the same tests ask the real server it leads to.
"""

import asyncio

import pytest
from hami_testkit.cluster.client import ApiClient

from tests.integration.contract import (
    HOOKS,
    Json,
    a_binding,
    a_pod,
    bind,
    events,
    refusal,
    told,
)

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


@pytest.mark.parametrize("word", ["true", "True", "1"])
async def test_a_watch_is_asked_for_in_many_spellings(api: ApiClient, pods: str, word: str) -> None:
    """Client libraries write the word as their language does."""
    await api.create(pods, a_pod())

    seen = await api.get(pods, query={"watch": word, "timeoutSeconds": 1, "allowWatchBookmarks": "False"})

    assert ("ADDED", "p0") == (seen["type"], seen["object"]["metadata"]["name"])


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
