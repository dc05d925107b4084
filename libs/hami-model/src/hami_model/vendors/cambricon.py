"""Cambricon MLUs, shared by the vendor's own plugin in dynamic-smlu mode.

One rule: the node publishes no annotation; its capacity tells how many cards there are. Memory counts 256 MiB units.
"""

from functools import partial

from hami_model import capacity, limits, selectors, sliced
from hami_model.allocation import Allocation
from hami_model.config import Names
from hami_model.device import Device
from hami_model.objects import Container, Node, Pod
from hami_model.vendor import Admitted, AnnotationKeys, Lock, ResourceNames, Selectors, Vendor

WORD = "MLU"
UNIT = 256
ASSIGNED = "CAMBRICON_DSMLU_ASSIGNED"
PROFILE = "CAMBRICON_DSMLU_PROFILE"
IGNORED = ("cambricon.com/use-mlutype", "cambricon.com/nouse-mlutype")


def vendor(config: Names) -> Vendor:
    """Describe Cambricon under the names of the device config."""
    return Vendor(
        word=WORD,
        resources=ResourceNames(
            count=config.resource_count_name,
            memory=config.resource_memory_name,
            cores=config.resource_core_name,
            memory_factor=UNIT,
        ),
        keys=AnnotationKeys(
            to_allocate="hami.io/cambricon-mlu-devices-to-allocate",
            allocated="hami.io/cambricon-mlu-devices-allocated",
        ),
        selectors=Selectors(use_uuid="cambricon.com/use-gpuuuid", nouse_uuid="cambricon.com/nouse-gpuuuid"),
        lock=Lock("cambricon.com/dsmlu.lock", owned=False, within="2 minutes"),
        settings=config,
        demand=partial(sliced.demand, cores=100),
        admit=_admit,
        discover=_discover,
        constraints=selectors.constraints,
        annotations=_extras,
        confirmed=_is_assigned,
    )


def _admit(vendor: Vendor, container: Container, pod: Pod) -> Admitted:
    mine = limits.limit(container, vendor.resources.count) is not None
    warnings = tuple(
        f"annotation {key} is ignored: all MLUs of a node look alike; choose nodes by label, or cards by "
        f"{vendor.selectors.use_uuid}"
        for key in IGNORED
        if mine and key in pod.annotations
    )
    return Admitted(mine=mine, warnings=warnings)


def _discover(vendor: Vendor, node: Node) -> tuple[Device, ...]:
    """One card for each full 100 of cores; a started 100 is no card (HAMi counts it as one, spec MLU-3)."""
    cores = capacity.amount(node, vendor.resources.cores)
    memory = capacity.amount(node, vendor.resources.memory)
    return tuple(
        Device(
            id=f"{node.metadata.name}-cambricon-mlu-{index}",
            vendor=WORD,
            index=index,
            slots=100,
            memory=memory * UNIT * 100 // cores,
            cores=100,
            model=WORD,
        )
        for index in range(cores // 100)
    )


def _extras(vendor: Vendor, allocation: Allocation, pod: Pod) -> dict[str, str]:
    # HAMi compat: the plugin reads one profile, that of the first card (spec MLU-1).
    first = next(g for c in allocation.containers for g in c.grants if g.vendor == vendor.word)
    return {ASSIGNED: "false", PROFILE: f"{capacity.number(first)}_{first.cores}_{first.memory // UNIT}"}


def _is_assigned(pod: Pod) -> bool:
    return pod.annotations.get(ASSIGNED) == "true"
