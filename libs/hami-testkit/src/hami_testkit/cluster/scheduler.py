"""kube-scheduler's behaviour: one pod at a time through the filters, binds beside each other, assumed pods, back-off.

One rule: the scheduling cycle is serial, so an extender that hangs stops every other pod until httpTimeout; a pod
that an extender claims to have bound stays assumed until the API shows it bound or gone, however long that takes.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp

from hami_testkit.cluster import fitting
from hami_testkit.cluster.client import STRATEGIC, ApiClient, Informer
from hami_testkit.cluster.extender import Extender, ExtenderClient, ExtenderError
from hami_testkit.cluster.fitting import NodeBooks
from hami_testkit.cluster.queue import SchedulingQueue, Waiting
from hami_testkit.cluster.registry import now
from hami_testkit.cluster.status import ApiError, Json

LOG = logging.getLogger(__name__)


class KubeScheduler:
    """A scheduler of one name, with at most one extender."""

    def __init__(
        self,
        api_url: str,
        extender: Extender | None = None,
        *,
        scheduler_name: str = "hami-scheduler",
        initial_backoff: float = 1,
        max_backoff: float = 10,
    ) -> None:
        self._api_url = api_url
        self._extender = extender
        self._name = scheduler_name
        clock = asyncio.get_running_loop().time
        self.queue = SchedulingQueue(initial=initial_backoff, longest=max_backoff, clock=clock)
        self._nodes: dict[str, NodeBooks] = {}
        self._placed: dict[str, tuple[str, Counter[str]]] = {}
        self._assumed: set[str] = set()

    @property
    def assumed(self) -> frozenset[str]:
        """Return the uids of the pods that were given a node and are not yet seen bound."""
        return frozenset(self._assumed)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[KubeScheduler]:
        """Run the scheduler until the block is left."""
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(self.run(), name=f"scheduler {self._name}")
            try:
                yield self
            finally:
                task.cancel()

    async def run(self) -> None:
        """Schedule pods until cancelled."""
        async with (
            ApiClient.connect(self._api_url) as client,
            aiohttp.ClientSession() as session,
            asyncio.TaskGroup() as tasks,
        ):
            asked = ExtenderClient(self._extender, session) if self._extender else None
            nodes = Informer(client, "/api/v1/nodes", self._node_told)
            pods = Informer(client, "/api/v1/pods", self._pod_told)
            tasks.create_task(nodes.run(), name="nodes")
            await nodes.synced.wait()
            tasks.create_task(pods.run(), name="pods")
            await pods.synced.wait()
            cycle = Cycle(self, client, asked, tasks)
            while True:
                await cycle.attempt(await self.queue.take())

    # What the cluster tells

    def _node_told(self, old: Json | None, new: Json | None) -> None:
        if new is None:
            if old is not None:
                self._nodes.pop(old["metadata"]["name"], None)
            return
        name = new["metadata"]["name"]
        if name in self._nodes:
            self._nodes[name].renew(new)
        else:
            self._nodes[name] = NodeBooks(new)
            for node, wanted in self._placed.values():
                if node == name:
                    self._nodes[name].take(wanted)
        if old is None or _matters(old) != _matters(new):
            self.queue.move_all()

    def _pod_told(self, old: Json | None, new: Json | None) -> None:
        uid = (new or old or {})["metadata"]["uid"]
        if new is None or (new.get("status") or {}).get("phase") in ("Succeeded", "Failed"):
            self.queue.drop(uid)
            self._assumed.discard(uid)
            if self._release(uid):
                self.queue.move_all()
        elif node := new["spec"].get("nodeName"):
            self.queue.drop(uid)
            self._assumed.discard(uid)
            if self._placed.get(uid, ("",))[0] != node:
                self._release(uid)
                self._place(uid, node, fitting.requests(new))
                self.queue.move_all()
        elif self._is_ours(new):
            self.queue.put(new)

    def _is_ours(self, pod: Json) -> bool:
        spec = pod["spec"]
        deleted = pod["metadata"].get("deletionTimestamp")
        return spec.get("schedulerName") == self._name and not spec.get("schedulingGates") and not deleted

    # What the cycle asks and decides

    def candidates(self, pod: Json) -> tuple[list[Json], Counter[str]]:
        """Return the nodes that pass the scheduler's own filters, and why the others do not."""
        wanted = fitting.requests(pod)
        for name in self._extender.ignored if self._extender else ():
            wanted.pop(name, None)
        reasons: Counter[str] = Counter()
        passed = []
        for books in self._nodes.values():
            if refusal := books.refusal(pod, wanted):
                reasons.update(refusal)
            else:
                passed.append(books.node)
        return passed, reasons

    def best(self, nodes: list[str], scores: dict[str, int]) -> str:
        """Return the node with the best score, the emptiest among equals."""
        return max(nodes, key=lambda name: (scores.get(name, 0), -self._nodes[name].used.get("pods", 0)))

    def assume(self, pod: Json, node: str) -> None:
        """Count the pod on its node before the API does."""
        uid = pod["metadata"]["uid"]
        self._assumed.add(uid)
        self._place(uid, node, fitting.requests(pod))

    def forget(self, uid: str) -> None:
        """Stop counting a pod whose bind failed, unless the API has shown it bound meanwhile."""
        if uid in self._assumed:
            self._assumed.discard(uid)
            self._release(uid)
            self.queue.move_all()

    def _place(self, uid: str, node: str, wanted: Counter[str]) -> None:
        self._placed[uid] = (node, wanted)
        if node in self._nodes:
            self._nodes[node].take(wanted)

    def _release(self, uid: str) -> bool:
        node, wanted = self._placed.pop(uid, ("", Counter[str]()))
        if node in self._nodes:
            self._nodes[node].take(wanted, times=-1)
        return bool(node)

    @property
    def name(self) -> str:
        """Return the name that pods choose it by."""
        return self._name

    @property
    def node_count(self) -> int:
        """Return how many nodes there are."""
        return len(self._nodes)


