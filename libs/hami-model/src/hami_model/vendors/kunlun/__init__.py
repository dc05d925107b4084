"""Kunlun XPUs, whole or as equal shares of their memory (vXPUs), picked by the wings that they stand in (``wings``).

One rule: each form has a plugin, keys and resources of its own. A shared card carries shares of one size.
"""

from collections.abc import Mapping

import numpy as np
from msgspec import structs

from hami_model import capacity, counted, limits, register, selectors
from hami_model.allocation import Allocation
from hami_model.checks import IN_THIS_FORM, Ask, Check, healthy, memory_free, unshared_if_mutex, unused, uuid_allowed
from hami_model.config import Kunlun
from hami_model.device import Device
from hami_model.keys import is_served
from hami_model.objects import Container, Node, Pod
from hami_model.picking import Passed, Picked, Picker
from hami_model.reason import Reason
from hami_model.request import Demand, Exactly
from hami_model.rows import Mask, Rows
from hami_model.units import canonical
from hami_model.vendor import (
    MUTEX_LOCK,
    Admitted,
    AnnotationKeys,
    Change,
    Constraints,
    ResourceNames,
    Selectors,
    Vendor,
)
from hami_model.vendors.kunlun import wings

WHOLE, SHARED = "kunlun", "XPU"
MEMORY = 98304
"""MiB of a card."""
SHARES = (24576, 49152, MEMORY)
"""MiB that a share can have."""
POSITIONS = "BAIDU_COM_DEVICE_IDX"

_UUIDS = (
    Selectors(use_uuid="hami.io/use-xpu-uuid", nouse_uuid="hami.io/no-use-xpu-uuid"),
    Selectors(use_uuid="baidu.com/use-gpuuuid", nouse_uuid="baidu.com/nouse-gpuuuid"),
)
"""Both pairs count, for both forms."""


def vendors(config: Kunlun) -> tuple[Vendor, ...]:
    """Describe both forms under the names of the device config."""
    return _whole(config), _shared(config)


def _whole(config: Kunlun) -> Vendor:
    return Vendor(
        word=WHOLE,
        resources=ResourceNames(count=config.count),
        keys=AnnotationKeys(allocated="hami.io/kunlun-allocated"),
        selectors=_UUIDS[0],
        other_form=SHARED,
        settings=config,
        demand=counted.whole,
        admit=counted.admit,
        discover=_discover,
        constraints=_constraints,
        annotations=_positions,
        confirmed=is_served,
        checks=(
            Check(Reason.UUID_MISMATCH, uuid_allowed),
            Check(Reason.UNHEALTHY, healthy),
            Check(Reason.EXCLUSIVE_CONFLICT, unused),
            IN_THIS_FORM,
        ),
        choose=_choose,
        node_score=lambda _vendor, given: wings.node_score(given),
        best_bonus=wings.BEST_BONUS,
        told=_told_of_whole,
    )


def _shared(config: Kunlun) -> Vendor:
    return Vendor(
        word=SHARED,
        resources=ResourceNames(count=config.virtual_count, memory=config.virtual_memory),
        keys=AnnotationKeys(
            register="hami.io/node-register-xpu",
            handshake="hami.io/node-handshake-xpu",
            to_allocate="hami.io/xpu-devices-to-allocate",
            allocated="hami.io/xpu-devices-allocated",
        ),
        selectors=_UUIDS[0],
        other_form=WHOLE,
        lock=MUTEX_LOCK,
        settings=config,
        demand=_shared_demand,
        admit=_admit_share,
        discover=register.discover,
        constraints=_constraints,
        confirmed=is_served,
        checks=(
            Check(Reason.UUID_MISMATCH, uuid_allowed),
            Check(Reason.UNHEALTHY, healthy),
            Check(Reason.INSUFFICIENT_MEMORY, memory_free),
            Check(Reason.CUSTOM_RULE, _of_one_size),
            Check(Reason.EXCLUSIVE_CONFLICT, unshared_if_mutex),
            IN_THIS_FORM,
        ),
        choose=_choose,
        told=_told,
    )


