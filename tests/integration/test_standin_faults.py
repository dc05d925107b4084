"""The switches that no real server has: what a client meets when one is turned."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from hami_testkit.cluster import Standin
from hami_testkit.cluster.client import ApiClient
from hami_testkit.cluster.faults import Fault
from hami_testkit.cluster.status import ApiError

PODS = "/api/v1/namespaces/default/pods"
BINDING = {"metadata": {"name": "p0"}, "target": {"kind": "Node", "name": "node-a"}}


@pytest.fixture
async def cluster() -> AsyncIterator[Standin]:
    async with Standin.start(bookmark_seconds=0.1) as cluster:
        yield cluster


@pytest.fixture
async def api(cluster: Standin) -> AsyncIterator[ApiClient]:
    async with ApiClient.connect(cluster.url) as client:
        yield client


def a_pod(name: str = "p0") -> dict[str, Any]:
    return {"metadata": {"name": name}, "spec": {"containers": [{"name": "main"}]}}


class Reader:
    """A watch that a test reads event by event."""

    def __init__(self, api: ApiClient, **query: str) -> None:
        self._events = api.watch(PODS, **query)

    async def next(self, patience: float = 5) -> tuple[str, str]:
        async with asyncio.timeout(patience):
            event = await anext(self._events)
        return event["type"], event["object"].get("metadata", {}).get("name", "")

    async def quiet(self, patience: float) -> asyncio.Task[tuple[str, str]]:
        """Return the wait for the next event, once nothing came for ``patience`` seconds.

        Bookmarks that were on their way before the switch was turned are read first.
        """
        while True:
            waiting = asyncio.create_task(self.next(30))
            await asyncio.wait([waiting], timeout=patience)
            if not waiting.done():
                return waiting
            assert "BOOKMARK" == (await waiting)[0]


async def test_a_binding_is_carried_out_though_its_answer_is_lost(cluster: Standin, api: ApiClient) -> None:
    """The connection breaks instead of an answer, and the pod is bound; the next request is answered again."""
    await api.create(PODS, a_pod())
    cluster.faults.set(Fault(kind="drop", verb="create", resource="pods/binding", times=1))

    with pytest.raises(aiohttp.ClientError):
        await api.create(f"{PODS}/p0/binding", BINDING)

    assert "node-a" == (await api.get(f"{PODS}/p0"))["spec"]["nodeName"]


async def test_a_delayed_request_waits_and_others_do_not(cluster: Standin, api: ApiClient) -> None:
    """Only what the pattern names is late."""
    cluster.faults.set(Fault(kind="delay", verb="create", resource="pods", seconds=1, times=1))

    slow = asyncio.create_task(api.create(PODS, a_pod()))
    await asyncio.wait([slow], timeout=0.2)
    listed = await api.get(PODS)

    assert ([], False) == (listed["items"], slow.done())
    assert "p0" == (await slow)["metadata"]["name"]


async def test_a_refused_request_changes_nothing(cluster: Standin, api: ApiClient) -> None:
    """The given code is answered, the given number of times."""
    cluster.faults.set(Fault(kind="refuse", verb="create", resource="pods", code=503, times=1))

    with pytest.raises(ApiError) as refused:
        await api.create(PODS, a_pod())

    assert (503, 201) == (refused.value.code, (await api.send("POST", PODS, a_pod())).code)


async def test_a_paused_server_answers_later(cluster: Standin, api: ApiClient) -> None:
    """While paused nothing is answered; after resume everything is."""
    cluster.faults.set(Fault(kind="pause"))
    listing = asyncio.create_task(api.get(PODS))
    await asyncio.wait([listing], timeout=0.2)
    assert not listing.done()

    cluster.faults.set(Fault(kind="resume"))

    assert [] == (await listing)["items"]


async def test_a_watch_that_is_gone_must_list_again(cluster: Standin, api: ApiClient) -> None:
    """The open watch ends with ERROR, and resuming from its revision too."""
    reader = Reader(api)
    since = (await api.create(PODS, a_pod()))["metadata"]["resourceVersion"]
    assert ("ADDED", "p0") == await reader.next()
    await api.create("/api/v1/namespaces/default/configmaps", {"metadata": {"name": "other"}})

    cluster.faults.set(Fault(kind="gone", resource="pods"))

    assert ("ERROR", "") == await reader.next()
    again = [event["object"] async for event in api.watch(PODS, resourceVersion=since)]
    assert [(410, "Expired")] == [(status["code"], status["reason"]) for status in again]


async def test_a_stale_watch_falls_behind_and_catches_up(cluster: Standin, api: ApiClient) -> None:
    """Held back, a watch says nothing, bookmarks included, while lists are fresh; released, it tells all in order."""
    reader = Reader(api, allowWatchBookmarks="true")
    await api.create(PODS, a_pod("zero"))
    assert ("ADDED", "zero") == await reader.next()
    await api.create(PODS, a_pod("first"))
    assert [("ADDED", "first"), ("BOOKMARK", "")] == [await reader.next(), await reader.next()]
    cluster.faults.set(Fault(kind="hold", resource="pods"))

    await api.create(PODS, a_pod("a"))
    await api.create(PODS, a_pod("b"))
    late = await reader.quiet(0.4)
    assert 4 == len((await api.get(PODS))["items"])

    cluster.faults.set(Fault(kind="release", resource="pods"))
    told = [await late, await reader.next()]
    while len(told) < 10 and told[-1] != ("ADDED", "b"):
        told.append(await reader.next())
    # a bookmark may be due at any time
    assert [("ADDED", "a"), ("ADDED", "b")] == [event for event in told if event[0] != "BOOKMARK"]


async def test_a_silent_watch_never_speaks_again_and_a_new_one_does(cluster: Standin, api: ApiClient) -> None:
    """As on a half-open connection: no events, no bookmarks, no end."""
    await api.create(PODS, a_pod("first"))
    reader = Reader(api, allowWatchBookmarks="true", timeoutSeconds="1")
    assert ("ADDED", "first") == await reader.next()
    cluster.faults.set(Fault(kind="silence", resource="pods"))

    await api.create(PODS, a_pod("second"))

    (await reader.quiet(1.5)).cancel()
    assert ("ADDED", "first") == await Reader(api).next()


async def test_switches_are_turned_over_http(cluster: Standin) -> None:
    """POST sets, GET shows, DELETE clears; a fault that cannot be read is refused with its name."""
    url = f"{cluster.url}/standin/faults"
    async with aiohttp.ClientSession() as session:
        await session.post(url, json={"kind": "refuse", "resource": "pods", "code": 500})
        shown = await (await session.get(url)).json()
        refused = await session.get(f"{cluster.url}{PODS}")
        wrong = await session.post(url, json={"kind": "explode"})
        unserved = await session.post(url, json={"kind": "hold", "resource": "gadgets"})
        await session.delete(url)
        answered = await session.get(f"{cluster.url}{PODS}")

        assert [("refuse", "pods", 500)] == [(fault["kind"], fault["resource"], fault["code"]) for fault in shown]
        assert (500, 400, 400, 200) == (refused.status, wrong.status, unserved.status, answered.status)
        assert "explode" in await wrong.text()
