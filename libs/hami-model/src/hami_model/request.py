"""What a pod asks for, with absence given a name instead of a magic number.

One rule: every case of ``MemoryDemand`` is handled by whoever reads it (``match`` with ``assert_never``).
"""

from enum import StrEnum

from msgspec import Struct


class Exactly(Struct, frozen=True, gc=False, tag="exactly"):
    """So many MiB of each card."""

    mib: int


class Percent(Struct, frozen=True, gc=False, tag="percent"):
    """So many percent (1..100) of each card's memory, whatever the card has."""

    percent: int


class Whole(Struct, frozen=True, gc=False, tag="whole"):
    """The whole memory of each card."""


MemoryDemand = Exactly | Percent | Whole


class CoreUnit(StrEnum):
    """How cores are asked for and booked."""

    PERCENT = "percent"
    """In percent of a card."""
    UNITS = "units"
    """Asked for in percent of the units that the card lists, booked in units, at least one."""
    BITS = "bits"
    """One by one: asked for by number, 0 = all of a card; booked as a mask of bits, as the card lists them."""


class Demand(Struct, frozen=True, gc=False, kw_only=True):
    """One container's ask of one vendor: ``count`` cards, and of each card the same memory and cores.

    ``vendor`` is the common word (``NVIDIA``, ``Ascend310P``, ``MLU``). ``cores`` is a percentage of one card, 0 means
    none asked for; in ``CoreUnit.BITS`` it is their number. ``percent_hint`` is the percentage written beside an exact
    memory: memory wins when fitting, the percentage when cards are scored (HAMi's behaviour, vendors-a §12.4).

    ``slices``: the card gives shares of its own sizes, and this one has exactly so many slices, or is for 0 the first
    that has the memory and cores; None = exactly what is asked for is given.
    """

    vendor: str
    count: int
    memory: MemoryDemand
    cores: int = 0
    percent_hint: int | None = None
    core_unit: CoreUnit = CoreUnit.PERCENT
    slices: int | None = None


class Role(StrEnum):
    """When a container runs, which decides how its devices are counted."""

    INIT = "init"
    SIDECAR = "sidecar"
    APP = "app"


class ContainerDemand(Struct, frozen=True, gc=False, kw_only=True):
    """All demands of one container, in the order of the catalog's vendors; empty for a container without devices."""

    name: str
    role: Role
    demands: tuple[Demand, ...] = ()


PodDemand = tuple[ContainerDemand, ...]
"""One entry per container, init containers first: position = position in every device annotation."""


def asks_for_devices(demand: PodDemand) -> bool:
    """Say whether any container asks for any device."""
    return any(container.demands for container in demand)


def vendors_of(demand: PodDemand) -> tuple[str, ...]:
    """Return the words of the vendors asked for, in the order of first mention."""
    return tuple(dict.fromkeys(d.vendor for container in demand for d in container.demands))
