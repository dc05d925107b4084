"""AMD GPUs, shared by memory and by compute units.

One rule: cores are asked for in percent and given in whole compute units of the card, at least one. A pod's device
lists name the card's model, as HAMi writes them.
"""

from hami_model import limits, selectors
from hami_model.checks import CHECKS, alone_if_exclusive, computing_left
from hami_model.config import Names
from hami_model.device import Device
from hami_model.errors import BadDemand, Denied, MalformedInventory
from hami_model.keys import is_served
from hami_model.objects import Container, Node, Pod
from hami_model.register import SEPARATORS, decode_register
from hami_model.request import CoreUnit, Demand, Exactly, Whole
from hami_model.units import plain_integer
from hami_model.vendor import MUTEX_LOCK, Admitted, AnnotationKeys, ResourceNames, Selectors, Vendor

WORD = "AMD"
FORMER_MEMORY = "amd.com/gpu-memory"
SHARED = tuple(check for check in CHECKS if check.passes not in (alone_if_exclusive, computing_left))
"""A pod with all compute units is alone for want of any other; nobody asks for none."""


def vendor(config: Names) -> Vendor:
    """Describe AMD under the names of the device config."""
    return Vendor(
        word=WORD,
        resources=ResourceNames(
            count=config.resource_count_name,
            memory=config.resource_memory_name,
            cores=config.resource_core_name,
            core_unit=CoreUnit.UNITS,
        ),
        keys=AnnotationKeys(
            register="hami.io/node-amd-register",
            to_allocate="hami.io/amd-devices-to-allocate",
            allocated="hami.io/amd-devices-allocated",
        ),
        selectors=Selectors(
            use_model="amd.com/use-gputype",
            nouse_model="amd.com/nouse-gputype",
            use_uuid="amd.com/use-gpu-uuid",
            nouse_uuid="amd.com/nouse-gpu-uuid",
        ),
        lock=MUTEX_LOCK,
        names_models=True,
        settings=config,
        demand=_demand,
        admit=_admit,
        discover=_discover,
        constraints=selectors.constraints,
        confirmed=is_served,
        checks=SHARED,
    )


def _demand(vendor: Vendor, container: Container) -> Demand | None:
    """Read one container's ask. HAMi compat: a count in the requests alone is none."""
    names = vendor.resources
    if limits.limit(container, names.count) is None:
        return None
    count = limits.count(container, names.count)
    if not count:
        return None
    memory = limits.memory(container, names.memory)
    cores = limits.cores(container, names.cores)
    return Demand(
        vendor=vendor.word,
        count=count,
        memory=Exactly(memory) if memory else Whole(),
        cores=100 if cores is None else min(cores, 100),
        core_unit=names.core_unit,
    )


def _admit(vendor: Vendor, container: Container, pod: Pod) -> Admitted:
    """Take over a container with a count; raise for shares of no card, and ``Denied`` for cores out of range."""
    names = vendor.resources
    cores = limits.limit(container, names.cores)
    if limits.limit(container, names.count) is None:
        for name in (names.memory, names.cores):
            written = limits.limit(container, name)
            if written is not None:
                raise BadDemand(f"{name} {written} in container {container.name} is of no card: add {names.count}: 1")
        return Admitted(mine=False)
    if cores is not None and not 1 <= (plain_integer(cores) or 0) <= 100:
        raise Denied(
            f"{names.cores} must be an integer percentage between 1 and 100, "
            f"which {cores} in container {container.name} is not"
        )
    if limits.asked(container, FORMER_MEMORY) is None or names.memory == FORMER_MEMORY:
        return Admitted(mine=True)
    return Admitted(mine=True, warnings=(f"{FORMER_MEMORY} is read by nobody: write {names.memory}, in MiB",))


def _discover(vendor: Vendor, node: Node) -> tuple[Device, ...]:
    text = node.annotations.get(vendor.keys.register)
    devices = () if text is None else decode_register(text, vendor.word)
    for device in devices:
        if SEPARATORS & set(device.model):
            raise MalformedInventory(f"card {device.id} has the type {device.model!r}: it must not hold any of , : ;")
    return devices
