"""The demo's eyes and hands: the API server as kubectl uses it, and the bus as hamictl does."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

import httpx
import msgspec
import yaml
from hami_kit import bus as buses
from hami_kit.bus import Bus, BusSettings
from hami_kit.errors import BoundaryError
from hami_kit.telemetry import Telemetry
from hami_model.bus import subjects
from hami_model.bus.messages import AskSnapshot, ExplainAnswer, ExplainPod, Explanation, Snapshot, SnapshotAnswer

from hami_testkit.cluster.kubelet import Given
from hami_testkit.parts import Addresses, Plan

Json = dict[str, Any]
DEADLINE = 30.0
"""Seconds for any one thing of the demo to happen."""
NAMESPACE = "default"


class DemoError(Exception):
    """The demo did not go as it should; one sentence."""


class System(Protocol):
    """A running system: one of ours in processes, or one that something else runs."""

    @property
    def plan(self) -> Plan:
        """Return what runs."""
        ...

    @property
    def at(self) -> Addresses:
        """Return where it listens."""
        ...

    def environment(self) -> dict[str, str]:
        """Return what ``hamictl`` needs to talk to it."""
        ...

    async def fetch_gifts(self, node: str) -> None:
        """Bring what a node's containers were given to ``plan.folder``."""
        ...


class DemoCluster:
    """One running system, as its user sees it."""

    def __init__(self, system: System, http: httpx.AsyncClient, bus: Bus) -> None:
        self.system = system
        self._http = http
        self._bus = bus

    @classmethod
    @asynccontextmanager
    async def connect(cls, system: System) -> AsyncIterator["DemoCluster"]:
        """Talk to a system for the length of a block."""
        async with (
            httpx.AsyncClient(base_url=system.at.api, timeout=DEADLINE, trust_env=False) as http,
            buses.connect(BusSettings(url=system.at.nats), name="demo", telemetry=Telemetry()) as bus,
        ):
            await asyncio.wait_for(bus.wait_connected(), DEADLINE)
            yield cls(system, http, bus)

    async def wait_devices(self) -> None:
        """Wait until every node of the plan has told of its devices."""
        file = self.system.plan.nodes
        names = {item["metadata"]["name"] for item in yaml.safe_load(file.read_text())["items"]} if file else set()
        missing = names
        try:
            async with asyncio.timeout(DEADLINE):
                while missing := names - {node.node for node in (await self.snapshot()).nodes if node.devices}:
                    await asyncio.sleep(0.1)
        except TimeoutError as e:
            raise DemoError(f"{', '.join(sorted(missing))} told of no device within {DEADLINE:g} s") from e

    async def snapshot(self) -> Snapshot:
        """Return what the allocator knows; empty while nobody leads yet."""
        try:
            answer = await self._bus.request(subjects.SNAPSHOT, AskSnapshot(), SnapshotAnswer, timeout=5)
        except BoundaryError:
            return Snapshot(nodes=[], bookings=[])
        return answer if isinstance(answer, Snapshot) else Snapshot(nodes=[], bookings=[])

    async def explain(self, pod: Json) -> Explanation | None:
        """Ask why a pod is where it is."""
        meta = pod["metadata"]
        question = ExplainPod(namespace=meta["namespace"], name=meta["name"], uid=meta["uid"])
        answer = await self._bus.request(subjects.EXPLAIN, question, ExplainAnswer, timeout=5)
        return answer if isinstance(answer, Explanation) else None

    async def apply(self, file: Path) -> tuple[list[Json], list[str]]:
        """Create every pod of a manifest; return them as stored, with the warnings that kubectl would show."""
        pods, warnings = [], []
        for manifest in yaml.safe_load_all(file.read_text()):
            answer = await self._create(manifest, file.name)
            warnings += [w.split('"')[1] for w in answer.headers.get_list("warning")]
            pods.append(answer.json())
        return pods, warnings

    async def create(self, manifest: Json) -> None:
        """Create one pod."""
        await self._create(manifest, manifest["metadata"]["name"])

    async def _create(self, manifest: Json, what: str) -> httpx.Response:
        answer = await self._http.post(f"/api/v1/namespaces/{NAMESPACE}/pods", json=manifest)
        if answer.status_code != 201:
            raise DemoError(f"{what}: {answer.json().get('message', answer.text)}")
        return answer

    async def pods(self) -> list[Json]:
        """Return all pods."""
        items: list[Json] = (await self._http.get(f"/api/v1/namespaces/{NAMESPACE}/pods")).json()["items"]
        return items

    async def clear(self) -> None:
        """Delete every pod that is there, and wait until all are gone and their cards free."""
        async with asyncio.timeout(2 * DEADLINE):
            while (pods := await self.pods()) or (await self.snapshot()).bookings:
                for pod in pods:
                    await self._http.delete(f"/api/v1/namespaces/{NAMESPACE}/pods/{pod['metadata']['name']}")
                await asyncio.sleep(0.1)

    async def given(self, pod: Json) -> dict[str, Given]:
        """Return what each container of a running pod got from device plugins, by container."""
        meta, node = pod["metadata"], pod["spec"]["nodeName"]
        await self.system.fetch_gifts(node)
        folder = self.system.plan.folder / "k" / node / "containers"
        containers = [*(pod["spec"].get("initContainers") or []), *pod["spec"]["containers"]]
        files = {c["name"]: folder / f"{meta['uid']}_{c['name']}.json" for c in containers}
        found = {name: msgspec.json.decode(f.read_bytes(), type=Given) for name, f in files.items() if f.exists()}
        return {name: gift for name, gift in found.items() if gift.envs or gift.devices}


def is_running(pod: Json) -> bool:
    """Say whether the kubelet has started the pod."""
    return bool(pod["status"].get("phase") == "Running")


def refusal(pod: Json) -> str:
    """Return why the scheduler found no node for the pod, empty while it has not said so."""
    for condition in pod["status"].get("conditions") or []:
        if condition["type"] == "PodScheduled" and condition.get("reason") == "Unschedulable":
            return str(condition.get("message", ""))
    return ""
