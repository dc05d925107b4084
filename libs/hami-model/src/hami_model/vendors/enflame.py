"""Enflame GCUs, whole, or in shares of the sizes that DRS cuts them into.

One rule: each form has a plugin, keys and resources of its own. A share has the size of one of the node's profiles,
such as ``3g.20gb``: three slices and 20 GiB. A container gets one share, by its slices or by memory and cores.
"""

import re
from collections.abc import Mapping

import msgspec
from msgspec import Struct, field

from hami_model import capacity, counted, limits, selectors
from hami_model.allocation import Allocation, Grant
from hami_model.checks import IN_THIS_FORM, Check, healthy, unused
from hami_model.config import Enflame
from hami_model.device import Device, Size
from hami_model.errors import Denied, MalformedInventory
from hami_model.keys import is_served
from hami_model.objects import Container, Node, Pod
from hami_model.reason import Reason
from hami_model.request import Demand, Exactly
from hami_model.sizes import Sizes
from hami_model.units import INT32_MAX, Quantity, plain_integer, rounded_up
from hami_model.vendor import (
    NOW_IN_NANOSECONDS,
    Admitted,
    AnnotationKeys,
    Change,
    Form,
    ResourceNames,
    Selectors,
    Vendor,
)

WHOLE, SHARED = "GCU", "Enflame"
SLICES, MEMORY, CORES = "enflame.com/drs-gcu", "enflame.com/gcu-memory", "enflame.com/gcu-core"
"""HAMi compat: what the resources of shares are called where the device config has no names for them."""
FORMER = ("enflame.com/vgcu", "enflame.com/vgcu-percentage")
"""Resources of HAMi before 2.10, which nobody reads any more."""

CAPACITY = "enflame.com/gcu-drs-capacity"
CONTAINERS = "assigned-containers"
ASSIGNED, ASSIGNED_TIME = "enflame.com/gcu-assigned", "enflame.com/gcu-assigned-time"
INDEX, ID, MINOR = "enflame.com/gcu-assigned-index", "enflame.com/gcu-assigned-id", "enflame.com/gcu-assigned-minor"
REQUEST_SIZE = "enflame.com/gcu-request-size"
_SAID = (INDEX, ID, MINOR, REQUEST_SIZE, CONTAINERS)

NUMBER, PROFILES = "minor", "profiles"
"""In a card's own facts: the number of its device file, and the ids of profiles by name."""

GIB = 1024
"""MiB. Smaller numbers of ``gcu-memory`` count GiB: no card has as many, and no profile has less than one."""
_NUMBER = re.compile(r"[0-9]{1,10}")


def vendors(config: Enflame) -> tuple[Vendor, ...]:
    """Describe both forms under the names of the device config."""
    return _whole(config), _shared(config)


def _whole(config: Enflame) -> Vendor:
    return Vendor(
        word=WHOLE,
        resources=ResourceNames(count=config.count),
        keys=AnnotationKeys(
            to_allocate="hami.io/enflame-gcu-devices-to-allocate",
            allocated="hami.io/enflame-gcu-devices-allocated",
        ),
        other_form=SHARED,
        settings=config,
        demand=counted.whole,
        admit=counted.admit,
        discover=_discover_whole,
        constraints=selectors.constraints,
        confirmed=is_served,
        checks=(Check(Reason.UNHEALTHY, healthy), Check(Reason.EXCLUSIVE_CONFLICT, unused), IN_THIS_FORM),
    )


def _shared(config: Enflame) -> Vendor:
    return Vendor(
        word=SHARED,
        resources=ResourceNames(
            count=config.drs_count or config.legacy_count or SLICES,
            memory=config.memory or MEMORY,
            cores=config.cores or CORES,
        ),
        keys=AnnotationKeys(register=CAPACITY, allocated="hami.io/enflame-vgpu-devices-allocated"),
        form=Form.OWN,
        selectors=Selectors(use_uuid="enflame.com/use-gpuuuid", nouse_uuid="enflame.com/nouse-gpuuuid"),
        counts_cards=False,
        other_form=WHOLE,
        partitions="DRS profiles",
        settings=config,
        demand=_shared_demand,
        admit=_admit_share,
        discover=_discover_shared,
        constraints=selectors.constraints,
        annotations=_extras,
        confirmed=_is_assigned,
    )


