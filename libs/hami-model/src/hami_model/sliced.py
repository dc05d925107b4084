"""Cards of which a container asks for a number, and of each the same memory and cores.

One rule: without memory, or with 0, the whole memory of each card is meant; more cores than a card has mean all of its
cores.
"""

from hami_model import limits
from hami_model.objects import Container
from hami_model.request import Demand, Exactly, Whole
from hami_model.vendor import Vendor


def demand(vendor: Vendor, container: Container, *, cores: int) -> Demand | None:
    """Read one container's ask, ``cores`` where it names none; None without a count, or for zero cards."""
    names = vendor.resources
    count = limits.count(container, names.count)
    if not count:
        return None
    memory = limits.memory(container, names.memory, factor=names.memory_factor)
    named = limits.cores(container, names.cores)
    return Demand(
        vendor=vendor.word,
        count=count,
        memory=Exactly(memory) if memory else Whole(),
        cores=min(cores if named is None else named, 100),
    )
