"""How a HAMi device plugin finds its pod and says that it is served: by the node's lock and the pod's annotations.

One rule: the kubelet names no pod, so the plugin trusts the lock; a wrong lock gives a wrong pod, here as there.
"""

import asyncio
from collections.abc import Collection

import aiohttp

from hami_testkit.cluster.client import ApiClient
from hami_testkit.cluster.kubelet.pod import annotation, path_of, phase_of
from hami_testkit.cluster.plugins.plugin import PluginRefusedError
from hami_testkit.cluster.status import ApiError, Json

LOCK = "hami.io/mutex.lock"
BIND_PHASE = "hami.io/bind-phase"
BIND_TIME = "hami.io/bind-time"
NODE = "hami.io/vgpu-node"
LOCK_TRIES = 5
FIRST_PAUSE = 0.1
"""Seconds before the second try to open the lock; doubles each time."""


class Handshake:
    """The lock and the pods of one node, seen by a plugin. ``phases``: of pods that it takes where there is no lock."""

    def __init__(self, api: ApiClient, node: str, *, phases: Collection[str] = ("allocating", "success")) -> None:
        self.api = api
        self.node = node
        self._phases = phases
        self.path = f"/api/v1/nodes/{node}"

    async def pending_pod(self) -> Json:
        """Return the pod that the lock names, whatever its state; without a lock the first one that waits here."""
        try:
            holder = (annotation(await self.api.get(self.path), LOCK) or "").split(",")
            if len(holder) == 3 and all(holder):
                return await self.api.get(f"/api/v1/namespaces/{holder[1]}/pods/{holder[2]}")
            waiting = [pod for pod in await self.pods() if self._waits(pod)]
        except (ApiError, aiohttp.ClientError) as error:
            raise PluginRefusedError(str(error)) from error
        if not waiting:
            raise PluginRefusedError(f"no binding pod found on node {self.node}")
        return waiting[0]

    def _waits(self, pod: Json) -> bool:
        is_bound = annotation(pod, BIND_TIME) is not None and annotation(pod, NODE) == self.node
        return is_bound and phase_of(pod) == "Pending" and annotation(pod, BIND_PHASE) in self._phases

    async def pods(self, *, phase: str = "") -> list[Json]:
        """Return the pods of the node."""
        selector = f"spec.nodeName={self.node}" + (f",status.phase={phase}" if phase else "")
        found: list[Json] = (await self.api.get("/api/v1/pods", {"fieldSelector": selector}))["items"]
        return found

    async def annotate(self, pod: Json, notes: dict[str, str]) -> None:
        """Write annotations of a pod."""
        await self.api.patch(path_of(pod), {"metadata": {"annotations": notes}})

    async def publish(self, notes: dict[str, str | None]) -> None:
        """Write annotations of the node; None removes one."""
        await self.api.patch(self.path, {"metadata": {"annotations": notes}})

    async def finish(self, pod: Json, phase: str) -> None:
        """Write the outcome and open the lock; the lock is opened even if the outcome could not be written."""
        try:
            await self.annotate(pod, {BIND_PHASE: phase})
        finally:
            await self._open_lock(pod)

    async def _open_lock(self, pod: Json) -> None:
        """Remove the lock if the pod has it, or if it names nobody; after five conflicts it is left to expire."""
        owner = f",{pod['metadata']['namespace']},{pod['metadata']['name']}"
        for attempt in range(LOCK_TRIES):
            node = await self.api.get(self.path)
            held = annotation(node, LOCK)
            if held is None or ("," in held and not held.endswith(owner)):
                return
            meta = {"resourceVersion": node["metadata"]["resourceVersion"], "annotations": {LOCK: None}}
            try:
                await self.api.patch(self.path, {"metadata": meta})
            except ApiError as refusal:
                if refusal.code != 409:
                    raise
                await asyncio.sleep(FIRST_PAUSE * 2**attempt)
            else:
                return
