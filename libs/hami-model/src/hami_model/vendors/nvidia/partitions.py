"""Cards cut with MIG: the instances that a card can be cut into, and the annotation that says which a pod has.

One rule: small instances before large ones; ``1g`` and ``3g`` from the card's end, all others from its beginning (spec
vendors-a 12.7).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct, field, structs

from hami_model.allocation import Allocation, Cut, MadeInstance
from hami_model.checks import CHECKS, Check, part_free
from hami_model.cutting import Part, Parts, is_possible
from hami_model.device import Device, MigProfile, Placement
from hami_model.errors import MalformedAllocation
from hami_model.objects import Pod
from hami_model.reason import Reason
from hami_model.vendor import Vendor

MIG = "mig"
KEY = "hami.io/vgpu-mig-allocations"
FROM_THE_END = ("1g.", "3g.")

WITH_PARTITIONS = (*CHECKS, Check(Reason.MIG_INFEASIBLE, part_free))
"""HAMi's order: whether an instance is left is asked last."""


class Reservation(Struct, frozen=True, kw_only=True, rename="camel"):
    """One entry of the annotation, as far as the scheduler writes it."""

    container_index: int
    device_index: int
    gpu: str = field(name="gpuUUID")
    profile: str
    placement: Placement


class _Made(Reservation, frozen=True, kw_only=True, rename="camel"):
    """The same with what the device plugin adds once the instance is made: all three or none."""

    mig: str | None = field(name="migUUID", default=None)
    gpu_instance: int | None = field(name="gpuInstanceID", default=None)
    compute_instance: int | None = field(name="computeInstanceID", default=None)


def parts(device: Device) -> Parts | None:
    """Return the instances of a card in MIG mode, those that HAMi prefers first; None for any other card."""
    if device.mode != MIG:
        return None
    profiles = sorted(device.mig_profiles, key=lambda profile: (profile.memory, profile.slices))
    return tuple(
        Part(cut=Cut(profile=profile.name, placement=placement), memory=profile.memory, cores=profile.cores)
        for profile in profiles
        for placement in _preferred(profile)
        if is_possible(placement)
    )


def _preferred(profile: MigProfile) -> list[Placement]:
    return sorted(profile.placements, key=lambda p: p.start, reverse=profile.name.startswith(FROM_THE_END))


def written(vendor: Vendor, allocation: Allocation, pod: Pod) -> dict[str, str]:
    """Return the annotation for the instances of an allocation; none without instances."""
    found: list[dict[str, Any]] = [
        msgspec.to_builtins(
            Reservation(
                container_index=at, device_index=place, gpu=grant.uuid, profile=cut.profile, placement=cut.placement
            )
        )
        for at, container in enumerate(allocation.containers)
        for place, grant in enumerate(g for g in container.grants if g.vendor == vendor.word)
        for cut in grant.cuts
    ]
    return {KEY: msgspec.json.encode(found).decode()} if found else {}


def reserved(vendor: Vendor, pod: Pod) -> tuple[tuple[str, Cut], ...]:
    """Read the instances that a pod has reserved, in the order of containers; raise ``MalformedAllocation``."""
    text = pod.annotations.get(KEY)
    if not text:
        return ()
    try:
        entries = msgspec.json.decode(text, type=list[_Made])
    except (msgspec.DecodeError, RecursionError) as error:  # the latter: nested without end
        raise MalformedAllocation(f"{KEY} cannot be read: {error}") from error
    ordered = sorted(entries, key=lambda entry: (entry.container_index, entry.device_index))
    places: set[tuple[int, int]] = set()
    for entry in ordered:
        _check(entry, places)
    return tuple((e.gpu, Cut(profile=e.profile, placement=e.placement)) for e in ordered)


def completed(vendor: Vendor, allocation: Allocation, pod: Pod, made: Sequence[MadeInstance]) -> dict[str, str]:
    """Return the annotation with the identity of the instances that were made; none where the pod says all that.

    One that the pod does not show, or that cannot be read, is written anew from the allocation.
    """
    by_place = {(instance.container, instance.place, instance.device): instance for instance in made}
    text = pod.annotations.get(KEY, "")
    try:
        entries = msgspec.json.decode(text, type=list[_Made])
    except (msgspec.DecodeError, RecursionError):
        entries = msgspec.json.decode(written(vendor, allocation, pod).get(KEY, "[]"), type=list[_Made])
    names = [container.name for container in allocation.containers]
    found = [_identified(entry, names, by_place) for entry in entries]
    return {} if found == entries else {KEY: msgspec.json.encode([_raw(entry) for entry in found]).decode()}


def _identified(entry: _Made, names: Sequence[str], made: Mapping[tuple[str, int, str], MadeInstance]) -> _Made:
    name = names[entry.container_index] if 0 <= entry.container_index < len(names) else ""
    instance = made.get((name, entry.device_index, entry.gpu))
    if instance is None:
        return entry
    return structs.replace(
        entry, mig=instance.uuid, gpu_instance=instance.gpu_instance, compute_instance=instance.compute_instance
    )


def _raw(entry: _Made) -> dict[str, Any]:
    """Return an entry as the device plugin writes it: of one that is not made, without identity."""
    return {key: value for key, value in msgspec.to_builtins(entry).items() if value is not None}


def _check(entry: _Made, places: set[tuple[int, int]]) -> None:
    place = entry.container_index, entry.device_index
    identity = (entry.mig, entry.gpu_instance, entry.compute_instance)
    if min(place) < 0 or place in places:
        raise MalformedAllocation(f"{KEY} names device {place[1]} of container {place[0]}, which is negative or twice")
    if not entry.gpu or not entry.profile or entry.placement.size <= 0 or entry.placement.start < 0:
        raise MalformedAllocation(f"{KEY} has an entry without gpuUUID, profile or a placement of any size")
    if len({part is None for part in identity}) != 1:
        raise MalformedAllocation(
            f"{KEY} of {entry.gpu} has some of migUUID, gpuInstanceID, computeInstanceID, not all"
        )
    places.add(place)
