"""What a container asks of one Ascend chip. Admission has rounded its memory already; here it is read as written."""

from hami_model import limits
from hami_model.objects import Container
from hami_model.request import Demand, Exactly, Whole
from hami_model.vendor import Vendor


def demand(vendor: Vendor, container: Container) -> Demand | None:
    """Read one container's ask; None without a count, or for zero cards."""
    names = vendor.resources
    count = limits.count(container, names.count)
    if not count:
        return None
    memory = limits.memory(container, names.memory, factor=names.memory_factor)
    return Demand(
        vendor=vendor.word,
        count=count,
        memory=Exactly(memory) if memory else Whole(),
        cores=min(limits.cores(container, names.cores) or 0, 100),
    )
