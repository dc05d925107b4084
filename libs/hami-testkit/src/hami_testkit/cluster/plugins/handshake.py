"""How a HAMi device plugin finds its pod and says that it is served: by the node's lock and the pod's annotations.

One rule: the kubelet names no pod, so the plugin trusts the lock; a wrong lock gives a wrong pod, here as there.
"""

from typing import Any
from urllib.parse import quote

from hami_testkit.cluster.kubelet.client import ApiClient, ApiError, Json
from hami_testkit.cluster.plugins.plugin import PluginRefusedError

LOCK = "hami.io/mutex.lock"
BIND_PHASE = "hami.io/bind-phase"
LOCK_TRIES = 5


class Handshake:
    """The lock and the pods of one node, seen by a plugin."""

    def __init__(self, api: ApiClient, node: str) -> None:
        self.api = api
        self.node = node

    async def pending_pod(self) -> Json:
        """Return the pod that the lock names, else the first one bound here and waiting."""
        node = await self.api.get(f"/api/v1/nodes/{self.node}")
        parts = annotations_of(node).get(LOCK, "").split(",")
        if len(parts) == 3:
            return await self.api.get(f"/api/v1/namespaces/{parts[1]}/pods/{parts[2]}")
        for pod in await self.pods():
            notes = annotations_of(pod)
            waiting = pod["status"].get("phase") == "Pending" and notes.get(BIND_PHASE) in {"allocating", "success"}
            if waiting and "hami.io/bind-time" in notes and notes.get("hami.io/vgpu-node") == self.node:
                return pod
        raise PluginRefusedError(f"no binding pod found on node {self.node}")

    async def pods(self) -> list[Json]:
        """Return the pods of the node."""
        selector = quote(f"spec.nodeName={self.node}")
        items: list[Json] = (await self.api.get(f"/api/v1/pods?fieldSelector={selector}"))["items"]
        return items

    async def annotate(self, pod: Json, notes: dict[str, str]) -> None:
        """Write annotations of a pod."""
        meta = pod["metadata"]
        path = f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}"
        await self.api.merge(path, {"metadata": {"annotations": notes}})

    async def finish(self, pod: Json, phase: str) -> None:
        """Write the outcome and open the lock, if the pod has it."""
        await self.annotate(pod, {BIND_PHASE: phase})
        owner = f",{pod['metadata']['namespace']},{pod['metadata']['name']}"
        for _ in range(LOCK_TRIES):
            node = await self.api.get(f"/api/v1/nodes/{self.node}")
            if not annotations_of(node).get(LOCK, "").endswith(owner):
                return
            version = node["metadata"]["resourceVersion"]
            body = {"metadata": {"resourceVersion": version, "annotations": {LOCK: None}}}
            try:
                await self.api.merge(f"/api/v1/nodes/{self.node}", body)
            except ApiError as e:
                if e.status != 409:
                    raise
                continue
            return


def annotations_of(obj: Json) -> dict[str, str]:
    """Return the annotations of an object, empty where there are none."""
    notes: dict[str, Any] | None = obj["metadata"].get("annotations")
    return notes or {}