# What is asked for


def _shared_demand(vendor: Vendor, container: Container) -> Demand | None:
    """Read one container's ask: slices, or memory and cores; slices win."""
    names = vendor.resources
    slices = limits.slices(container, names.count)
    if slices:
        return Demand(vendor=vendor.word, count=1, memory=Exactly(0), slices=slices)
    memory = limits.memory(container, names.memory, least=GIB)
    cores = limits.cores(container, names.cores)
    if memory is None and cores is None:
        return None
    return Demand(vendor=vendor.word, count=1, memory=Exactly(_mib(memory or 0)), cores=cores or 0, slices=0)


def _mib(number: int) -> int:
    return number if number >= GIB else number * GIB


def _admit_share(vendor: Vendor, container: Container, pod: Pod) -> Admitted:
    """Take over who asks for a share, in limits or requests, and write both; refuse in HAMi's words an ask for none."""
    names = vendor.resources
    for chosen in ((names.count,), (names.memory, names.cores)):
        asked = {name: written for name in chosen if (written := limits.asked(container, name)) is not None}
        for name, written in asked.items():
            _refuse_none(name, written, container, most=100 if name == names.cores else None)
        if asked:
            return Admitted(mine=True, changes=tuple(_in_both(container, asked)))
    former = [name for name in FORMER if name != names.count and limits.asked(container, name) is not None]
    way_out = f"write {names.count} (slices of a card), or {names.memory} and {names.cores}"
    return Admitted(mine=False, warnings=tuple(f"{name} is read by nobody: {way_out}" for name in former))


def _refuse_none(name: str, written: Quantity, container: Container, *, most: int | None) -> None:
    number, where = rounded_up(written), f"it is {written} in container {container.name}"
    if most is not None and (number is None or not 0 < number <= most):
        raise Denied(f"{name} must be in range (0,{most}]: {where}; write a percentage, or leave it out")
    if number is None or number <= 0:
        raise Denied(f"{name} must be greater than 0: {where}; leave it out, or write 1")


def _in_both(container: Container, asked: Mapping[str, Quantity]) -> list[Change]:
    """Return what makes limits and requests name the same."""
    resources = container.resources
    requests = (resources.requests if resources else None) or {}
    missing = [(name, str(written)) for name, written in asked.items()]
    return [
        *(Change(container=container.name, limit=each) for each in missing if limits.limit(container, each[0]) is None),
        *(Change(container=container.name, request=each) for each in missing if each[0] not in requests),
    ]


# What there is


def _discover_whole(vendor: Vendor, node: Node) -> tuple[Device, ...]:
    """Return as many cards as the node's capacity says; HAMi compat: each of 100 MiB, whatever it has."""
    return tuple(
        Device(
            id=f"{node.metadata.name}-GCU-{index}",
            vendor=WHOLE,
            index=index,
            slots=1,
            memory=100,
            cores=100,
            model=WHOLE,
        )
        for index in range(capacity.amount(node, vendor.resources.count))
    )


class _Card(Struct):
    """One card as its plugin lists it."""

    index: str | int | None = None
    minor: str | int | None = None
    capacity: str | int | float | None = None


class _Published(Struct):
    """What the plugin publishes: cards, and the ids of profiles by name."""

    devices: list[_Card] | None = None
    profiles: dict[str, str | int] | None = None


