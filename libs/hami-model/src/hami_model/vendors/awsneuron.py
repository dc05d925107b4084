"""AWS Neuron devices (Trainium, Inferentia): whole, or core by core.

One rule: the node publishes no annotation; its capacity tells how many devices and cores there are, and its instance
type how the devices are wired. Cores are booked one by one, as a mask of bits; several devices are given as one block.
"""

import numpy as np

from hami_model import capacity, limits, selectors
from hami_model.allocation import Allocation, Grant
from hami_model.checks import (
    WITHIN_QUOTA,
    Ask,
    Check,
    cores_free,
    healthy,
    slot_free,
    unshared_if_mutex,
    uuid_allowed,
)
from hami_model.config import Names
from hami_model.device import Device
from hami_model.errors import BadDemand, Denied, MalformedInventory
from hami_model.objects import Container, Node, Pod
from hami_model.picking import Passed, Picked, Picker
from hami_model.reason import Reason
from hami_model.request import CoreUnit, Demand, Exactly
from hami_model.rows import Mask, Rows
from hami_model.units import INT32_MAX, Quantity, plain_integer
from hami_model.vendor import (
    NOW_IN_NANOSECONDS,
    Admitted,
    AnnotationKeys,
    Constraints,
    ResourceNames,
    Selectors,
    Vendor,
)

WORD = "AWSNeuron"
IDS, ALLOCATED, ALLOC_TIME = "AWS_NEURON_IDS", "NEURON_ALLOCATED", "NEURON_ALLOC_TIME"
RESOURCE_TYPE, PREDICATE_NODE = "NEURON_RESOURCE_TYPE", "aws.amazon.com/predicate-node"
INSTANCE_TYPE = "node.kubernetes.io/instance-type"
CORES = "cores"
"""In a device's own facts: how many it has."""

PAIR = 2
"""Cores of a device that a pod may ask for by core: one, or as many pairs as it wants devices."""
MOST_CORES = 31
"""Bits that a device list has for the cores of a device."""
ALIGNED = (4, 8, 16)
"""Sizes of blocks on Trainium, each of which begins at a multiple of its size."""


def vendor(config: Names) -> Vendor:
    """Describe AWS Neuron under the names of the device config."""
    return Vendor(
        word=WORD,
        resources=ResourceNames(
            count=config.resource_count_name,
            cores=config.resource_core_name,
            core_unit=CoreUnit.BITS,
        ),
        keys=AnnotationKeys(allocated="hami.io/aws-neuron-devices-allocated"),
        selectors=Selectors(
            use_uuid="aws.amazon.com/use-neuron-uuid",
            nouse_uuid="aws.amazon.com/nouse-neuron-uuid",
        ),
        counts_cards=False,
        settings=config,
        demand=_demand,
        admit=_admit,
        discover=_discover,
        constraints=selectors.constraints,
        annotations=_extras,
        confirmed=_is_allocated,
        checks=CHECKS,
        choose=_choose,
    )