class Cycle:
    """One attempt after another; each ends with a bind on its way or the pod back in the queue."""

    def __init__(
        self, scheduler: KubeScheduler, client: ApiClient, extender: ExtenderClient | None, tasks: asyncio.TaskGroup
    ) -> None:
        self._scheduler = scheduler
        self._client = client
        self._extender = extender
        self._tasks = tasks

    async def attempt(self, item: Waiting) -> None:
        """Find a node for one pod and start its bind."""
        pod = item.pod
        asked = self._extender if self._extender and self._extender.extender.is_asked_about(pod) else None
        nodes, reasons = self._scheduler.candidates(pod)
        helpless = 0
        names = [node["metadata"]["name"] for node in nodes]
        if nodes and asked:
            try:
                verdict = await asked.filter(pod, nodes)
            except ExtenderError as error:
                if not asked.extender.ignorable:
                    await self._failed(item, "SchedulerError", str(error))
                    return
            else:
                names = verdict.nodes
                helpless = len(verdict.unresolvable)
                reasons.update([*verdict.failed.values(), *verdict.unresolvable.values()])
        if not names:
            text = fitting.explain(self._scheduler.node_count, reasons, helpless=helpless)
            await self._failed(item, "Unschedulable", text)
            return
        scores = await asked.prioritize(pod, [n for n in nodes if n["metadata"]["name"] in names]) if asked else {}
        node = self._scheduler.best(names, scores)
        self._scheduler.assume(pod, node)
        self._tasks.create_task(self._bind(item, node, asked), name=f"bind {item.uid}")

    async def _bind(self, item: Waiting, node: str, asked: ExtenderClient | None) -> None:
        try:
            if not await self._bound_by_extender(item.pod, node, asked):
                await self._bind_plainly(item.pod, node)
        except (ExtenderError, ApiError, aiohttp.ClientError, OSError) as error:
            self._scheduler.forget(item.uid)
            await self._failed(item, "SchedulerError", str(error))
        else:
            text = f"Successfully assigned {_full_name(item.pod)} to {node}"
            await self._event(item.pod, "Scheduled", text, kind="Normal")

    async def _bound_by_extender(self, pod: Json, node: str, asked: ExtenderClient | None) -> bool:
        if asked is None or not asked.extender.bind_verb:
            return False
        try:
            await asked.bind(pod, node)
        except ExtenderError:
            if not asked.extender.ignorable:
                raise
            return False
        return True

    async def _bind_plainly(self, pod: Json, node: str) -> None:
        meta = {field: pod["metadata"][field] for field in ("name", "namespace", "uid")}
        target = {"kind": "Node", "name": node}
        binding = {"apiVersion": "v1", "kind": "Binding", "metadata": meta, "target": target}
        await self._client.create(f"{_path(pod)}/binding", binding)

    async def _failed(self, item: Waiting, reason: str, message: str) -> None:
        self._scheduler.queue.give_back(item, for_change=reason == "Unschedulable")
        self._tasks.create_task(self._event(item.pod, "FailedScheduling", message, kind="Warning"))
        condition = {"type": "PodScheduled", "status": "False", "reason": reason, "message": message}
        known = [c for c in (item.pod.get("status") or {}).get("conditions") or [] if c["type"] == "PodScheduled"]
        if known and {key: known[0].get(key) for key in condition} == condition:
            return
        change = {"status": {"conditions": [{**condition, "lastProbeTime": None, "lastTransitionTime": now()}]}}
        try:
            await self._client.patch(f"{_path(item.pod)}/status", change, content=STRATEGIC)
        except (ApiError, aiohttp.ClientError, OSError) as error:
            LOG.warning("the condition of %s could not be written: %s", _full_name(item.pod), error)

    async def _event(self, pod: Json, reason: str, message: str, *, kind: str) -> None:
        meta = pod["metadata"]
        about = {"kind": "Pod", "apiVersion": "v1", "namespace": meta["namespace"], "name": meta["name"]}
        event = {
            "metadata": {"name": f"{meta['name']}.{secrets.token_hex(8)}", "namespace": meta["namespace"]},
            "involvedObject": about | {"uid": meta["uid"], "resourceVersion": meta["resourceVersion"]},
            "type": kind, "reason": reason, "message": message, "count": 1,
            "source": {"component": self._scheduler.name},
            "firstTimestamp": now(), "lastTimestamp": now(), "reportingComponent": self._scheduler.name,
            "reportingInstance": self._scheduler.name,
        }  # fmt: skip
        try:
            await self._client.create(f"/api/v1/namespaces/{meta['namespace']}/events", event)
        except (ApiError, aiohttp.ClientError, OSError) as error:
            LOG.warning("the event %s of %s could not be written: %s", reason, _full_name(pod), error)


def _path(pod: Json) -> str:
    return f"/api/v1/namespaces/{pod['metadata']['namespace']}/pods/{pod['metadata']['name']}"


def _full_name(pod: Json) -> str:
    return f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"


def _matters(node: Json) -> list[object]:
    """Return what of a node can change the fate of a pod that waits."""
    meta, status = node["metadata"], node.get("status") or {}
    conditions = sorted((c["type"], c["status"]) for c in status.get("conditions") or [])
    return [node.get("spec"), meta.get("labels"), meta.get("annotations"), status.get("allocatable"), conditions]
