"""Moore Threads GPUs, shared by sixteenths of a card and memory in units of 512 MiB.

One rule: the plugin reads one list of cards for the whole pod, so all its containers share one card, or one container
has several.
"""

from collections.abc import Iterator

import numpy as np

from hami_model import capacity, limits, selectors
from hami_model.allocation import Allocation
from hami_model.checks import CHECKS, Ask, Check
from hami_model.config import Names
from hami_model.device import Device
from hami_model.errors import BadDemand, Denied
from hami_model.keys import is_served
from hami_model.objects import Container, Node, Pod
from hami_model.reason import Reason
from hami_model.request import Demand, Exactly, Whole
from hami_model.rows import Mask, Rows
from hami_model.units import canonical, plain_integer, rounded_up
from hami_model.vendor import (
    NOW_IN_NANOSECONDS,
    Admitted,
    AnnotationKeys,
    Change,
    ResourceNames,
    Selectors,
    Vendor,
)

WORD = "Mthreads"
UNIT = 512
"""MiB of a unit of memory."""
CORES, MEMORY = 16, 96
"""Cores and units of memory of a card, as pods count them."""
SHARES = (2, 4, 8, 16, 32, 64, MEMORY)
"""Units of memory that a share can have."""
MOST_CARDS = 256
"""No node has more; a larger number was meant as something else."""
CARDS = "mthreads.com/request-gpu-num"
INDEX, TIME, NODE = "mthreads.com/gpu-index", "mthreads.com/predicate-time", "mthreads.com/predicate-node"


def vendor(config: Names) -> Vendor:
    """Describe Moore Threads under the names of the device config."""
    return Vendor(
        word=WORD,
        resources=ResourceNames(
            count=config.resource_count_name,
            memory=config.resource_memory_name,
            cores=config.resource_core_name,
            memory_factor=UNIT,
        ),
        keys=AnnotationKeys(allocated="hami.io/mthreads-vgpu-devices-allocated"),
        selectors=Selectors(use_uuid="mthreads.ai/use-gpuuuid", nouse_uuid="mthreads.ai/nouse-gpuuuid"),
        settings=config,
        demand=_demand,
        admit=_admit,
        discover=_discover,
        constraints=selectors.constraints,
        annotations=_extras,
        confirmed=is_served,
        checks=(*CHECKS, Check(Reason.CUSTOM_RULE, _one_card_for_all)),
    )


def _demand(vendor: Vendor, container: Container) -> Demand | None:
    """Read one container's ask: memory and cores are those of all its cards together."""
    names = vendor.resources
    count = limits.count(container, names.count)
    if not count:
        return None
    memory = limits.memory(container, names.memory, factor=UNIT) or 0
    cores = limits.cores(container, names.cores) or 0
    each = memory // count
    return Demand(vendor=vendor.word, count=count, memory=Exactly(each) if memory else Whole(), cores=cores // count)


def _admit(vendor: Vendor, container: Container, pod: Pod) -> Admitted:
    """Write out whole cards, and let shares of one card pass; raise ``Denied``, in HAMi's words, for any other."""
    names = vendor.resources
    written = limits.asked(container, names.count)
    if written is None:
        return Admitted(mine=False)
    if (rounded_up(written) or 0) <= 0:
        raise Denied(f"{names.count} must be greater than 0: leave it out of container {container.name}, or write 1")
    count = limits.count(container, names.count) or 1
    if count > MOST_CARDS:
        what = f"{names.count} {count} in container {container.name}"
        raise BadDemand(f"{what} is more cards than a node can have: write at most {MOST_CARDS}")
    if count == 1 and limits.limit(container, names.memory) is not None:
        _check_share(vendor, container)
        return Admitted(mine=True, warnings=tuple(_more_than_a_card(vendor, container)))
    note = [Change(annotation=(CARDS, str(count)))] if count > 1 else []
    changes = [*_whole(container, names.cores, CORES * count), *_whole(container, names.memory, MEMORY * count), *note]
    return Admitted(mine=True, changes=tuple(changes), warnings=tuple(_overwritten(vendor, container, count)))


def _check_share(vendor: Vendor, container: Container) -> None:
    names = vendor.resources
    memory = limits.limit(container, names.memory)
    if memory is None or plain_integer(memory) not in SHARES:
        valid = f"sGPU memory request value is invalid, valid values are {list(SHARES)}"
        raise Denied(f"{valid}, in units of {UNIT} MiB: {names.memory} is {memory} in container {container.name}")


def _more_than_a_card(vendor: Vendor, container: Container) -> Iterator[str]:
    """HAMi compat: the pod is taken, and waits for ever."""
    cores, name = limits.cores(container, vendor.resources.cores), vendor.resources.cores
    if cores is not None and cores > CORES:
        yield f"container {container.name} asks for {cores} of {name}, more than a card has: write at most {CORES}"


def _whole(container: Container, name: str, amount: int) -> Iterator[Change]:
    """Set a limit, and the request too where there is one: the API server wants both to be the same."""
    written = (name, canonical(amount))
    requests = (container.resources.requests if container.resources else None) or {}
    yield Change(container=container.name, limit=written)
    if name in requests:
        yield Change(container=container.name, request=written)


def _overwritten(vendor: Vendor, container: Container, count: int) -> Iterator[str]:
    """HAMi compat: cores without memory, and shares of several cards, become whole cards."""
    names = vendor.resources
    for name, whole in ((names.cores, CORES * count), (names.memory, MEMORY * count)):
        written = limits.asked(container, name)
        if written is not None and plain_integer(written) != whole:
            share = f"for a share of one card name {names.memory}" if count == 1 else "only one card can be shared"
            yield f"container {container.name} asks for {written} of {name} and gets {whole}, all there is: {share}"


def _discover(vendor: Vendor, node: Node) -> tuple[Device, ...]:
    """One card for each sixteen cores, a started sixteen too; the node's memory is theirs in equal parts."""
    names, name = vendor.resources, node.metadata.name
    number = -(-capacity.amount(node, names.cores) // CORES)
    memory = capacity.amount(node, names.memory) * UNIT
    return tuple(
        Device(
            id=f"{name}-mthreads-{index}",
            vendor=WORD,
            index=index,
            slots=100,
            memory=memory // number,
            cores=CORES,
            model=WORD,
        )
        for index in range(number)
    )


def _one_card_for_all(rows: Rows, ask: Ask) -> Mask | None:
    """No other card of the node is held by a container of this pod that runs beside this one."""
    mine = rows.used_slots > rows.cards.used_slots[rows.where]
    if not mine.any():
        return None
    number = np.bincount(rows.node.ravel(), weights=mine.ravel())[rows.node]
    fits: Mask = number == mine
    return fits


def _extras(vendor: Vendor, allocation: Allocation, pod: Pod) -> dict[str, str]:
    return {INDEX: capacity.numbers_of_last(WORD, allocation), TIME: NOW_IN_NANOSECONDS, NODE: allocation.node}
