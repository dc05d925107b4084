"""What containers were given by device plugins, kept for people and tests to read.

One rule: it is what a container runtime would have been told: of the environment, the pod's own words win.
"""

import json
from collections.abc import Iterable
from pathlib import Path

import msgspec
from hami_kit.kubelet import deviceplugin_v1beta1_pb2 as dp
from msgspec import Struct

from hami_testkit.cluster.kubelet.pod import own_env, uid_of
from hami_testkit.cluster.status import Json


class Mount(Struct, frozen=True):
    """A folder or file of the node inside the container."""

    container: str
    host: str
    read_only: bool = False


class DeviceNode(Struct, frozen=True):
    """A device node of the node inside the container."""

    container: str
    host: str
    permissions: str


class Given(Struct, frozen=True, kw_only=True):
    """One container: its environment, and what plugins added to it. ``ids`` are the device IDs by resource."""

    namespace: str
    pod: str
    uid: str
    container: str
    envs: dict[str, str]
    env: dict[str, str]
    """``envs`` of the plugins under the environment of the pod's spec, which wins."""
    mounts: tuple[Mount, ...] = ()
    devices: tuple[DeviceNode, ...] = ()
    annotations: dict[str, str] = {}
    cdi_devices: tuple[str, ...] = ()
    ids: dict[str, list[str]] = {}


def given(
    pod: Json, container: Json, responses: Iterable[dp.ContainerAllocateResponse], ids: dict[str, frozenset[str]]
) -> Given:
    """Return what the plugins' answers amount to for one container."""
    envs: dict[str, str] = {}
    notes: dict[str, str] = {}
    mounts: list[Mount] = []
    devices: list[DeviceNode] = []
    cdi: list[str] = []
    for response in responses:
        envs |= response.envs
        notes |= response.annotations
        mounts += [Mount(m.container_path, m.host_path, m.read_only) for m in response.mounts]
        devices += [DeviceNode(d.container_path, d.host_path, d.permissions) for d in response.devices]
        cdi += [d.name for d in response.cdi_devices]
    return Given(
        namespace=pod["metadata"]["namespace"], pod=pod["metadata"]["name"], uid=uid_of(pod),
        container=container["name"], envs=envs, env={**envs, **own_env(container)}, mounts=tuple(mounts),
        devices=tuple(devices), annotations=notes, cdi_devices=tuple(cdi),
        ids={resource: sorted(of_it) for resource, of_it in ids.items()},
    )  # fmt: skip


class Gifts:
    """Every container's, in memory and as ``<folder>/<pod uid>_<container>.json``; the file goes with the pod."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._by_name: dict[tuple[str, str, str], Given] = {}
        folder.mkdir(parents=True, exist_ok=True)

    def keep(self, gift: Given) -> None:
        """Keep what a container was given."""
        self._by_name[gift.namespace, gift.pod, gift.container] = gift
        text = json.dumps(msgspec.to_builtins(gift), indent=1)
        (self._folder / f"{gift.uid}_{gift.container}.json").write_text(text)

    def find(self, namespace: str, pod: str, container: str) -> Given | None:
        """Return what a container was given; None before it has started."""
        return self._by_name.get((namespace, pod, container))

    def forget(self, uid: str) -> None:
        """Forget a pod that is gone from the API server."""
        for key in [key for key, gift in self._by_name.items() if gift.uid == uid]:
            del self._by_name[key]
        for file in self._folder.glob(f"{uid}_*.json"):
            file.unlink(missing_ok=True)
