"""Hygon DCUs, shared by the vendor's own plugin.

One rule: who names no cores gets all of them, however little memory is named.
"""

from collections.abc import Iterator
from functools import partial

from hami_model import limits, register, selectors, sliced
from hami_model.config import Names
from hami_model.keys import is_served
from hami_model.objects import Container, Pod
from hami_model.vendor import MUTEX_LOCK, Admitted, AnnotationKeys, Form, ResourceNames, Selectors, Vendor

WORD = "DCU"


def vendor(config: Names) -> Vendor:
    """Describe Hygon under the names of the device config."""
    return Vendor(
        word=WORD,
        resources=ResourceNames(
            count=config.resource_count_name,
            memory=config.resource_memory_name,
            cores=config.resource_core_name,
            memory_factor=max(config.memory_factor, 1),
        ),
        keys=AnnotationKeys(
            register="hami.io/node-dcu-register",
            handshake="hami.io/node-handshake-dcu",
            to_allocate="hami.io/dcu-devices-to-allocate",
            allocated="hami.io/dcu-devices-allocated",
        ),
        form=Form.TEXT,
        selectors=Selectors(
            use_model="hygon.com/use-dcutype",
            nouse_model="hygon.com/nouse-dcutype",
            use_uuid="hygon.com/use-gpuuuid",
            nouse_uuid="hygon.com/nouse-gpuuuid",
        ),
        lock=MUTEX_LOCK,
        settings=config,
        demand=partial(sliced.demand, cores=100),
        admit=_admit,
        discover=register.discover,
        constraints=selectors.constraints,
        confirmed=is_served,
    )


def _admit(vendor: Vendor, container: Container, pod: Pod) -> Admitted:
    mine = limits.limit(container, vendor.resources.count) is not None
    return Admitted(mine=mine, warnings=tuple(_share_of_memory_alone(vendor, container)) if mine else ())


def _share_of_memory_alone(vendor: Vendor, container: Container) -> Iterator[str]:
    """HAMi compat: the memory named is a share, the cores left out are all (spec DCU-1)."""
    names = vendor.resources
    if (
        limits.memory(container, names.memory, factor=names.memory_factor)
        and limits.asked(container, names.cores) is None
    ):
        yield (
            f"container {container.name} names {names.memory} and no {names.cores}, which then is 100: "
            f"nobody can share its cards; name {names.cores} too"
        )
