"""Shares of MetaX GPUs (sGPU): who may share a card with whom (``company``), and which cards are taken whole.

One rule: a bare number of memory counts GiB, a number with a suffix bytes.
"""

from collections.abc import Iterator, Sequence
from typing import Annotated

import msgspec
import numpy as np
from msgspec import Meta, Struct, structs

from hami_model import limits, selectors
from hami_model.allocation import Allocation
from hami_model.checks import (
    IN_THIS_FORM,
    WITHIN_QUOTA,
    Ask,
    Check,
    alone_if_exclusive,
    computing_left,
    healthy,
    memory_free,
    slot_free,
    unshared_if_mutex,
    uuid_allowed,
)
from hami_model.columns import UNKNOWN_GROUP
from hami_model.config import Metax
from hami_model.device import Device
from hami_model.errors import BadDemand, Denied, MalformedInventory
from hami_model.keys import is_served
from hami_model.objects import Container, Node, Pod
from hami_model.picking import Given, Passed, Picked, Picker, given_cards, grouped
from hami_model.reason import Reason
from hami_model.register import SEPARATORS
from hami_model.request import Demand, Exactly, Whole
from hami_model.rows import Floats, Ints, Mask, Rows
from hami_model.units import FALSE_WORDS, INT32_MAX, MIB, TRUE_WORDS, plain_integer, rounded_up
from hami_model.vendor import (
    MUTEX_LOCK,
    NOW_IN_NANOSECONDS,
    Admitted,
    AnnotationKeys,
    Change,
    Constraints,
    Form,
    ResourceNames,
    Selectors,
    Vendor,
)
from hami_model.vendors.metax import company

WORD = "Metax-SGPU"
GIB = 1024
"""MiB."""
MANY = 1024
"""GiB; no card has as many, so a larger bare number was meant as MiB."""
TOPOLOGY_AWARE = "metax-tech.com/sgpu-topology-aware"
SHARES, TIME = "metax-tech.com/gpu-devices-allocated", "metax-tech.com/predicate-time"
ZONE = "LinkZone"

_WEIGHT = 10000.0
"""What one point is worth beside the load of nodes (HAMi compat)."""
_PAIR = 10
"""Points for two cards of one zone."""
BEST_BONUS = 1e10
"""More than any node gives: 64 linked cards, all taken whole, give a fifth of it."""

Number = Annotated[int, Meta(ge=0, le=INT32_MAX)]


class Listed(Struct, frozen=True, rename="camel"):
    """One card as MetaX's plugin publishes it; memory in MiB. What it says is available is not read."""

    uuid: str
    model: str = ""
    total_dev_count: Number = 0
    total_compute: Number = 0
    total_v_ram: Number = msgspec.field(default=0, name="totalVRam")
    numa: int = 0
    healthy: bool = False
    qos_policy: str = ""
    link_zone: int = 0


class Share(Struct, frozen=True, omit_defaults=True):
    """What MetaX's plugin reads of one card: percent, and MiB."""

    uuid: str
    compute: int = 0
    v_ram: int = msgspec.field(default=0, name="vRam")


def vendor(config: Metax) -> Vendor:
    """Describe sGPUs."""
    return Vendor(
        word=WORD,
        resources=ResourceNames(
            count=config.resource_v_count_name,
            memory=config.resource_v_memory_name,
            cores=config.resource_v_core_name,
            memory_factor=GIB,
        ),
        keys=AnnotationKeys(
            register="metax-tech.com/node-gpu-devices",
            to_allocate="hami.io/metax-sgpu-devices-to-allocate",
            allocated="hami.io/metax-sgpu-devices-allocated",
        ),
        form=Form.OWN,
        selectors=Selectors(use_uuid="metax-tech.com/use-gpuuuid", nouse_uuid="metax-tech.com/nouse-gpuuuid"),
        lock=MUTEX_LOCK,
        settings=config,
        demand=_demand,
        admit=_admit,
        discover=_discover,
        constraints=_constraints,
        annotations=_extras,
        confirmed=is_served,
        group=_zone,
        checks=CHECKS,
        choose=_choose,
        node_score=_node_score,
        best_bonus=BEST_BONUS,
    )


# What is asked for


def _demand(vendor: Vendor, container: Container) -> Demand | None:
    names = vendor.resources
    count = None if limits.limit(container, names.count) is None else limits.count(container, names.count)
    if not count:
        return None
    memory, cores = _memory(vendor, container), limits.cores(container, names.cores)
    return Demand(
        vendor=vendor.word,
        count=count,
        memory=Exactly(memory) if memory else Whole(),
        cores=100 if cores is None else cores,
    )


