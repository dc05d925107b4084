"""The kubelets: each admits the pods of its node one after the other, starts them and ends them.

One rule: a pod is admitted once, as it is at that moment; one that is gone or being deleted by then is not admitted.
"""

import asyncio
from collections.abc import Callable
from random import Random

from hami_model.objects import Pod

from tests.simulation.agents import Agent
from tests.simulation.allocators import a_catalog
from tests.simulation.given import Given, asks_of, pod_of
from tests.simulation.plugins import Plugin
from tests.simulation.store import Change, Json, Key, Store
from tests.simulation.virtual_time import VirtualLoop


class Kubelet:
    """One node: admits pods one after the other, starts them, ends them."""

    def __init__(
        self, loop: VirtualLoop, store: Store, rng: Random, name: str, servers: dict[str, "Agent | Plugin"]
    ) -> None:
        self._loop = loop
        self._store = store
        self._rng = rng
        self._known: set[str] = set()
        self._queue: asyncio.Queue[Key] = asyncio.Queue()
        self.name = name
        self.servers = servers
        """Who serves each vendor here, by word."""
        self.slowness = 0.0
        self.lives = True
        self.given: dict[str, Given] = {}
        """What each pod was given, by uid."""
        self.on_given: Callable[[Kubelet, str], None] = lambda _kubelet, _uid: None
        store.on_change.append(self._hear)

    @property
    def agent(self) -> Agent | None:
        """Return our agent, where it serves this node."""
        return next((server for server in self.servers.values() if isinstance(server, Agent)), None)

    def _hear(self, change: Change) -> None:
        if change.kind != "pods":
            return
        obj = change.new or change.old
        assert obj is not None
        if obj["spec"].get("nodeName") != self.name:
            return
        uid = obj["metadata"]["uid"]
        if self.agent is not None:
            self._loop.after(self._rng.uniform(0.001, 0.2), self._show_agent, change)
        if change.new is not None and uid not in self._known:
            self._known.add(uid)
            self._loop.after(self._rng.uniform(0.002, 0.5) + self.slowness, self._queue.put_nowait, change.key)
        elif change.new is not None and "deletionTimestamp" in obj["metadata"]:
            self._loop.after(self._rng.uniform(0.5, 5), self._remove, change.key, uid)

    def _show_agent(self, change: Change) -> None:
        agent = self.agent
        assert agent is not None
        if change.new is None:
            assert change.old is not None
            agent.pods.lose(pod_of(change.old))
        elif self._store.find("pods", change.key) is not None:
            agent.pods.see(pod_of(change.new))

    def _remove(self, key: Key, uid: str) -> None:
        obj = self._store.find("pods", key)
        if obj is not None and obj["metadata"]["uid"] == uid:
            self._store.remove("pods", key, sender=f"kubelet {self.name}")
            self._forget(uid)

    def _forget(self, uid: str) -> None:
        if self.agent is not None:
            self._loop.after(self._rng.uniform(0.1, 2), self.agent.forget, uid)

    async def run(self) -> None:
        """Admit pods for ever."""
        while True:
            key = await self._queue.get()
            obj = self._store.find("pods", key)
            if obj is None or obj["spec"].get("nodeName") != self.name or "deletionTimestamp" in obj["metadata"]:
                continue
            if obj["status"]["phase"] == "Pending":
                await self._admit(key, pod_of(obj))

    async def _admit(self, key: Key, pod: Pod) -> None:
        words = [word for word, server in self.servers.items() if asks_of(pod, a_catalog().by_word(word))]
        for word in words:
            server = self.servers[word]
            given = await server.allocate(pod)
            self.given[pod.metadata.uid] = given
            self.on_given(self, pod.metadata.uid)
            if given.refused:
                self._set(key, pod.metadata.uid, {"phase": "Failed", "reason": given.refused})
                return
            if isinstance(server, Plugin):
                self._loop.create_task(server.say_served(pod))
        self._loop.after(self._rng.uniform(0.1, 1.0), self._start, key, pod)

    def _start(self, key: Key, pod: Pod) -> None:
        statuses = [{"name": c.name, "started": True, "state": {"running": {}}} for c in pod.containers]
        self._set(key, pod.metadata.uid, {"phase": "Running", "containerStatuses": statuses})

    def end(self, key: Key, uid: str, phase: str) -> None:
        """Let a pod's containers end."""
        self._set(key, uid, {"phase": phase})
        self._forget(uid)

    def _set(self, key: Key, uid: str, status: Json) -> None:
        obj = self._store.find("pods", key)
        if obj is not None and obj["metadata"]["uid"] == uid and obj["status"]["phase"] not in ("Succeeded", "Failed"):
            self._store.set_status("pods", key, status, sender=f"kubelet {self.name}")
