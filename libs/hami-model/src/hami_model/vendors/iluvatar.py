"""Iluvatar GPUs: one vendor per chip, shared by the vendor's own gpu-manager.

One rule: several cards are given with all their cores, which admission writes down. Memory counts 256 MiB units.
"""

from collections.abc import Iterator, Sequence
from functools import partial

from hami_model import limits, register, selectors, sliced
from hami_model.config import Names
from hami_model.keys import is_served
from hami_model.objects import Container, Pod
from hami_model.units import canonical
from hami_model.vendor import MUTEX_LOCK, Admitted, AnnotationKeys, Change, Form, ResourceNames, Selectors, Vendor

UNIT = 256
MANY_UNITS = 1024
"""256 GiB, far beyond any card of these chips: a larger number was meant as MiB."""
NAME_ENV = "SOL_CONTINER_NAME"
"""Spelled as gpu-manager reads it."""


def vendors(config: Sequence[Names]) -> tuple[Vendor, ...]:
    """Describe every chip of the device config."""
    return tuple(_vendor(chip) for chip in config)


def _vendor(chip: Names) -> Vendor:
    word = chip.common_word
    return Vendor(
        word=word,
        resources=ResourceNames(
            count=chip.resource_count_name,
            memory=chip.resource_memory_name,
            cores=chip.resource_core_name,
            memory_factor=UNIT,
        ),
        keys=AnnotationKeys(
            register=f"hami.io/node-{word}-register",
            handshake=f"hami.io/node-handshake-{word}",
            to_allocate=f"hami.io/{word}-devices-to-allocate",
            allocated=f"hami.io/{word}-devices-allocated",
        ),
        form=Form.TEXT,
        selectors=Selectors(use_uuid=f"hami.io/use-{word}-uuid", nouse_uuid=f"hami.io/no-use-{word}-uuid"),
        lock=MUTEX_LOCK,
        settings=chip,
        demand=partial(sliced.demand, cores=0),
        admit=_admit,
        discover=register.discover,
        constraints=selectors.constraints,
        confirmed=is_served,
    )


def _admit(vendor: Vendor, container: Container, pod: Pod) -> Admitted:
    if limits.limit(container, vendor.resources.count) is None:
        return Admitted(mine=False)
    changes = (*_all_cores(vendor, container), *_named(container))
    return Admitted(mine=True, changes=changes, warnings=tuple(_unit_mistaken(vendor, container)))


def _all_cores(vendor: Vendor, container: Container) -> Iterator[Change]:
    """Several cards are asked for with all their cores, in the limits and in requests that name any (spec ILU-1)."""
    name = vendor.resources.cores
    count = limits.count(container, vendor.resources.count) or 0
    if count <= 1 or not name:
        return
    cores = canonical(100 * count)
    yield Change(container=container.name, limit=(name, cores))
    if container.resources and name in (container.resources.requests or {}):
        yield Change(container=container.name, request=(name, cores))


def _named(container: Container) -> Iterator[Change]:
    if container.name and all(entry.name != NAME_ENV for entry in container.env or ()):
        yield Change(container=container.name, env=(NAME_ENV, container.name))


def _unit_mistaken(vendor: Vendor, container: Container) -> Iterator[str]:
    name = vendor.resources.memory
    units = (limits.memory(container, name, factor=UNIT) or 0) // UNIT
    if units > MANY_UNITS:
        meant = f"for {units} MiB write {-(-units // UNIT)}"
        yield f"{name} {units} in container {container.name} counts units of {UNIT} MiB and fits no card: {meant}"
