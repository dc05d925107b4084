"""What admission changes in a container that asks for an Ascend chip.

One rule: what is written is in the resource's own unit (``memoryFactor`` MiB), so that it reads back the same.
"""

from collections.abc import Iterator

from hami_model import limits
from hami_model.config import Chip
from hami_model.errors import BadDemand, Denied
from hami_model.objects import Container, Pod
from hami_model.units import canonical, rounded_up
from hami_model.vendor import Admitted, Change, Vendor
from hami_model.vendors.ascend.templates import settings, splits_softly, trim

VISIBLE_ENV = "ASCEND_VISIBLE_DEVICES"
SUPER_POD = "Ascend910C"


def admit(vendor: Vendor, container: Container, pod: Pod) -> Admitted:
    """Say what changes; raise ``Denied``, in HAMi's words, for what no card can be cut into."""
    names, family = vendor.resources, settings(vendor)
    if limits.limit(container, names.count) is None:
        siblings = any(limits.limit(container, name) is not None for name in family.counts)
        hide = family.chip.overwrite_env and not siblings
        return Admitted(mine=False, changes=(Change(container=container.name, env=(VISIBLE_ENV, "")),) if hide else ())
    changes = [*_counted(vendor, container), *_sized(vendor, container, soft=splits_softly(pod))]
    if family.chip.runtime_class_name and not pod.spec.runtime_class_name:
        changes.append(Change(runtime_class=family.chip.runtime_class_name))
    return Admitted(mine=True, changes=tuple(changes))


def _counted(vendor: Vendor, container: Container) -> Iterator[Change]:
    """A 910C module holds two NPUs that leave the factory as one: in a SuperPod an ask for one becomes two."""
    name, chip = vendor.resources.count, settings(vendor).chip
    count = limits.count(container, name) or 0
    if vendor.word != SUPER_POD or count % 2 == 0:
        return
    if count > 1:
        raise Denied(f"{SUPER_POD} device request must be 1 or 2*n, got {count}: write {name} {count + 1}")
    if not chip.super_pod:
        return
    yield Change(container=container.name, limit=(name, "2"))
    if container.resources and name in (container.resources.requests or {}):
        yield Change(container=container.name, request=(name, "2"))


def _sized(vendor: Vendor, container: Container, *, soft: bool) -> Iterator[Change]:
    names, chip = vendor.resources, settings(vendor).chip
    cores = limits.asked(container, names.cores)
    if not soft and cores is not None and (rounded_up(cores) or 0) > 0:
        raise Denied(f"{names.cores} is only supported in hami-core (soft split) mode")
    whole = max(chip.memory_allocatable // names.memory_factor, 1)
    units = _memory(vendor, container, chip, soft=soft, whole=whole)
    # HAMi compat: the count is the one written, before a single 910C becomes two (spec ASC-1).
    if not soft and units != whole and (limits.count(container, names.count) or 0) > 1:
        raise Denied("vNPU not supported for multiple devices")
    if names.memory:
        yield Change(container=container.name, limit=(names.memory, canonical(units)))
        yield Change(container=container.name, request=(names.memory, canonical(units)))


def _memory(vendor: Vendor, container: Container, chip: Chip, *, soft: bool, whole: int) -> int:
    """Return the memory to write, in units of the resource. HAMi compat: a fraction means the next whole unit."""
    names = vendor.resources
    written = limits.limit(container, names.memory)
    if written is None:
        return whole
    value = rounded_up(written)
    if value is not None and _is_invalid(chip, value, factor=names.memory_factor, soft=soft):
        raise Denied(f"{names.memory} {value} is invalid{_way_out(vendor, container, chip)}")
    mib = limits.memory(container, names.memory, factor=names.memory_factor, rounds=True) or 0
    return max((mib if soft else trim(chip, mib).memory) // names.memory_factor, 1)


def _is_invalid(chip: Chip, value: int, *, factor: int, soft: bool) -> bool:
    """Say whether no share of a card can have this size; below 0 a template is refused as unreadable instead."""
    return value <= 0 if soft else value >= 0 and trim(chip, value * factor).memory <= 0


def _way_out(vendor: Vendor, container: Container, chip: Chip) -> str:
    try:
        limits.memory(container, vendor.resources.memory, factor=vendor.resources.memory_factor)
    except BadDemand as error:
        return f": {error}"
    most = chip.memory_allocatable // vendor.resources.memory_factor
    return f": a card of container {container.name} has {most} at most, leave the memory out for a whole one"
