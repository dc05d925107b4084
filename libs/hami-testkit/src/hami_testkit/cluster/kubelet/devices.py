"""The kubelet's device manager: which IDs exist, who has them, who gets which.

One rule: it keeps its books as the real one does, with its habits: an ID is in use from before Allocate is called, and
the table of used IDs is rebuilt from *finished* Allocates whenever a pod with devices has ended since (measured on kubelet
1.34). That is why ``List`` inside ``Allocate`` can give one ID twice, here as there.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

from msgspec import Struct

CHECKPOINT = "kubelet_internal_checkpoint"
Response = dict[str, Any]
"""What a container was given: envs, mounts, devices, annotations."""


class AdmissionError(Exception):
    """The pod cannot be admitted; terminal for it."""


class Endpoint(Protocol):
    """A device plugin as the device manager calls it."""

    @property
    def prefers(self) -> bool:
        """Say whether GetPreferredAllocation is to be asked."""
        ...

    @property
    def alive(self) -> bool:
        """Say whether the plugin still streams its devices."""
        ...

    async def preferred(self, available: list[str], must: list[str], size: int) -> list[str]:
        """Ask which IDs the plugin would rather give."""
        ...

    async def allocate(self, ids: list[str]) -> Response:
        """Ask for the IDs; raise ``AdmissionError`` with the plugin's own words."""
        ...


class Held(Struct):
    """The IDs of one resource that a container has, and what the plugin answered for them."""

    ids: list[str]
    response: Response


class DeviceManager:
    """The books of one node."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / CHECKPOINT
        self._endpoints: dict[str, Endpoint] = {}
        self._devices: dict[str, dict[str, bool]] = {}
        self._held: dict[str, dict[str, dict[str, Held]]] = {}
        self._in_use: dict[str, set[str]] = {}
        self._reusable: dict[str, dict[str, set[str]]] = {}
        self._load()

    # What plugins say

    def attach(self, resource: str, endpoint: Endpoint) -> None:
        """Take a plugin that has registered."""
        self._endpoints[resource] = endpoint

    def set_devices(self, resource: str, devices: Mapping[str, bool]) -> None:
        """Take a plugin's whole list: ID -> healthy."""
        self._devices[resource] = dict(devices)

    def status(self) -> dict[str, tuple[int, int]]:
        """Return (capacity, allocatable) by resource; a dead plugin leaves capacity and takes allocatable to 0."""
        return {
            resource: (len(devices), sum(devices.values()) if self._is_alive(resource) else 0)
            for resource, devices in self._devices.items()
        }

    def _is_alive(self, resource: str) -> bool:
        endpoint = self._endpoints.get(resource)
        return endpoint is not None and endpoint.alive

    def manages(self, resource: str) -> bool:
        """Say whether a plugin has ever served the resource here."""
        return resource in self._devices

    # Giving

    async def allocate(self, pod: str, container: str, wanted: Mapping[str, int], *, keeps: bool) -> Response:
        """Give a container its devices; ``keeps``: it is no ordinary init container, whose IDs others reuse."""
        given: Response = {"envs": {}, "mounts": [], "devices": [], "annotations": {}}
        for resource, count in wanted.items():
            if not self.manages(resource) or not count:
                continue
            held = self._held.get(pod, {}).get(container, {}).get(resource)
            if held is None:
                held = await self._give(pod, container, resource, count, keeps=keeps)
            for key in ("mounts", "devices"):
                given[key] += held.response[key]
            for key in ("envs", "annotations"):
                given[key] |= held.response[key]
        return given

    async def _give(self, pod: str, container: str, resource: str, count: int, *, keeps: bool) -> Held:
        endpoint = self._endpoints.get(resource)
        if endpoint is None or not endpoint.alive:
            raise AdmissionError(
                f"Allocate failed due to no healthy devices present; cannot allocate unhealthy devices {resource}"
            )
        ids = await self._choose(pod, resource, count, endpoint)
        response = await endpoint.allocate(ids)
        held = Held(ids, response)
        self._held.setdefault(pod, {}).setdefault(container, {})[resource] = held
        reusable = self._reusable.setdefault(pod, {}).setdefault(resource, set())
        if keeps:
            reusable.difference_update(ids)
        else:
            reusable.update(ids)
        self._save()
        return held

    async def _choose(self, pod: str, resource: str, count: int, endpoint: Endpoint) -> list[str]:
        in_use = self._in_use.setdefault(resource, set())
        reusable = sorted(self._reusable.get(pod, {}).get(resource, ()))[:count]
        if len(reusable) == count:
            return reusable
        free = sorted(i for i, healthy in self._devices[resource].items() if healthy and i not in in_use)
        if len(free) < count - len(reusable):
            raise AdmissionError(
                f"Allocate failed due to requested number of devices unavailable for {resource}. "
                f"Requested: {count}, Available: {len(free)}"
            )
        chosen = list(reusable)
        if endpoint.prefers:
            preferred = await endpoint.preferred(sorted({*free, *reusable}), reusable, count)
            chosen += [i for i in dict.fromkeys(preferred) if i in free][: count - len(chosen)]
        # what the plugin left open is anybody's: deliberately not the ones next in order
        chosen += [i for i in reversed(free) if i not in chosen][: count - len(chosen)]
        in_use.update(chosen)
        return chosen

    # Taking back

    def forget_ended(self, active: Iterable[str]) -> None:
        """Drop pods that are not active; if one with devices went, rebuild the table from finished Allocates."""
        keep = set(active)
        gone = [pod for pod in self._held if pod not in keep]
        for pod in gone:
            del self._held[pod]
            self._reusable.pop(pod, None)
        if gone:
            self._rebuild()

    def _rebuild(self) -> None:
        self._in_use = {}
        for containers in self._held.values():
            for resources in containers.values():
                for resource, held in resources.items():
                    self._in_use.setdefault(resource, set()).update(held.ids)

    # What others read

    def of_container(self, pod: str, container: str) -> dict[str, list[str]]:
        """Return the IDs a container has, by resource; only after Allocate has returned."""
        return {resource: held.ids for resource, held in self._held.get(pod, {}).get(container, {}).items()}

    def healthy(self) -> dict[str, list[str]]:
        """Return all healthy IDs by resource."""
        return {resource: sorted(i for i, ok in devices.items() if ok) for resource, devices in self._devices.items()}

    # The checkpoint

    def _save(self) -> None:
        entries = [
            {
                "PodUID": pod,
                "ContainerName": container,
                "ResourceName": resource,
                "DeviceIDs": {"-1": held.ids},
                "AllocResp": held.response,
            }
            for pod, containers in self._held.items()
            for container, resources in containers.items()
            for resource, held in resources.items()
        ]
        registered = {resource: sorted(devices) for resource, devices in self._devices.items()}
        data = {"Data": {"PodDeviceEntries": entries, "RegisteredDevices": registered}, "Checksum": 0}
        part = self._file.with_suffix(".part")
        part.write_text(json.dumps(data))
        part.replace(self._file)

    def _load(self) -> None:
        if not self._file.exists():
            return
        data = json.loads(self._file.read_text())["Data"]
        for entry in data["PodDeviceEntries"]:
            ids = [i for part in entry["DeviceIDs"].values() for i in part]
            container = self._held.setdefault(entry["PodUID"], {}).setdefault(entry["ContainerName"], {})
            container[entry["ResourceName"]] = Held(ids, entry["AllocResp"])
        self._devices = {resource: {} for resource in data["RegisteredDevices"]}
        self._rebuild()