# What is asked for


def _shared_demand(vendor: Vendor, container: Container) -> Demand | None:
    count = limits.count(container, vendor.resources.count)
    if not count:
        return None
    share = _share(limits.memory(container, vendor.resources.memory))
    return Demand(vendor=vendor.word, count=count, memory=Exactly(share), cores=share * 100 // MEMORY)


def _share(memory: int | None) -> int:
    """Return the smallest share that has so much. HAMi compat: more than a card has means all of it."""
    return next((share for share in SHARES if memory is not None and memory <= share), MEMORY)


def _admit_share(vendor: Vendor, container: Container, pod: Pod) -> Admitted:
    """Write the share that is meant; one beyond a card is cut, with a warning."""
    names = vendor.resources
    if limits.limit(container, names.count) is None or limits.limit(container, names.memory) is None:
        return counted.admit(vendor, container, pod)
    memory = limits.memory(container, names.memory) or 0
    written = (names.memory, canonical(_share(memory)))
    changes = Change(container=container.name, limit=written), Change(container=container.name, request=written)
    cut = f"container {container.name} asks for {memory} of {names.memory}: a card has {MEMORY} MiB, which it gets"
    return Admitted(mine=True, changes=changes, warnings=(cut,) if memory > MEMORY else ())


# What there is


def _discover(vendor: Vendor, node: Node) -> tuple[Device, ...]:
    """Return as many cards as the node's capacity says; the second half is on the second NUMA node."""
    name, number = node.metadata.name, capacity.amount(node, vendor.resources.count)
    return tuple(
        Device(
            id=f"{name}-kunlun-{index}",
            vendor=WHOLE,
            index=index,
            slots=100,
            memory=MEMORY,
            cores=100,
            model=WHOLE,
            numa=0 if index < number // 2 else 1,
        )
        for index in range(number)
    )


def _constraints(vendor: Vendor, pod: Pod) -> Constraints:
    first, second = (selectors.constraints(structs.replace(vendor, selectors=names), pod) for names in _UUIDS)
    used = [uuids for uuids in (first.use_uuids, second.use_uuids) if uuids is not None]
    barred = [uuids for uuids in (first.nouse_uuids, second.nouse_uuids) if uuids is not None]
    return Constraints(
        use_uuids=frozenset.intersection(*used) if used else None,
        nouse_uuids=frozenset.union(*barred) if barred else None,
    )


# Which cards do


def _of_one_size(rows: Rows, ask: Ask) -> Mask | None:
    """The card carries nothing yet, or shares of this very size."""
    each = rows.used_memory // np.maximum(rows.used_slots, 1)
    fits: Mask = (rows.used_slots == 0) | (each == ask.memory_on(rows))
    return fits


def _choose(vendor: Vendor, demand: Demand, constraints: Constraints) -> Picker:
    def pick(passed: Passed) -> Picked:
        return wings.pick(passed, demand.count)

    return pick


def _told(counts: Mapping[Reason, int]) -> Mapping[Reason, int]:
    """HAMi compat: cards that would do but for others on them, else cards that the pod's lists bar, else one NUMA."""
    for reason in (Reason.EXCLUSIVE_CONFLICT, Reason.UUID_MISMATCH):
        if counts.get(reason):
            return {reason: counts[reason]}
    return {Reason.NUMA_MISMATCH: 1}


def _told_of_whole(counts: Mapping[Reason, int]) -> Mapping[Reason, int]:
    return _told({reason: n for reason, n in counts.items() if reason is Reason.UUID_MISMATCH})


# What is written


def _positions(vendor: Vendor, allocation: Allocation, pod: Pod) -> dict[str, str]:
    """HAMi compat: the plugin reads one list, that of the last container with cards."""
    return {POSITIONS: capacity.numbers_of_last(vendor.word, allocation)}
