"""Nodes that are played: the node-agent's part on the bus, and HAMi's plugin with its lock, each with a kubelet's part.

One rule: what they tell goes through the agent's own code for telling; what they give out they write down, and a node
that is to give more than it has says so.
"""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
from hami_kit import bus as buses
from hami_kit.bus import Bus, BusSettings, Endpoint
from hami_kit.errors import BoundaryError
from hami_kit.telemetry import Telemetry
from hami_model.allocation import Grant
from hami_model.bus import subjects
from hami_model.bus.messages import AskSnapshot, Leading, ReportWanted, Snapshot, SnapshotAnswer
from hami_model.device import Device
from hami_model.objects import PodRef
from hami_model.request import Role
from hami_node_agent.inventory import Inventory
from hami_node_agent.probes import CardFacts, DriverVersions
from hami_node_agent.report import Containers, Presence, Reports
from hami_node_agent.table import Entry, Table
from hami_testkit.cluster.client import ApiClient, Informer
from hami_testkit.cluster.kubelet.pod import annotation, is_deleted, path_of, uid_of
from hami_testkit.cluster.kubelet.worker import write_status
from hami_testkit.cluster.plugins.handshake import Handshake
from hami_testkit.cluster.plugins.plugin import PluginRefusedError
from hami_testkit.cluster.status import ApiError

from tests.faults.bad_lines import LossyBus, insist
from tests.faults.fleet import FleetNode, Kind
from tests.faults.witness import Json, Share, is_over, over, shares

log = logging.getLogger(__name__)

AGAIN = 0.3
GPU = "nvidia.com/gpu"
TO_ALLOCATE = "hami.io/vgpu-devices-to-allocate"
KNOWN_WITHIN = 90.0
"""Seconds until every card is known."""


class PlayedNode:
    """One node: its pods start, run, end and go; ``serve`` is what differs."""

    def __init__(self, node: FleetNode, api: ApiClient, tasks: asyncio.TaskGroup, findings: list[str]) -> None:
        self.node = node
        self.api = api
        self.tasks = tasks
        self.findings = findings
        self._given: dict[str, tuple[Share, ...]] = {}
        self._living: dict[str, asyncio.Task[None]] = {}

    @property
    def living(self) -> tuple[asyncio.Task[None], ...]:
        """Return the pods' lives."""
        return tuple(self._living.values())

    async def serve(self, pod: Json) -> None:
        """Give the pod's containers their cards."""
        raise NotImplementedError

    def left(self, pod: Json) -> None:
        """Take note that a pod's containers are gone."""

    def told(self, pod: Json, *, gone: bool) -> None:
        """Take one pod's change, as a kubelet would."""
        uid = uid_of(pod)
        if gone or is_over(pod):
            self._end(pod)
        elif is_deleted(pod):
            self._end(pod)
            self.tasks.create_task(self._remove(pod), name=f"remove {path_of(pod)}")
        elif uid not in self._living:
            self._living[uid] = self.tasks.create_task(self._live(pod), name=f"pod {path_of(pod)}")

    def _end(self, pod: Json) -> None:
        if living := self._living.pop(uid_of(pod), None):
            living.cancel()
            self.left(pod)
        self._given.pop(uid_of(pod), None)

    async def _live(self, pod: Json) -> None:
        self._give(pod)
        await self.serve(pod)
        await write_status(self.api, pod, _status(pod, "Running"))
        if seconds := annotation(pod, "standin.hami.io/run-seconds"):
            await asyncio.sleep(float(seconds))
            self.left(pod)
            await write_status(self.api, pod, _status(pod, "Succeeded"))

    def _give(self, pod: Json) -> None:
        self._given[uid_of(pod)] = shares(pod)
        for card in self.node.cards:
            held = {uid: [s for s in given if s.card == card.id] for uid, given in self._given.items()}
            self.findings += [f"at the node itself: {text}" for text in over((self.node.name, card.id), card, held)]

    async def _remove(self, pod: Json) -> None:
        body = {"gracePeriodSeconds": 0, "preconditions": {"uid": uid_of(pod)}}
        await insist(lambda: self.api.delete(path_of(pod), body))


