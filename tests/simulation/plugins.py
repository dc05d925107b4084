"""The vendors' own device plugins, which know nothing of us.

One rule: a plugin is told no pod and finds one as HAMi's does: by the node's lock, else the first one in waiting.
"""

import asyncio
from random import Random
from typing import Any

from hami_model.annotations import read_allocation
from hami_model.keys import ALLOCATING, BIND_PHASE, BIND_TIME, NODE, SUCCESS
from hami_model.objects import Pod
from hami_model.vendor import Vendor

from tests.simulation.allocators import a_catalog
from tests.simulation.given import Given, grants_of, pod_of
from tests.simulation.store import Json, Key, Refusal, Store

ASSIGNED = "CAMBRICON_DSMLU_ASSIGNED"


class Plugin:
    """A vendor's own device plugin."""

    def __init__(self, store: Store, rng: Random, node: str, word: str) -> None:
        self._store = store
        self._rng = rng
        self._node = node
        self.word = word
        self.vendor: Vendor = a_catalog().by_word(word)
        self.is_forgetful = False
        """Serves, and dies before it says so."""

    async def allocate(self, _pod: Pod) -> Given:
        """Give the kubelet what the pod that it finds was granted; nobody tells it which one asks."""
        await asyncio.sleep(self._rng.uniform(0.01, 0.5))
        try:
            obj = self._find()
            allocation = read_allocation(a_catalog(), pod_of(obj))
        except Refusal as error:
            return Given(refused=str(error))
        if allocation is None or self.word not in allocation.vendors:
            return Given(refused=f"pod {obj['metadata']['name']} has nothing of {self.word}")
        return Given(grants_of(allocation.containers, self.word), obj["metadata"]["uid"])

    def _find(self) -> Json:
        node = self._store.get("nodes", ("", self._node))
        lock = self.vendor.lock
        text = (node["metadata"].get("annotations") or {}).get(lock.key, "") if lock is not None else ""
        owner = text.split(",")[1:]
        if len(owner) == 2:
            return self._store.get("pods", (owner[0], owner[1]))
        waiting = [obj for obj in self._store.objects["pods"].values() if self._is_waiting(obj)]
        if not waiting:
            raise Refusal(404, "NotFound", f"no binding pod found on node {self._node}")
        return min(waiting, key=lambda obj: (obj["metadata"]["annotations"][BIND_TIME], obj["metadata"]["name"]))

    def _is_waiting(self, obj: Json) -> bool:
        notes = obj["metadata"].get("annotations") or {}
        if obj["spec"].get("nodeName") != self._node or obj["status"].get("phase") != "Pending":
            return False
        if self.word == "MLU":
            return bool(notes.get(ASSIGNED) == "false")
        return BIND_TIME in notes and notes.get(BIND_PHASE) in (ALLOCATING, SUCCESS) and notes.get(NODE) == self._node

    async def say_served(self, pod: Pod) -> None:
        """Mark the pod as served and release the lock, as HAMi's plugins do."""
        await asyncio.sleep(self._rng.uniform(0.01, 0.3))
        if self.is_forgetful:
            return
        key, sender = (pod.metadata.namespace, pod.metadata.name), f"plugin of {self._node}"
        notes: dict[str, Any] = {ASSIGNED: "true"} if self.word == "MLU" else {BIND_PHASE: SUCCESS}
        try:
            self._store.patch_meta("pods", key, {"uid": pod.metadata.uid, "annotations": notes}, sender=sender)
            await asyncio.sleep(self._rng.uniform(0.005, 0.1))
            self._release(key, sender)
        except Refusal:
            return

    def _release(self, key: Key, sender: str) -> None:
        lock = self.vendor.lock
        if lock is None:
            return
        text = (self._store.get("nodes", ("", self._node))["metadata"].get("annotations") or {}).get(lock.key, "")
        if not lock.owned or tuple(text.split(",")[1:]) == key:
            self._store.patch_meta("nodes", ("", self._node), {"annotations": {lock.key: None}}, sender=sender)