def _memory(vendor: Vendor, container: Container) -> int:
    """Read MiB, 0 for the whole card; raise ``BadDemand`` for what HAMi would read as that (spec vendors-b 2.2)."""
    name = vendor.resources.memory
    written = limits.limit(container, name)
    if written is None:
        return 0
    value = plain_integer(written)
    memory = None if value is None else value // MIB if _is_bytes(written) else value * GIB
    if memory is None or not 0 <= memory <= INT32_MAX or (value and not memory):
        raise BadDemand(
            f"{name} {written} in container {container.name} cannot be read: "
            "write whole GiB, such as 4, or bytes with a suffix, such as 4Gi or 512Mi"
        )
    return memory


def _is_bytes(written: object) -> bool:
    """Say whether a number has a suffix; the API server itself writes ``k`` for thousands of anything."""
    return isinstance(written, str) and written[-1:] in tuple("iMGTPE")


def _admit(vendor: Vendor, container: Container, pod: Pod) -> Admitted:
    """Check class and QoS, which is best-effort where none is named; raise ``Denied`` in HAMi's words."""
    names, kind, qos = vendor.resources, pod.annotations.get(company.CLASS), pod.annotations.get(company.QOS)
    count = limits.limit(container, names.count)
    if count is None:
        return Admitted(mine=False)
    if kind is not None and kind not in company.CLASSES:
        raise Denied(f"{company.CLASS} must be set one of [{', '.join(company.CLASSES)}]: it is {kind!r}")
    if kind is not None and rounded_up(count) != 1:
        raise Denied(f"app-class pod must request single device: container {container.name} asks for {count}")
    warnings = tuple(_more_than_a_card(vendor, container))
    if kind == company.ONLINE or qos in company.POLICIES:
        return Admitted(mine=True, warnings=warnings)
    if qos is not None:
        raise Denied(f"{company.QOS} must be set one of [{', '.join(company.POLICIES)}]: it is {qos!r}")
    return Admitted(mine=True, changes=(Change(annotation=(company.QOS, company.DEFAULT)),), warnings=warnings)


def _more_than_a_card(vendor: Vendor, container: Container) -> Iterator[str]:
    """HAMi compat: the pod is taken, and waits for ever."""
    names = vendor.resources
    memory, cores = _memory(vendor, container) // GIB, limits.cores(container, names.cores)
    if memory >= MANY:
        meant = f"a bare number counts GiB, for MiB write {memory}Mi"
        yield f"container {container.name} asks for {memory} GiB of {names.memory}, more than any card has: {meant}"
    if cores is not None and cores > 100:
        yield f"container {container.name} asks for {cores} of {names.cores}, more than a card has: write at most 100"


def _constraints(vendor: Vendor, pod: Pod) -> Constraints:
    guest, alone = company.guest(pod), company.guest(pod, alone=True)
    rules = structs.replace(selectors.constraints(vendor, pod), guest=guest, guest_alone=alone)
    is_online = company.is_of(rules, company.ONLINE)
    return structs.replace(rules, counts_cores=not is_online, is_scored=is_online or _is_topology_aware(vendor, pod))


def _is_topology_aware(vendor: Vendor, pod: Pod) -> bool:
    said = pod.annotations.get(TOPOLOGY_AWARE)
    if said in TRUE_WORDS | FALSE_WORDS:
        return said in TRUE_WORDS
    return isinstance(vendor.settings, Metax) and vendor.settings.sgpu_topology_aware


# What there is


def _discover(vendor: Vendor, node: Node) -> tuple[Device, ...]:
    key = vendor.keys.register
    try:
        cards = msgspec.json.decode(node.annotations.get(key, "[]"), type=list[Listed])
    except (msgspec.DecodeError, RecursionError) as error:
        raise MalformedInventory(f"{key} of node {node.metadata.name} cannot be read: {error}") from error
    ids = [card.uuid for card in cards]
    for at, uuid in enumerate(ids):
        if not uuid or SEPARATORS & set(uuid) or uuid in ids[:at]:
            raise MalformedInventory(
                f"{key} of node {node.metadata.name} lists a card {uuid!r}: ids are unlike each "
                "other, not empty, and without , : ;"
            )
    return tuple(
        Device(
            id=card.uuid,
            vendor=WORD,
            index=at,
            slots=card.total_dev_count,
            memory=card.total_v_ram,
            cores=card.total_compute,
            model=WORD,
            numa=card.numa,
            healthy=card.healthy,
            custom={"QosPolicy": card.qos_policy, "Model": card.model, ZONE: card.link_zone},
        )
        for at, card in enumerate(cards)
    )


def _zone(device: Device) -> int | None:
    """Return the zone of linked cards that a card is in; those of no zone are linked to nobody."""
    zone = device.custom.get(ZONE)
    return zone if isinstance(zone, int) and zone > 0 else None


# Which cards do


