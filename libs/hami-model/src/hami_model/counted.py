"""Cards that are asked for by number and nothing else: whole ones, or ones of which nothing but slots is booked.

One rule: of the latter a card's slots alone limit who shares it. Its cores are 100 whatever the node lists, so that it
has a score.
"""

from msgspec import structs

from hami_model import limits, register
from hami_model.device import Device
from hami_model.objects import Container, Node, Pod
from hami_model.request import Demand, Exactly, Whole
from hami_model.vendor import Admitted, Vendor


def demand(vendor: Vendor, container: Container) -> Demand | None:
    """Read one container's ask; None without a count, or for zero cards."""
    count = limits.count(container, vendor.resources.count)
    # HAMi compat: where cards are scored, the ask weighs as much as the whole memory.
    return Demand(vendor=vendor.word, count=count, memory=Exactly(0), percent_hint=100) if count else None


def whole(vendor: Vendor, container: Container) -> Demand | None:
    """Read how many whole cards one container asks for; None without a count, or for zero cards."""
    count = limits.count(container, vendor.resources.count)
    return Demand(vendor=vendor.word, count=count, memory=Whole(), cores=100) if count else None


def admit(vendor: Vendor, container: Container, pod: Pod) -> Admitted:
    """Take over every container that names a count in its limits; nothing is changed."""
    return Admitted(mine=limits.limit(container, vendor.resources.count) is not None)


def discover(vendor: Vendor, node: Node) -> tuple[Device, ...]:
    """Read the register annotation; raise ``MalformedInventory``."""
    return tuple(structs.replace(device, cores=100) for device in register.discover(vendor, node))
