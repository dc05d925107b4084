"""The kubelet's checkpoint of device IDs: a JSON file that survives its restarts."""

import base64
import json
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from hami_kit.kubelet import deviceplugin_v1beta1_pb2 as dp
from msgspec import Struct

NAME = "kubelet_internal_checkpoint"


class Held(Struct, frozen=True, kw_only=True):
    """The IDs of one resource that a container has (by NUMA node, -1 = none), and what the plugin answered for them."""

    pod: str
    container: str
    resource: str
    by_numa: Mapping[int, tuple[str, ...]]
    response: dp.ContainerAllocateResponse

    @property
    def ids(self) -> frozenset[str]:
        """Return the IDs."""
        return frozenset(i for ids in self.by_numa.values() for i in ids)


def save(folder: Path, held: Iterable[Held], registered: Mapping[str, Iterable[str]]) -> None:
    """Write the checkpoint, whole or not at all."""
    entries = [
        {
            "PodUID": h.pod,
            "ContainerName": h.container,
            "ResourceName": h.resource,
            "DeviceIDs": {str(numa): list(ids) for numa, ids in h.by_numa.items()},
            "AllocResp": base64.b64encode(h.response.SerializeToString()).decode(),
        }
        for h in held
    ]
    devices = {resource: sorted(ids) for resource, ids in registered.items()}
    data = {"PodDeviceEntries": entries, "RegisteredDevices": devices}
    part = folder / f".{NAME}"
    part.write_text(json.dumps({"Data": data, "Checksum": zlib.crc32(json.dumps(data).encode())}))
    part.replace(folder / NAME)


def load(folder: Path) -> tuple[list[Held], list[str]]:
    """Return what containers held and which resources were registered; nothing where there is no checkpoint."""
    file = folder / NAME
    if not file.exists():
        return [], []
    data: dict[str, Any] = json.loads(file.read_text())["Data"]
    return [_held(entry) for entry in data["PodDeviceEntries"]], list(data["RegisteredDevices"])


def _held(entry: Mapping[str, Any]) -> Held:
    return Held(
        pod=entry["PodUID"],
        container=entry["ContainerName"],
        resource=entry["ResourceName"],
        by_numa={int(numa): tuple(ids) for numa, ids in entry["DeviceIDs"].items()},
        response=dp.ContainerAllocateResponse.FromString(base64.b64decode(entry["AllocResp"])),
    )