def _cores_free(rows: Rows, ask: Ask) -> Mask | None:
    """The cores asked for are not booked; who is online asks for none."""
    fits: Mask = rows.used_cores + ask.demand.cores <= rows.cores
    return fits if ask.constraints.counts_cores else None


CHECKS = (
    Check(Reason.CARD_UNHEALTHY, healthy),
    Check(Reason.CLASS_MISMATCH, company.of_one_class),
    Check(Reason.QOS_MISMATCH, company.of_one_qos),
    Check(Reason.UUID_MISMATCH, uuid_allowed),
    IN_THIS_FORM,
    Check(Reason.SLOTS_EXHAUSTED, slot_free),
    Check(Reason.EXCLUSIVE_CONFLICT, unshared_if_mutex),
    WITHIN_QUOTA,
    Check(Reason.INSUFFICIENT_MEMORY, memory_free),
    Check(Reason.INSUFFICIENT_CORES, _cores_free),
    Check(Reason.EXCLUSIVE_CONFLICT, alone_if_exclusive),
    Check(Reason.COMPUTE_EXHAUSTED, computing_left),
)


def _choose(vendor: Vendor, demand: Demand, constraints: Constraints) -> Picker | None:
    """Return how to pick: the quietest cards for pods that are online, linked ones for pods that take them whole."""
    if company.is_of(constraints, company.ONLINE):
        return lambda passed: _quietest(passed, demand.count)
    is_whole = demand.cores == 100 and not company.is_of(constraints, company.OFFLINE)
    return (lambda passed: _linked(passed, demand.count)) if is_whole else None


def _quietest(passed: Passed, count: int) -> Picked:
    """Take cards with few online pods, then with few offline ones; those with offline pods alone come last."""
    counts = (company.number(passed.rows, kind) for kind in company.CLASSES)
    online, offline = (np.take_along_axis(column, passed.order, axis=1) for column in counts)
    keys = offline, online, (online == 0) & (offline > 0), ~passed.passes
    return Picked(np.lexsort(keys, axis=1), np.minimum(passed.passes.sum(axis=1), count))


def _linked(passed: Passed, count: int) -> Picked:
    """Take the smallest zone that has enough cards, else zone after zone, the smallest first, then cards of none.

    Of zones of one size the first in walk order. Where all cards are wanted they come in walk order (HAMi compat).
    """
    groups = np.take_along_axis(passed.rows.group, passed.order, axis=1)
    number, size = passed.passes.sum(axis=1), groups.shape[1]
    members, first = grouped(groups, passed.passes)
    rank = np.where(members >= count, members, members + size)
    rank = np.where(groups == UNKNOWN_GROUP, 3 * size, rank)
    by_walk = (number <= count)[:, np.newaxis]
    first = np.where(groups == UNKNOWN_GROUP, 0, first)
    keys = np.where(by_walk, 0, first), np.where(by_walk, 0, rank), ~passed.passes
    return Picked(np.lexsort(keys, axis=1), np.minimum(number, count))


def _node_score(vendor: Vendor, given: Sequence[Given]) -> Floats:
    """Return how quiet the cards of an online pod are, else how well its whole cards are linked, and those left."""
    if company.is_of(given[0].ask.constraints, company.ONLINE):
        quiet: Floats = _WEIGHT * np.sum([_quiet(got) for got in given], axis=0)
        return quiet
    rows, idle = given[0].rows, company.is_idle(given[0].rows)
    whole, taken = given_cards(rows, [got for got in given if got.ask.demand.cores == 100]), given_cards(rows, given)
    points = _PAIR * _pairs(rows, whole) - _pairs(rows, idle) + _pairs(rows, whole) + _pairs(rows, idle & ~taken)
    bonus: Floats = _WEIGHT * _PAIR * np.where(whole.any(axis=1), points, 0)
    return bonus


def _quiet(got: Given) -> Ints:
    counts = (company.number(got.rows, kind) for kind in company.CLASSES)
    online, offline = (np.take_along_axis(column, got.positions, axis=1) for column in counts)
    points: Ints = np.where((online == 0) & (offline > 0), -100 * offline, -20 * online - 2 * offline).sum(axis=1)
    return points


def _pairs(rows: Rows, cards: Mask) -> Ints:
    """Return how many pairs of some cards are in one zone."""
    members, _ = grouped(rows.group, cards)
    pairs: Ints = (np.where(cards & (rows.group != UNKNOWN_GROUP), members - 1, 0).sum(axis=1)) // 2
    return pairs


# What is written


def _extras(vendor: Vendor, allocation: Allocation, pod: Pod) -> dict[str, str]:
    shares = [
        [Share(uuid=g.uuid, compute=g.cores, v_ram=g.memory) for g in c.grants if g.vendor == vendor.word]
        for c in allocation.containers
    ]
    return {SHARES: msgspec.json.encode(shares).decode(), TIME: NOW_IN_NANOSECONDS}
