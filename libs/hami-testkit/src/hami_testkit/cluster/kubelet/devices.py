"""The kubelet's device manager: which IDs exist, who has them, who gets which.

One rule: it keeps its books as the real one does, with its habits: an ID is in use from before Allocate is called, and
the table of used IDs is rebuilt from *finished* Allocates whenever a pod with devices has ended since. That is why
``List`` inside ``Allocate`` can give one ID to two pods, here as there. NUMA alignment (topology manager policies other
than ``none``) is not modelled.
"""

import random
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Protocol

from hami_kit.kubelet import deviceplugin_v1beta1_pb2 as dp
from msgspec import Struct

from hami_testkit.cluster.kubelet import checkpoint
from hami_testkit.cluster.kubelet.checkpoint import Held
from hami_testkit.cluster.kubelet.pod import Role, wanted
from hami_testkit.cluster.status import Json

HEALTHY = "Healthy"
NO_NUMA = -1


class AllocateFailed(Exception):
    """A container cannot get its devices; terminal for its pod. The text is what follows "Allocate failed due to"."""


class Endpoint(Protocol):
    """A device plugin as the device manager calls it; calls raise ``AllocateFailed`` with the plugin's own words."""

    @property
    def prefers(self) -> bool:
        """Say whether GetPreferredAllocation is to be asked."""
        ...

    async def preferred(self, available: Collection[str], must: Collection[str], size: int) -> list[str]:
        """Ask which IDs the plugin would rather give."""
        ...

    async def allocate(self, ids: Collection[str]) -> list[dp.ContainerAllocateResponse]:
        """Ask for the IDs; there is no deadline."""
        ...


class Device(Struct, frozen=True):
    """An ID as the plugin lists it."""

    healthy: bool
    numa: int = NO_NUMA


