"""What the kubelet writes of its node: that it is ready, and how many devices plugins offer.

One rule: it fills in what a Node lacks and never takes away what others wrote.
"""

import asyncio
import logging
from collections.abc import Mapping

import aiohttp

from hami_testkit.cluster.client import ApiClient
from hami_testkit.cluster.kubelet.status import now
from hami_testkit.cluster.status import ApiError, Json

log = logging.getLogger(__name__)

WRITE_AGAIN = 0.3
ORDINARY = {"cpu": "16", "memory": "64Gi", "ephemeral-storage": "100Gi", "pods": "110"}
"""The capacity of a node that nobody described."""

Counts = Mapping[str, tuple[int, int]]
"""Capacity and allocatable by resource."""


class NodeReporter:
    """Writes the status of one node."""

    def __init__(self, api: ApiClient, node: str) -> None:
        self._api = api
        self._node = node
        self._path = f"/api/v1/nodes/{node}"

    async def report(self, counts: Counts) -> None:
        """Write the counts, again and again while that fails."""
        while True:
            try:
                await self._write(counts)
            except (ApiError, aiohttp.ClientError, OSError) as error:
                log.info("the status of node %s could not be written, trying again: %s", self._node, error)
                await asyncio.sleep(WRITE_AGAIN)
            else:
                return

    async def _write(self, counts: Counts) -> None:
        node = await self._found()
        status = node.get("status") or {}
        capacity = {**ORDINARY, **(status.get("capacity") or {}), **{r: str(all_) for r, (all_, _) in counts.items()}}
        allocatable = {**capacity, **(status.get("allocatable") or {}), **{r: str(ok) for r, (_, ok) in counts.items()}}
        conditions = status.get("conditions") or []
        if not any(c.get("type") == "Ready" for c in conditions):
            conditions = [*conditions, _ready()]
        new = {"capacity": capacity, "allocatable": allocatable, "conditions": conditions}
        if any(status.get(key) != value for key, value in new.items()):
            await self._api.patch(f"{self._path}/status", {"status": new})

    async def _found(self) -> Json:
        """Return the node, registering it if there is none of its name."""
        try:
            return await self._api.get(self._path)
        except ApiError as refusal:
            if refusal.code != 404:
                raise
        labels = {"kubernetes.io/hostname": self._node, "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64"}
        node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": self._node, "labels": labels}}
        return await self._api.create("/api/v1/nodes", node)


def _ready() -> Json:
    told = "kubelet is posting ready status"
    times = {"lastHeartbeatTime": now(), "lastTransitionTime": now()}
    return {"type": "Ready", "status": "True", "reason": "KubeletReady", "message": told, **times}