def _discover_shared(vendor: Vendor, node: Node) -> tuple[Device, ...]:
    """Read the plugin's annotation; every profile can be had of every card."""
    text = node.annotations.get(vendor.keys.register)
    if text is None:
        return ()
    try:
        listed = msgspec.json.decode(text, type=_Published)
    except (msgspec.DecodeError, RecursionError) as error:
        raise MalformedInventory(f"{CAPACITY} cannot be read: {error}") from error
    profiles = {name: str(number) for name, number in (listed.profiles or {}).items()}
    amounts = [_size_of(name) for name in profiles]
    slices, gib = (max((each[part] for each in amounts), default=0) for part in (0, 1))
    sizes, memory = _sizes(profiles), (gib or slices) * GIB
    if not 0 < slices <= INT32_MAX or memory > INT32_MAX:
        raise MalformedInventory(f"{CAPACITY} has profiles {', '.join(profiles) or 'none'}: write such as 3g.20gb")
    devices = tuple(
        Device(
            id=f"{node.metadata.name}-enflame-drs-{index}",
            vendor=SHARED,
            index=index,
            slots=_capacity(at, card),
            memory=memory,
            cores=_cores(slices),
            model=SHARED,
            sizes=sizes,
            custom={NUMBER: str(index if card.minor is None else card.minor), PROFILES: profiles},
        )
        for at, card in enumerate(listed.devices or ())
        for index in (_index(at, card),)
    )
    if len({device.index for device in devices}) < len(devices):
        raise MalformedInventory(f"{CAPACITY} lists a card twice: each needs an index of its own")
    return devices


def _index(at: int, card: _Card) -> int:
    """Return the card's number, or its place in the list where it has none."""
    number = plain_integer(card.index) if card.index is not None else None
    return number if number is not None and 0 <= number <= INT32_MAX else at


def _capacity(at: int, card: _Card) -> int:
    number = None if card.capacity is None else plain_integer(card.capacity)
    if number is None or number <= 0:
        raise MalformedInventory(f"{CAPACITY} has a card {at} of capacity {card.capacity}, no whole number above 0")
    return min(number, INT32_MAX)


def _size_of(profile: str) -> tuple[int, int]:
    """Read slices and GiB of ``3g.20gb``; what stands after a second dot, and what is no number, counts for nothing."""
    slices, *rest = profile.strip().lower().split(".")
    amounts = slices.removesuffix("g"), rest[0].removesuffix("gb") if rest else ""
    numbers = [int(amount) if _NUMBER.fullmatch(amount) else 0 for amount in amounts]
    return (numbers[0], numbers[1]) if rest and numbers[0] else (0, 0)


def _sizes(profiles: Mapping[str, str]) -> Sizes:
    """Return the sizes of shares, the smallest first; HAMi compat: their cores are rounded up."""
    sized = sorted((*_size_of(name), name) for name in profiles)
    most = max((slices for slices, _, _ in sized), default=0)
    return tuple(
        Size(name=name, slices=slices, memory=memory * GIB, cores=-(-100 * slices // most))
        for slices, memory, name in sized
        if slices and memory
    )


def _cores(slices: int) -> int:
    """Return the cores of a card of so many slices: what they book together, each rounded up, and never one more.

    HAMi has 100, so that the sixth of six slices of 17 finds no room.
    """
    one = -(-100 // slices)
    return min(slices * one, 99 + one)


# What is written


class _Told(Struct, kw_only=True):
    """What the plugin is told of a container's share, and marks when it has made it."""

    allocated: bool = False
    request: int
    profile_id: str = field(name="profileID")
    profile_name: str = field(name="profileName")


def _extras(vendor: Vendor, allocation: Allocation, pod: Pod) -> dict[str, str]:
    """Write which profile each container has; HAMi compat: beside them the card of the first one."""
    given = {c.name: g for c in allocation.containers for g in c.grants if g.vendor == vendor.word}
    waiting, first = {ASSIGNED: "false", ASSIGNED_TIME: NOW_IN_NANOSECONDS}, next(iter(given.values()))
    if PROFILES not in first.custom:  # read back from the pod, which alone says what it was given
        return waiting | {key: pod.annotations[key] for key in _SAID if key in pod.annotations}
    told = {name: _told(grant) for name, grant in given.items()}
    return waiting | {
        INDEX: str(first.index),
        ID: str(first.index),
        MINOR: str(first.custom[NUMBER]),
        REQUEST_SIZE: str(next(iter(told.values())).request),
        CONTAINERS: msgspec.json.encode(told).decode(),
    }


def _told(grant: Grant) -> _Told:
    profiles = msgspec.convert(grant.custom[PROFILES], dict[str, str])
    size = next(size for size in _sizes(profiles) if (size.memory, size.cores) == (grant.memory, grant.cores))
    return _Told(request=size.slices, profile_id=profiles[size.name], profile_name=size.name)


def _is_assigned(pod: Pod) -> bool:
    return pod.annotations.get(ASSIGNED) == "true"
