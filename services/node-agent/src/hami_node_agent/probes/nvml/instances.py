"""A card's MIG instances, by nvidia-ml-py: looked at, made, destroyed. Plain calls that may block, or never return.

One rule: what a call here began and could not end, it takes back; whatever fails leaves as ``DriverTrouble``. An
instance has one compute instance of its full size, sharing the engines (HAMi compat).
"""

import ctypes
import logging
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pynvml as nv
from hami_model.device import Placement
from msgspec import Struct

from hami_node_agent.probes.nvml.calls import or_none
from hami_node_agent.probes.nvml.driver import DriverTrouble, Unfinished, trouble_of
from hami_node_agent.probes.nvml.mig_devices import ABSENT, devices, processes, processes_on
from hami_node_agent.probes.nvml.profiles import Profile, means, named, profiles

log = logging.getLogger(__name__)


_WHY = {
    nv.NVML_ERROR_INSUFFICIENT_RESOURCES: "the card has no room there: somebody else has made an instance",
    nv.NVML_ERROR_NO_PERMISSION: "the agent may not change the card: run it privileged",
    nv.NVML_ERROR_IN_USE: "the card, or the instance, is in use by somebody else",
}


class Instance(Struct, frozen=True, kw_only=True):
    """A GPU instance as the card has it, with its compute instances and what containers are given: id -> MIG uuid."""

    card: str
    id: int
    profile: str
    """The driver's name of it."""
    placement: Placement
    computes: dict[int, str] = {}

    def is_a(self, profile: str, placement: Placement) -> bool:
        """Say whether it is what a name of the allowlist means, at this place."""
        return self.placement == placement and means(profile, self.profile)


class Survey(Struct, frozen=True, kw_only=True):
    """One card: whether MIG is on, and will be after a reset; its instances; who computes on it, None = not known."""

    is_on: bool
    will_be_on: bool
    instances: tuple[Instance, ...] = ()
    processes: frozenset[int] | None = frozenset()


class Scalpel:
    """Cuts cards. The library must be loaded already, from where whoever looks at the cards found it."""

    def survey(self, card: str) -> Survey:
        """Look at a card."""
        with _Open():
            handle = _handle(card)
            now, then = nv.nvmlDeviceGetMigMode(handle)
            return Survey(
                is_on=now == nv.NVML_DEVICE_MIG_ENABLE,
                will_be_on=then == nv.NVML_DEVICE_MIG_ENABLE,
                instances=tuple(_instances(card, handle)) if now == nv.NVML_DEVICE_MIG_ENABLE else (),
                processes=processes(handle),
            )

    def turn_on(self, card: str) -> None:
        """Turn MIG on; raise ``DriverTrouble`` where that takes more than a call."""
        with _Open():
            handle = _handle(card)
            nv.nvmlDeviceSetMigMode(handle, nv.NVML_DEVICE_MIG_ENABLE)
            now, _ = nv.nvmlDeviceGetMigMode(handle)
        if now != nv.NVML_DEVICE_MIG_ENABLE:
            raise DriverTrouble("MIG is turned on only by a reset: run nvidia-smi --gpu-reset, or reboot the node")

    def make(self, card: str, profile: str, placement: Placement, *, adopts: bool) -> Instance:
        """Make an instance at exactly this place; ``adopts``: one that is there already is taken, and completed.

        Raise ``Unfinished`` where what was begun could not be taken back.
        """
        with _Open():
            handle = _handle(card)
            found = named(profile, profiles(handle))
            if found is None:
                raise DriverTrouble(f"the card has no profile {profile}")
            there = (i for i in _instances(card, handle) if i.is_a(profile, placement)) if adopts else iter(())
            left = next(there, None)
            if left is not None:
                instance = nv.nvmlDeviceGetGpuInstanceById(handle, left.id)
            else:
                place = nv.c_nvmlGpuInstancePlacement_t(placement.start, placement.size)
                instance = nv.nvmlDeviceCreateGpuInstanceWithPlacement(handle, found.id, ctypes.byref(place))
            try:
                return _completed(card, handle, instance, found)
            except (nv.NVMLError, DriverTrouble) as e:
                _take_back(handle, instance, e)
                raise

    def destroy(self, card: str, profile: str, placement: Placement, *, uuid: str = "") -> None:
        """Destroy the instance at this place, its compute instances first; raise ``DriverTrouble`` while it is used.

        Nothing there, or one that is called otherwise, is nothing to do; so is a card that is not there any more.
        """
        with _Open():
            found = _at(card, profile, placement)
            if found is None or (uuid and found.computes and uuid not in found.computes.values()):
                return
            handle = _handle(card)
            using = processes_on(handle, found.id)
            if using is None or using:
                who = f"process {', '.join(map(str, sorted(using)))} is" if using else "nobody can say who is"
                raise DriverTrouble(f"{who} on it")
            _remove(handle, found.id)