def _demand(vendor: Vendor, container: Container) -> Demand | None:
    """Read one container's ask: devices, or cores; devices win. Cores of 0 are all of a device."""
    fault = _fault(vendor, container)
    if fault is not None:
        raise BadDemand(fault)
    count, cores = _asked(container, vendor.resources.count), _asked(container, vendor.resources.cores)
    if count is None and cores is None:
        return None
    if count is None:
        count, cores = max(1, (cores or 0) // PAIR), min(cores or 0, PAIR)
    else:
        cores = 0
    return Demand(vendor=vendor.word, count=count, memory=Exactly(0), cores=cores, core_unit=CoreUnit.BITS)


def _admit(vendor: Vendor, container: Container, pod: Pod) -> Admitted:
    """Take over who names devices or cores; raise ``Denied``, in HAMi's words, for what cannot be given."""
    fault = _fault(vendor, container)
    if fault is not None:
        raise Denied(fault)
    names = vendor.resources
    return Admitted(mine=any(limits.asked(container, name) is not None for name in (names.count, names.cores)))


def _asked(container: Container, name: str) -> int | None:
    written = limits.asked(container, name)
    return None if written is None else plain_integer(written)


def _fault(vendor: Vendor, container: Container) -> str | None:
    """Say in HAMi's words why a container cannot have what it asks for, and what to write; None = it can."""
    names = vendor.resources
    devices, cores = limits.asked(container, names.count), limits.asked(container, names.cores)
    where = f"in container {container.name}"
    if devices is not None:
        return _out_of_range(names.count, devices, INT32_MAX, where)
    if cores is None:
        return None
    fault, number = _out_of_range(names.cores, cores, PAIR * INT32_MAX, where), plain_integer(cores) or 0
    if fault is None and number > PAIR and number % PAIR:
        return f"{names.cores} must be 1 or a multiple of {PAIR}, got {number} {where}: write {number + 1}"
    return fault


def _out_of_range(name: str, written: Quantity, most: int, where: str) -> str | None:
    number = plain_integer(written)
    if number is None:
        return f"{name} must be an integer: {written} {where} is none"
    if number <= 0:
        return f"{name} must be greater than 0: it is {written} {where}; leave it out, or write 1"
    return f"{name} must not exceed {most}: it is {written} {where}" if number > most else None


def _discover(vendor: Vendor, node: Node) -> tuple[Device, ...]:
    name, names = node.metadata.name, vendor.resources
    devices, cores = capacity.amount(node, names.count), capacity.amount(node, names.cores)
    each = cores // devices if devices else 0
    if each > MOST_CORES:
        raise MalformedInventory(f"node {name} has {each} cores a device, more than the {MOST_CORES} that can be told")
    instance = node.metadata.labels.get(INSTANCE_TYPE, "") if node.metadata.labels else ""
    return tuple(
        Device(
            id=f"{name}-{WORD}-{index}",
            vendor=WORD,
            index=index,
            slots=each,
            memory=0,
            cores=2**each - 1,
            model=WORD,
            mode=instance,
            custom={"AWSNodeType": instance, CORES: each},
        )
        for index in range(devices)
    )


def _single(check: Check) -> Check:
    """Return the same check for one device; several are a block, whatever each of them would answer."""

    def passes(rows: Rows, ask: Ask) -> Mask | None:
        return check.passes(rows, ask) if ask.demand.count == 1 else None

    return Check(check.reason, passes)


def _block_there(rows: Rows, ask: Ask) -> Mask | None:
    """The node has a block of idle devices; HAMi compat: where it has none that is said once, of its first device."""
    if ask.demand.count == 1:
        return None
    found: Mask = np.isin(rows.node, rows.node[_block_starts(rows, ask.demand.count)]) | (rows.index != 0)
    return found


CHECKS = (
    Check(Reason.NUMA_MISMATCH, _block_there),
    Check(Reason.UNHEALTHY, healthy),
    _single(Check(Reason.UUID_MISMATCH, uuid_allowed)),
    _single(Check(Reason.SLOTS_EXHAUSTED, slot_free)),
    _single(Check(Reason.EXCLUSIVE_CONFLICT, unshared_if_mutex)),
    WITHIN_QUOTA,
    _single(Check(Reason.INSUFFICIENT_CORES, cores_free)),
)


def _block_starts(rows: Rows, count: int) -> Mask:
    """Say which devices a block of so many idle ones begins at: anywhere on Inferentia, aligned on Trainium."""
    idle, node, index = (rows.healthy & (rows.used_slots == 0)).ravel(), rows.node.ravel(), rows.index.ravel()
    starts = np.zeros(len(idle), dtype=np.bool_)
    if len(idle) >= count:
        sums = np.concatenate([[0], np.cumsum(idle)])
        last = len(idle) - count + 1
        is_ring = np.array(["inf" in mode.lower() for mode in rows.cards.modes] or [False])[rows.mode.ravel()[:last]]
        is_aligned = (index[:last] % count == 0) & (count in ALIGNED)
        is_one_node = node[:last] == node[count - 1 :]
        starts[:last] = (sums[count:] - sums[:last] == count) & is_one_node & (is_ring | is_aligned)
    return starts.reshape(rows.shape)


def _choose(vendor: Vendor, demand: Demand, constraints: Constraints) -> Picker | None:
    """Return how to pick several devices: the first block, in the order of their numbers."""
    if demand.count == 1:
        return None

    def pick(passed: Passed) -> Picked:
        starts = _block_starts(passed.rows, demand.count)
        cards = np.argmax(starts, axis=1)[:, np.newaxis] + np.arange(demand.count)
        places = np.take_along_axis(np.argsort(passed.order, axis=1), cards % starts.shape[1], axis=1)
        return Picked(places, np.where(starts.any(axis=1), demand.count, 0))

    return pick


def _extras(vendor: Vendor, allocation: Allocation, pod: Pod) -> dict[str, str]:
    """Write what AWS's plugin looks up: numbers of devices, or of cores where any container asks for those."""
    asking = {c.name for c in pod.all_containers if limits.asked(c, vendor.resources.count) is not None}
    mine = [(c, g) for c in allocation.containers for g in c.grants if g.vendor == vendor.word]
    by_core = any(container.name not in asking for container, _ in mine)
    ids = [number for _, grant in mine for number in (_cores(grant) if by_core else [capacity.number(grant)])]
    written = {
        IDS: ",".join(map(str, ids)),
        ALLOCATED: "false",
        ALLOC_TIME: NOW_IN_NANOSECONDS,
        PREDICATE_NODE: allocation.node,
    }
    return {**written, RESOURCE_TYPE: vendor.resources.cores} if by_core else written


def _cores(grant: Grant) -> list[int]:
    """Return the numbers of a grant's cores on the node; a list read back says nothing of a device's own: two."""
    each = grant.custom.get(CORES)
    first = capacity.number(grant) * (each if isinstance(each, int) else PAIR)
    return [first + bit for bit in range(grant.cores.bit_length()) if grant.cores >> bit & 1]


def _is_allocated(pod: Pod) -> bool:
    return pod.annotations.get(ALLOCATED) == "true"
