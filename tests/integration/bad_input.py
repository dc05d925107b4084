"""The running services beside one good node, for tests that send them what is malformed."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import msgspec
from hami_kit import bus as buses
from hami_kit.bus import Bus, BusSettings
from hami_kit.settings import CommonSettings
from hami_kit.telemetry import Telemetry
from hami_testkit.builders import NodeBuilder, a_node
from hami_testkit.stack import Plan, Stack, stack

from tests.compat.over_http import BIND_TIMEOUT, Player

Json = dict[str, Any]
DEADLINE = 20.0
"""Seconds for anything to be answered or told on a busy machine."""
GPU = {"nvidia.com/gpu": "1", "nvidia.com/gpumem": "1000"}
DEEP = "[" * 5000 + "]" * 5000


def a_pod(name: str, limits: Json | None = None, *, annotations: Json | None = None, **spec: Any) -> Json:
    """Write a pod of one container."""
    container: Json = {"name": "main", "image": "i"}
    if limits is not None:
        container["resources"] = {"limits": limits}
    meta: Json = {"name": name, "namespace": "team-a", "annotations": annotations or {}}
    return {"metadata": meta, "spec": {"schedulerName": "hami-scheduler", "containers": [container], **spec}}


def node_object(built: NodeBuilder) -> Json:
    """Write a node as its device plugins leave it."""
    node: Json = msgspec.to_builtins(built.node())
    meta = {"name": built.name, "annotations": node["metadata"]["annotations"]}
    return {"apiVersion": "v1", "kind": "Node", "metadata": meta, "status": node["status"]}


class Cluster:
    """The running services beside one good node."""

    def __init__(self, system: Stack, player: Player, bus: Bus, http: httpx.AsyncClient) -> None:
        self.at = system.at
        self.player = player
        self.bus = bus
        self.http = http
        self._numbers = count()
        self._allocator = system.process("allocator")

    async def set_up(self) -> None:
        """Leave nothing of the test before; one good node with a card."""
        await self.player.clear()
        await self.add_node(a_node("good").with_cards(1, memory=8000))

    def new_name(self, kind: str) -> str:
        """Return a name that nothing had before, so that news of it are news."""
        return f"{kind}-{next(self._numbers)}"

    async def add_node(self, built: NodeBuilder, annotations: Json | None = None) -> None:
        """Add a node, with other annotations if so wished."""
        node = node_object(built)
        node["metadata"]["annotations"] |= annotations or {}
        await self.player.api.create("/api/v1/nodes", node)
        await self.player.wait_seen()

    async def place_a_good_pod(self, *, node: str = "good") -> None:
        """A pod is admitted, filtered and bound by the services as they run; then it goes."""
        pod = a_pod(self.new_name("good"), GPU)
        assert (await self.player.admit(pod))["allowed"]
        stored = await self.player.create(pod)
        answer = await self.player.filter(stored, names=[node])
        assert ("", [node]) == (answer["Error"], answer["NodeNames"]), self._allocator.log_tail()
        assert "" == await self.player.bind(stored, node)
        assert node == (await self.player.pod(stored["metadata"]))["spec"]["nodeName"]
        await self.player.confirm(stored)
        await self.player.delete(stored["metadata"])

    async def told(self, kind: str, subject: str) -> Json:
        """Wait until the allocator has told this kind of news about the subject; return its data."""
        async with asyncio.timeout(DEADLINE):
            while True:
                for event in reversed(await self.bus.recent_events(limit=100)):
                    if (event.type, event.subject) == (f"io.hami.{kind}.v1", subject):
                        return dict(event.data)
                await asyncio.sleep(0.02)

    async def post(self, url: str, body: bytes) -> Json:
        """Post bytes; the status is 200 whatever they are."""
        answer = await self.http.post(url, content=body, headers={"content-type": "application/json"})
        assert 200 == answer.status_code
        result: Json = answer.json()
        return result


@asynccontextmanager
async def running_services(folder: Path) -> AsyncIterator[Cluster]:
    async with stack(Plan(folder=folder, schedules=False, environment={"HAMI_BIND_TIMEOUT": BIND_TIMEOUT})) as system:
        settings = BusSettings.of(CommonSettings(nats_url=system.at.nats))
        async with (
            Player.on(system) as player,
            buses.connect(settings, name="test", telemetry=Telemetry()) as bus,
            httpx.AsyncClient(timeout=DEADLINE, trust_env=False) as http,
        ):
            yield Cluster(system, player, bus, http)
