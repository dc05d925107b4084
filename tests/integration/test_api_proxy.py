"""The proxy before an API server: what the stand-in's switches do, for those who come this way alone."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from hami_testkit.cluster import Standin
from hami_testkit.cluster.client import ApiClient
from hami_testkit.cluster.faults import Fault
from hami_testkit.cluster.proxy import ApiProxy, Passage, api_proxy
from hami_testkit.cluster.status import ApiError

PODS = "/api/v1/namespaces/default/pods"


class Ground:
    """A stand-in, a proxy before it, and a client on either way."""

    def __init__(self, proxy: ApiProxy, passed: list[Passage], direct: ApiClient, through: ApiClient) -> None:
        self.faults = proxy.faults
        self.passed = passed
        self.direct = direct
        self.through = through

    async def create(self, name: str) -> None:
        await self.direct.create(PODS, {"metadata": {"name": name}, "spec": {"containers": [{"name": "main"}]}})

    async def bind(self, name: str) -> None:
        await self.through.create(f"{PODS}/{name}/binding", {"metadata": {"name": name}, "target": {"name": "node-a"}})

    async def node_of(self, name: str) -> str:
        return (await self.direct.get(f"{PODS}/{name}"))["spec"].get("nodeName", "")  # type: ignore[no-any-return]

    async def watch(self) -> AsyncIterator[dict[str, Any]]:
        since = (await self.direct.get(PODS))["metadata"]["resourceVersion"]
        return self.through.watch(PODS, resourceVersion=since)


@pytest.fixture
async def ground(tmp_path: Path) -> AsyncIterator[Ground]:
    passed: list[Passage] = []
    async with (
        Standin.start() as cluster,
        api_proxy(tmp_path / "kubeconfig", listen=passed.append) as proxy,
        ApiClient.connect(cluster.url) as direct,
        ApiClient.connect(proxy.url) as through,
    ):
        cluster.kubeconfig(tmp_path / "kubeconfig")
        yield Ground(proxy, passed, direct, through)


async def test_a_binding_that_is_held_lands_later_though_its_sender_has_gone(ground: Ground) -> None:
    """As one that was on its way when its sender died."""
    await ground.create("p0")
    ground.faults.set(Fault(kind="delay", resource="pods/binding", seconds=0.5, times=1))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await ground.bind("p0")
    early = await ground.node_of("p0")
    async with asyncio.timeout(10):
        while not await ground.node_of("p0"):
            await asyncio.sleep(0.05)
    [passage] = ground.passed

    assert "" == early
    assert ("create", "pods/binding", "p0") == (passage.call.verb, passage.call.resource, passage.call.name)
    assert passage.sent - passage.came >= 0.5


async def test_an_answer_is_lost_after_the_binding_was_carried_out(ground: Ground) -> None:
    """The connection breaks, and the pod is bound."""
    await ground.create("p0")
    ground.faults.set(Fault(kind="drop", resource="pods/binding", times=1))
    with pytest.raises(aiohttp.ClientError):
        await ground.bind("p0")

    assert "node-a" == await ground.node_of("p0")
    assert [(201, True)] == [(passage.code, passage.is_lost) for passage in ground.passed]


async def test_a_request_is_refused_here_and_answered_elsewhere(ground: Ground) -> None:
    """Only who comes through the proxy meets the switch."""
    ground.faults.set(Fault(kind="refuse", verb="list", resource="pods", code=503))
    with pytest.raises(ApiError) as refused:
        await ground.through.get(PODS)

    assert 503 == refused.value.code
    assert [] == (await ground.direct.get(PODS))["items"]


async def test_watches_fall_behind_and_catch_up(ground: Ground) -> None:
    """Lists stay fresh meanwhile."""
    watch = await ground.watch()
    ground.faults.set(Fault(kind="hold", resource="pods"))
    first = asyncio.ensure_future(anext(watch))
    await ground.create("p0")
    listed = [pod["metadata"]["name"] for pod in (await ground.through.get(PODS))["items"]]
    await asyncio.wait([first], timeout=0.3)
    was_behind = not first.done()
    ground.faults.set(Fault(kind="release", resource="pods"))

    assert was_behind
    assert ["p0"] == listed
    assert "p0" == (await first)["object"]["metadata"]["name"]


async def test_a_silent_watch_stays_silent_and_a_new_one_speaks(ground: Ground) -> None:
    """As over a half-open connection."""
    silent = await ground.watch()
    first = asyncio.ensure_future(anext(silent))
    await ground.create("p0")
    before = (await first)["type"]
    ground.faults.set(Fault(kind="silence"))
    later = asyncio.ensure_future(anext(silent))
    speaking = await ground.watch()
    await ground.create("p1")
    ground.faults.clear()

    assert "ADDED" == before
    assert "p1" == (await anext(speaking))["object"]["metadata"]["name"]
    assert not later.done()
    later.cancel()


@pytest.mark.parametrize(("kind", "told"), [("gone", [("ERROR", 410)]), ("end", [])])
async def test_watches_end(ground: Ground, kind: Any, told: list[tuple[str, int]]) -> None:
    """With 410, or just so."""
    watch = await ground.watch()
    first = asyncio.ensure_future(anext(watch))
    await ground.create("p0")
    await first
    ground.faults.set(Fault(kind=kind, resource="pods"))
    rest = [(event["type"], event["object"]["code"]) async for event in watch]

    assert told == rest
