"""kube-scheduler with our extender: one filter at a time, binds side by side, assumed pods, back-off.

One rule: it does what the real one does (measured): it works on its own late view, retries what failed, and believes
an answered bind for ever.
"""

import asyncio
from random import Random

from hami_kit.errors import BoundaryError
from hami_model.bus import subjects
from hami_model.bus.messages import BindAnswer, BindPod, Done, FilterAnswer, FilterPod, Placed
from hami_model.objects import Pod, PodRef

from tests.simulation.bus import SimBus
from tests.simulation.given import pod_of
from tests.simulation.store import Change, Store
from tests.simulation.virtual_time import VirtualLoop

FILTER_DEADLINE = 2.0
BIND_DEADLINE = 29.0
BACKOFF = (1.0, 10.0)


class Scheduler:
    """Places every pod that waits."""

    def __init__(self, loop: VirtualLoop, store: Store, bus: SimBus, rng: Random) -> None:
        self._loop = loop
        self._store = store
        self._bus = bus
        self._rng = rng
        self._pods: dict[str, Pod] = {}
        self._assumed: set[str] = set()
        self._not_before: dict[str, float] = {}
        self._failures: dict[str, int] = {}
        self._due = 0.0
        self._news = asyncio.Event()
        self._binds: set[asyncio.Task[None]] = set()
        self.lag = 0.0
        store.on_change.append(self._hear)

    def _hear(self, change: Change) -> None:
        if change.kind == "pods":
            self._due = max(self._due + 1e-6, self._loop.now + self._rng.uniform(0.002, 0.05) + self.lag)
            self._loop.after(self._due - self._loop.now, self._take, change)

    def _take(self, change: Change) -> None:
        obj = change.new or change.old
        assert obj is not None
        uid = obj["metadata"]["uid"]
        waits = change.new is not None and not obj["spec"].get("nodeName") and obj["status"]["phase"] == "Pending"
        if waits and "deletionTimestamp" not in obj["metadata"]:
            self._pods[uid] = pod_of(obj)
        else:
            self._pods.pop(uid, None)
            self._assumed.discard(uid)
        self._news.set()

    def restart(self) -> None:
        """Forget everything but what the API server shows."""
        for bind in list(self._binds):
            bind.cancel()
        for forgotten in (self._assumed, self._not_before, self._failures):
            forgotten.clear()
        self._news.set()

    async def run(self) -> None:
        """Take one pod after the other."""
        while True:
            ready = [u for u in self._pods if u not in self._assumed and self._not_before.get(u, 0) <= self._loop.now]
            if not ready:
                await self._wait()
                continue
            await self._cycle(self._pods[self._rng.choice(ready)])

    async def _wait(self) -> None:
        self._news.clear()
        later = [self._not_before.get(uid, 0.0) for uid in self._pods if uid not in self._assumed]
        try:
            async with asyncio.timeout_at(min(later) if later else None):
                await self._news.wait()
        except TimeoutError:
            return

    async def _cycle(self, pod: Pod) -> None:
        nodes = [name for _, name in self._store.objects["nodes"]]
        question = FilterPod(pod=pod, nodes=nodes)
        try:
            answer = await self._bus.request(subjects.FILTER, question, FilterAnswer, timeout=FILTER_DEADLINE)
        except BoundaryError:
            answer = None
        uid = pod.metadata.uid
        if not isinstance(answer, Placed):
            self._back_off(uid)
            return
        self._assumed.add(uid)
        task = self._loop.create_task(self._bind(PodRef.of(pod), answer.node))
        self._binds.add(task)
        task.add_done_callback(self._binds.discard)

    async def _bind(self, pod: PodRef, node: str) -> None:
        await asyncio.sleep(self._rng.uniform(0.001, 0.05))
        question = BindPod(pod=pod, node=node)
        try:
            answer = await self._bus.request(subjects.BIND, question, BindAnswer, timeout=BIND_DEADLINE)
        except BoundaryError:
            answer = None
        if not isinstance(answer, Done):
            self._assumed.discard(pod.uid)
            self._back_off(pod.uid)

    def _back_off(self, uid: str) -> None:
        failures = self._failures[uid] = self._failures.get(uid, 0) + 1
        least, most = BACKOFF
        self._not_before[uid] = self._loop.now + min(least * 2 ** (failures - 1), most)
        if uid in self._pods:
            self._loop.after(self._rng.uniform(0.005, 0.1), self._say_why, PodRef.of(self._pods[uid]), failures)
        self._news.set()

    def _say_why(self, pod: PodRef, failures: int) -> None:
        """Write on the pod that it could not be scheduled, which moves its resourceVersion."""
        found = self._store.find("pods", (pod.namespace, pod.name))
        if found is not None and found["metadata"]["uid"] == pod.uid and not found["spec"].get("nodeName"):
            condition = {"type": "PodScheduled", "status": "False", "message": f"attempt {failures} failed"}
            key = (pod.namespace, pod.name)
            self._store.set_status("pods", key, {"conditions": [condition]}, sender="scheduler")