class _Open:
    """Holds the driver open for a block, also where whoever looks at the cards lets go of it; translates its errors."""

    def __enter__(self) -> None:
        try:
            nv.nvmlInitWithFlags(0)
        except nv.NVMLError as e:
            raise trouble_of(e) from e

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        with suppress(nv.NVMLError):
            nv.nvmlShutdown()
        if isinstance(error, nv.NVMLError):
            why = _WHY.get(error.value)
            raise (DriverTrouble(why) if why else trouble_of(error)) from error


def _handle(card: str) -> Any:
    return nv.nvmlDeviceGetHandleByUUID(card)


def _at(card: str, profile: str, placement: Placement) -> Instance | None:
    try:
        return next((i for i in _instances(card, _handle(card)) if i.is_a(profile, placement)), None)
    except nv.NVMLError as e:
        if e.value in ABSENT:  # the card, or MIG on it
            return None
        raise


def _take_back(handle: Any, instance: Any, why: Exception) -> None:
    try:
        _remove(handle, nv.nvmlGpuInstanceGetInfo(instance).id)
    except nv.NVMLError as e:
        raise Unfinished(f"{why}; what was begun is left on the card ({e})") from why


def _completed(card: str, handle: Any, instance: Any, profile: Profile) -> Instance:
    """Give an instance its compute instance, unless it has one; return it with its MIG uuid."""
    info = nv.nvmlGpuInstanceGetInfo(instance)
    made = dict(devices(handle)).get(info.id, {})
    if not made:
        nv.nvmlGpuInstanceCreateComputeInstance(instance, _full_size(instance, profile.slices))
        made = dict(devices(handle)).get(info.id, {})
    if len(made) != 1:
        raise DriverTrouble(f"GPU instance {info.id} has {len(made)} MIG devices where one is expected")
    place = Placement(info.placement.start, info.placement.size)
    return Instance(card=card, id=info.id, profile=profile.name, placement=place, computes=made)


def _full_size(instance: Any, slices: int) -> int:
    """Return the id of the compute profile that takes all of a GPU instance."""
    shared = nv.NVML_COMPUTE_INSTANCE_ENGINE_PROFILE_SHARED
    for number in range(nv.NVML_COMPUTE_INSTANCE_PROFILE_COUNT):
        info = or_none(nv.nvmlGpuInstanceGetComputeInstanceProfileInfo, instance, number, shared, 1)
        if info is not None and info.sliceCount == slices:
            return int(info.id)
    raise DriverTrouble(f"no compute instance of {slices} slices can be made")


def _remove(handle: Any, gpu_instance: int) -> None:
    instance = nv.nvmlDeviceGetGpuInstanceById(handle, gpu_instance)
    for compute in dict(devices(handle)).get(gpu_instance, {}):
        nv.nvmlComputeInstanceDestroy(nv.nvmlGpuInstanceGetComputeInstanceById(instance, compute))
    nv.nvmlGpuInstanceDestroy(instance)


def _instances(card: str, handle: Any) -> Iterator[Instance]:
    made = dict(devices(handle))
    for profile in profiles(handle):
        found = (nv.c_nvmlGpuInstance_t * max(profile.instances, 1))()
        count = ctypes.c_uint(len(found))
        nv.nvmlDeviceGetGpuInstances(handle, profile.id, found, ctypes.byref(count))
        for instance in found[: count.value]:
            info = nv.nvmlGpuInstanceGetInfo(instance)
            place = Placement(info.placement.start, info.placement.size)
            yield Instance(card=card, id=info.id, profile=profile.name, placement=place, computes=made.get(info.id, {}))
