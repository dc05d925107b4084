"""Stand-ins for Enflame's two device plugins: whole GCUs, and DRS shares of them.

The one for whole cards knows nothing of HAMi: it gives the cards that the kubelet picks. The one for shares publishes
cards and profiles, and knows its pod by ``gcu-assigned=false`` and a container that waits for so many slices, the one
that was placed first. It marks each container, and with the last one the pod. Under which resource it serves pods that
ask by memory and cores is not known here: the kubelet never asks it for those.
"""

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from hami_kit.kubelet import deviceplugin_v1beta1_pb2 as dp

from hami_testkit.cluster.client import ApiClient
from hami_testkit.cluster.kubelet.pod import annotation
from hami_testkit.cluster.plugins.handshake import Handshake
from hami_testkit.cluster.plugins.plugin import DevicePlugin, PluginRefusedError, files, one_at_a_time
from hami_testkit.cluster.status import Json

GCU, DRS = "enflame.com/gcu", "enflame.com/drs-gcu"
CAPACITY = "enflame.com/gcu-drs-capacity"
CONTAINERS = "assigned-containers"
ASSIGNED, ASSIGNED_TIME = "enflame.com/gcu-assigned", "enflame.com/gcu-assigned-time"
MINOR = "enflame.com/gcu-assigned-minor"
PROFILES = {"1g.6gb": "0", "3g.20gb": "1", "6g.40gb": "2"}
"""Ids by name; the card has six slices."""


def gcu_plugin(api: ApiClient, node: str, cards: int) -> DevicePlugin:
    """Return the plugin of one node whose cards are given whole."""
    return DevicePlugin(GCU, map(str, range(cards)), socket="gcu.sock", allocate=_whole)


class DrsPlugin:
    """The plugin of one node whose cards are cut into shares."""

    def __init__(
        self, api: ApiClient, node: str, cards: int, *, slices: int = 6, profiles: Mapping[str, str] | None = None
    ) -> None:
        self._handshake = Handshake(api, node)
        self._made = 0
        self._devices = [{"index": str(at), "minor": str(at), "capacity": slices} for at in range(cards)]
        self._profiles = PROFILES if profiles is None else profiles
        ids = [f"{at}-{part}" for at in range(cards) for part in range(slices)]
        self._plugin = DevicePlugin(DRS, ids, socket="drs-gcu.sock", allocate=one_at_a_time(self._allocate))

    @asynccontextmanager
    async def running(self, folder: Path) -> AsyncIterator["DrsPlugin"]:
        """Publish the cards and serve for the length of a block."""
        published = json.dumps({"devices": self._devices, "profiles": self._profiles}, separators=(",", ":"))
        await self._handshake.publish({CAPACITY: published})
        async with self._plugin.running(folder):
            yield self

    async def _allocate(self, ids: list[str]) -> dp.ContainerAllocateResponse:
        pod, name, told = await self._waiting(len(ids))
        self._made += 1
        told[name] |= {"allocated": True, "instanceID": str(self._made), "instanceUUID": f"drs-{self._made}"}
        is_done = all(each["allocated"] for each in told.values())
        await self._handshake.annotate(pod, {CONTAINERS: json.dumps(told), ASSIGNED: str(is_done).lower()})
        return files([f"/dev/gcu{annotation(pod, MINOR)}", f"/dev/gcu-drs{self._made}"])

    async def _waiting(self, slices: int) -> tuple[Json, str, Json]:
        """Return the pod, its container, and what stands in its annotation of all its containers."""
        pods = [pod for pod in await self._handshake.pods(phase="Pending") if annotation(pod, ASSIGNED) == "false"]
        for pod in sorted(pods, key=lambda each: int(annotation(each, ASSIGNED_TIME) or 0)):
            told = json.loads(annotation(pod, CONTAINERS) or "{}")
            for name, each in told.items():
                if each["request"] == slices and not each["allocated"]:
                    return pod, name, told
        raise PluginRefusedError(f"no pod on node {self._handshake.node} waits for {slices} slices")


async def _whole(ids: list[str]) -> dp.ContainerAllocateResponse:
    return files(f"/dev/gcu{number}" for number in ids)