class DeviceManager:
    """The books of one node. ``active`` names the pods that are not over, the one in admission among them."""

    def __init__(self, folder: Path, *, active: Callable[[], Collection[str]], seed: int = 0) -> None:
        self._folder = folder
        self._active = active
        self._order = random.Random(seed)  # noqa: S311 - nothing here is secret
        self._endpoints: dict[str, Endpoint] = {}
        self._devices: dict[str, dict[str, Device]] = {}
        self._in_use: dict[str, set[str]] = {}
        self._reusable: tuple[str, dict[str, set[str]]] = ("", {})
        held, registered = checkpoint.load(folder)
        self._held: dict[str, dict[tuple[str, str], Held]] = {}
        for entry in held:
            self._keep(entry)
        self._devices |= {resource: {} for resource in registered}
        self._rebuild()

    # What plugins say

    def attach(self, resource: str, endpoint: Endpoint) -> Endpoint | None:
        """Take a plugin that has registered; return the one that it replaces."""
        old = self._endpoints.get(resource)
        self._endpoints[resource] = endpoint
        self._devices.setdefault(resource, {})
        return old

    def serves(self, resource: str, endpoint: Endpoint) -> bool:
        """Say whether this is the plugin that serves the resource now."""
        return self._endpoints.get(resource) is endpoint

    def set_devices(self, resource: str, devices: Mapping[str, Device]) -> None:
        """Take a plugin's whole list."""
        self._devices[resource] = dict(devices)
        self._save()

    def detach(self, resource: str) -> None:
        """Count a dead plugin's devices as unhealthy: capacity stays, allocatable is 0."""
        self._devices[resource] = {i: Device(healthy=False, numa=d.numa) for i, d in self._devices[resource].items()}

    def drop(self, resource: str) -> None:
        """Forget the devices of a plugin that has been dead for too long."""
        self._devices[resource] = {}

    def counts(self) -> dict[str, tuple[int, int]]:
        """Return capacity and allocatable by resource."""
        return {
            resource: (len(devices), sum(d.healthy for d in devices.values()))
            for resource, devices in self._devices.items()
        }

    # Giving

    async def allocate(self, pod: str, container: Json, role: Role) -> None:
        """Give a container its devices; a container that has them already keeps them without asking the plugin."""
        if self._reusable[0] != pod:
            self._reusable = (pod, {})
        recounted = False
        for resource, count in wanted(container).items():
            if resource not in self._devices or not count:
                continue  # nobody ever served it here: to the kubelet, a name without meaning
            if not recounted:
                self.recount()
                recounted = True
            await self._give(pod, container["name"], resource, count)
        self._hand_on(pod, container["name"], role)

    def _hand_on(self, pod: str, container: str, role: Role) -> None:
        """Let later containers have what an ordinary init container held, and nobody what runs on."""
        for resource, ids in self.of_container(pod, container).items():
            reusable = self._reusable[1].setdefault(resource, set())
            if role is Role.INIT:
                reusable |= ids
            else:
                reusable -= ids

    async def _give(self, pod: str, container: str, resource: str, count: int) -> None:
        held = self._held.get(pod, {}).get((container, resource))
        if held is not None:
            if len(held.ids) != count:
                change = f"from {len(held.ids)} to {count}"
                raise AllocateFailed(
                    f'pod "{pod}" container "{container}" changed request for resource "{resource}" {change}'
                )
            return
        ids = await self._choose(resource, count)
        try:
            responses = await self._endpoints[resource].allocate(ids)
        except AllocateFailed:
            self._rebuild()
            raise
        if not responses:  # the IDs stay in use until the next recount: a leak of the real kubelet
            raise AllocateFailed(
                "no containers return in allocation response &AllocateResponse{ContainerResponses:[],}"
            )
        by_numa = self._by_numa(resource, ids)
        self._keep(Held(pod=pod, container=container, resource=resource, by_numa=by_numa, response=responses[0]))
        self._save()

    def _keep(self, held: Held) -> None:
        self._held.setdefault(held.pod, {})[held.container, held.resource] = held

    async def _choose(self, resource: str, count: int) -> set[str]:
        chosen: set[str] = set()
        self._take(resource, count, chosen, self._reusable[1].get(resource, ()))
        if len(chosen) == count:
            return chosen
        healthy = {i for i, device in self._devices[resource].items() if device.healthy}
        if not healthy or resource not in self._endpoints:
            raise AllocateFailed(f"no healthy devices present; cannot allocate unhealthy devices {resource}")
        free = healthy - self._in_use.get(resource, set())
        if len(free) < count - len(chosen):
            asked = f"Requested: {count - len(chosen)}, Available: {len(free)}"
            raise AllocateFailed(f"requested number of devices unavailable for {resource}. {asked}")
        endpoint = self._endpoints[resource]
        if endpoint.prefers:
            preferred = await endpoint.preferred(free | chosen, frozenset(chosen), count)
            self._take(resource, count, chosen, free.intersection(preferred))
        self._take(resource, count, chosen, free)
        return chosen

    def _take(self, resource: str, count: int, chosen: set[str], offered: Iterable[str]) -> None:
        """Take as many as are still missing, in an order that nobody may rely on."""
        left = sorted(set(offered) - chosen)
        self._order.shuffle(left)
        taken = left[: count - len(chosen)]
        chosen.update(taken)
        self._in_use.setdefault(resource, set()).update(taken)

    def _by_numa(self, resource: str, ids: Iterable[str]) -> dict[int, tuple[str, ...]]:
        nodes: dict[int, list[str]] = {}
        for i in sorted(ids):
            device = self._devices[resource].get(i)
            nodes.setdefault(device.numa if device else NO_NUMA, []).append(i)
        return {numa: tuple(of_it) for numa, of_it in nodes.items()}

    # Taking back

    def recount(self) -> None:
        """Drop the pods that are over; if one of them held devices, rebuild the table from finished Allocates."""
        active = self._active()
        gone = [pod for pod in self._held if pod not in active]
        for pod in gone:
            del self._held[pod]
        if gone:
            self._rebuild()

    def _rebuild(self) -> None:
        self._in_use = {}
        for held in self._all():
            self._in_use.setdefault(held.resource, set()).update(held.ids)

    # What others read

    def of_container(self, pod: str, container: str) -> dict[str, frozenset[str]]:
        """Return the IDs that a container has, by resource; only after Allocate has returned."""
        return {h.resource: h.ids for h in self._of(pod, container)}

    def responses(self, pod: str, container: str) -> list[dp.ContainerAllocateResponse]:
        """Return what the plugins answered for a container."""
        return [h.response for h in self._of(pod, container)]

    def healthy(self) -> dict[str, list[str]]:
        """Return all healthy IDs by resource."""
        return {r: sorted(i for i, d in devices.items() if d.healthy) for r, devices in self._devices.items()}

    def endpoint(self, resource: str) -> Endpoint | None:
        """Return the plugin that serves the resource."""
        return self._endpoints.get(resource)

    def _of(self, pod: str, container: str) -> list[Held]:
        return [h for (name, _), h in self._held.get(pod, {}).items() if name == container]

    def _all(self) -> Iterator[Held]:
        for entries in self._held.values():
            yield from entries.values()

    def _save(self) -> None:
        checkpoint.save(self._folder, self._all(), self._devices)