class PlayedAgent(PlayedNode):
    """A node that our agent serves: it confirms every container until somebody has heard it."""

    def __init__(
        self, node: FleetNode, api: ApiClient, tasks: asyncio.TaskGroup, findings: list[str], *, bus: LossyBus
    ) -> None:
        super().__init__(node, api, tasks, findings)
        self._bus = bus
        self._table = Table()
        self._wanted: dict[str, int] = {}
        any_bus: Any = bus
        devices = tuple(
            Device(id=c.id, vendor="NVIDIA", index=i, slots=c.slots, memory=c.memory, cores=c.cores, model="A40")
            for i, c in enumerate(node.cards)
        )
        self._reports = Reports(
            any_bus, node=node.name, telemetry=Telemetry(), is_complete=self._is_complete, jitter=lambda s: s
        )
        self._presence = Presence(
            any_bus, node=node.name, agent=f"played-{node.name}", inventory=Inventory(_NoProbe(), devices),
            jitter=lambda s: s, containers=Containers(holding=lambda: [pod.uid for pod in self._table.pods]),
        )  # fmt: skip

    async def run(self) -> None:
        """Tell what an agent tells, until cancelled."""
        report = subjects.of_node(self.node.name, "report")
        wanted = Endpoint("report", report, ReportWanted, self._presence.report_wanted)
        served = await self._bus.serve("hami-node-agent", [wanted])
        heard = await self._bus.subscribe(subjects.LEADER, Leading, self._led)
        try:
            async with asyncio.TaskGroup() as tasks:
                for work in (self._reports.run, self._presence.run_inventory, self._presence.run_heartbeat):
                    tasks.create_task(work())
        finally:
            await served.stop()
            await heard.stop()

    async def serve(self, pod: Json) -> None:
        """Confirm one container after the other."""
        meta = pod["metadata"]
        ref = PodRef(meta["namespace"], meta["name"], meta["uid"])
        self._wanted[ref.uid] = len(pod["spec"]["containers"])
        for i, (container, share) in enumerate(zip(pod["spec"]["containers"], shares(pod), strict=False)):
            entry = Entry(
                pod=ref, container=container["name"], position=i, role=Role.APP, resource=GPU, ids=(share.card,),
                grants=(_grant(share),), served=True,
            )  # fmt: skip
            self._table.put(entry)
            self._reports.confirm(entry, parent="")
            await asyncio.sleep(0)

    def left(self, pod: Json) -> None:
        """Forget the pod, and say soon that it holds nothing."""
        meta = pod["metadata"]
        self._table.release(meta["uid"])
        self._reports.forget(PodRef(meta["namespace"], meta["name"], meta["uid"]))
        self._presence.beat_soon()

    def _is_complete(self, pod: PodRef) -> bool:
        return len(self._table.of_pod(pod.uid)) >= self._wanted.get(pod.uid, 1)

    async def _led(self, _subject: str, message: Leading) -> None:
        await self._presence.report_wanted(message)
        self._reports.restate(self._table, lambda _: "")


