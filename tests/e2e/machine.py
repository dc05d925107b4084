"""A node that is played: a kubelet that speaks the device-plugin protocol and keeps its Lease, and our agent beside it.

One rule: both end together when the machine is switched off, and nobody is told.
"""

import asyncio
from contextlib import suppress
from datetime import UTC, datetime

import aiohttp
from hami_testkit.cluster.client import ApiClient
from hami_testkit.cluster.kubelet import Kubelet
from hami_testkit.cluster.status import ApiError
from hami_testkit.processes import Processes, Spec

from tests.chart.in_cluster import start

BEAT = 1.0
LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"


class Machine:
    """One node: its kubelet and our agent, which end together when it is switched off."""

    def __init__(self, name: str, kubelet: Kubelet, agent: Spec, started: Processes, api: ApiClient) -> None:
        self.name = name
        self.kubelet = kubelet
        self._agent = agent
        self._started = started
        self._api = api
        self._heart: asyncio.Task[None] | None = None

    async def switch_on(self) -> None:
        """Start both; return when they serve the node."""
        await self.kubelet.start()
        await self.serve()

    async def serve(self) -> None:
        """Start the agent beside the kubelet, which tells from now on that it lives."""
        await start(self._started, self._agent)
        ready = {"type": "Ready", "status": "True", "reason": "KubeletReady", "lastHeartbeatTime": _now()}
        # a controller has written meanwhile that nobody knows
        await self._api.patch(f"/api/v1/nodes/{self.name}/status", {"status": {"conditions": [ready]}})
        self._heart = asyncio.create_task(self._beat())

    async def switch_off(self) -> None:
        """End both at once; nothing is said to anybody."""
        await self.fall_silent()
        await self._started.kill(self._agent.name)
        await self.kubelet.stop()

    async def fall_silent(self) -> None:
        """Give no sign of life any more."""
        if self._heart is not None:
            self._heart.cancel()
            await asyncio.wait({self._heart})

    async def _beat(self) -> None:
        while True:
            spec = {"holderIdentity": self.name, "leaseDurationSeconds": 40, "renewTime": _now()}
            with suppress(ApiError, aiohttp.ClientError, OSError):
                try:
                    await self._api.patch(f"{LEASES}/{self.name}", {"spec": spec})
                except ApiError as refusal:
                    if refusal.code == 404:
                        await self._api.create(LEASES, {"metadata": {"name": self.name}, "spec": spec})
            await asyncio.sleep(BEAT)


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