class PlayedPlugin(PlayedNode):
    """A node with HAMi's own NVIDIA plugin: admission is serial, and the lock says whose turn it is."""

    def __init__(self, node: FleetNode, api: ApiClient, tasks: asyncio.TaskGroup, findings: list[str]) -> None:
        super().__init__(node, api, tasks, findings)
        self._handshake = Handshake(api, node.name)
        self._admission = asyncio.Lock()

    async def register(self) -> None:
        """Write the cards as the plugin does."""
        cards = [
            {"id": c.id, "index": i, "count": c.slots, "devmem": c.memory, "devcore": c.cores, "type": "NVIDIA-A40",
             "numa": 0, "mode": "hami-core", "health": True}
            for i, c in enumerate(self.node.cards)
        ]  # fmt: skip
        notes: dict[str, str | None] = {"hami.io/node-nvidia-register": json.dumps(cards)}
        await self._handshake.publish({**notes, "hami.io/node-handshake": "Reported_2026.01.01 00:00:00"})

    async def serve(self, pod: Json) -> None:
        """Find the pod as the plugin does; the API server may be away meanwhile."""
        async with self._admission:
            while True:
                try:
                    if await self._serve(pod):
                        return
                except (ApiError, aiohttp.ClientError, OSError, PluginRefusedError) as error:
                    log.info("%s: %s", self.node.name, error)
                await asyncio.sleep(AGAIN)

    async def _serve(self, pod: Json) -> bool:
        """Return True when the plugin has nothing more to do for the pod."""
        found = await self._handshake.pending_pod()
        if uid_of(found) != uid_of(pod):
            fresh = await self.api.get(path_of(pod))
            if uid_of(fresh) == uid_of(pod) and not is_deleted(fresh):
                names = found["metadata"]["name"], pod["metadata"]["name"]
                self.findings.append("{}: the lock names {} while {} is admitted".format(self.node.name, *names))
            return True
        await self._handshake.annotate(found, {TO_ALLOCATE: ";" * len(pod["spec"]["containers"])})
        await self._handshake.finish(found, "success")
        return True


class Players:
    """All played nodes behind one watch of the pods."""

    def __init__(self, nodes: Sequence[PlayedNode], api: ApiClient) -> None:
        self.nodes = {played.node.name: played for played in nodes}
        self._informer = Informer(api, "/api/v1/pods", self._told)

    async def run(self) -> None:
        """Follow the pods until cancelled."""
        await self._informer.run()

    def _told(self, old: Json | None, new: Json | None) -> None:
        pod = new or old or {}
        if played := self.nodes.get(pod["spec"].get("nodeName", "")):
            played.told(pod, gone=new is None)


def play(
    nodes: Sequence[FleetNode], api: ApiClient, tasks: asyncio.TaskGroup, findings: list[str], bus: LossyBus
) -> Players:
    """Return the players of those nodes that have no kubelet."""
    agents = [PlayedAgent(n, api, tasks, findings, bus=bus) for n in nodes if n.kind is Kind.PLAYED]
    plugins = [PlayedPlugin(n, api, tasks, findings) for n in nodes if n.kind is Kind.PLUGIN]
    return Players([*agents, *plugins], api)


@asynccontextmanager
async def a_bus(url: str) -> AsyncIterator[Bus]:
    """Open the players' way to NATS for the length of a block."""
    async with buses.connect(BusSettings(url=url), name="players", telemetry=Telemetry()) as bus:
        await bus.wait_connected()
        yield bus


async def wait_known(bus: Bus, cards: int) -> None:
    """Wait until the allocator knows of so many cards."""
    async with asyncio.timeout(KNOWN_WITHIN):
        while True:
            try:
                found = await bus.request(subjects.SNAPSHOT, AskSnapshot(), SnapshotAnswer, timeout=5)
            except BoundaryError:
                found = None
            if isinstance(found, Snapshot) and sum(len(node.devices) for node in found.nodes) >= cards:
                return
            await asyncio.sleep(0.2)


class _NoProbe:
    """The cards of a played node never change."""

    @property
    def facts(self) -> Mapping[str, CardFacts]:
        return {}

    @property
    def versions(self) -> DriverVersions:
        return DriverVersions()

    async def wait_news(self, seconds: float) -> None:
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError

    async def look(self) -> tuple[Device, ...]:
        raise NotImplementedError


def _grant(share: Share) -> Grant:
    return Grant(uuid=share.card, vendor="NVIDIA", memory=share.memory, cores=share.cores)


def _status(pod: Json, phase: str) -> Json:
    runs = phase == "Running"
    state: Json = {"running": {"startedAt": "2026-01-01T00:00:00Z"}} if runs else {"terminated": {"exitCode": 0}}
    each = {"image": "app", "imageID": "app", "restartCount": 0, "started": runs, "ready": runs, "state": state}
    return {"phase": phase, "containerStatuses": [{"name": c["name"], **each} for c in pod["spec"]["containers"]]}
