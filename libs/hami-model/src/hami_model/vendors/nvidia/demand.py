"""What a container asks of NVIDIA cards.

One rule: a percentage of 0 says as little as none at all; a memory of 0 means the default. Explicit memory wins over a
percentage, which then only weighs in when cards are scored (HAMi compat).
"""

from hami_model import limits
from hami_model.config import Nvidia
from hami_model.errors import InvariantError
from hami_model.objects import Container
from hami_model.request import Demand, Exactly, MemoryDemand, Percent, Whole
from hami_model.vendor import Vendor


def settings(vendor: Vendor) -> Nvidia:
    """Return the section of the device config that the vendor was made from."""
    if not isinstance(vendor.settings, Nvidia):
        raise InvariantError(f"vendor {vendor.word} carries no NVIDIA settings")
    return vendor.settings


def demand(vendor: Vendor, container: Container) -> Demand | None:
    """Read one container's ask; None without a count, or for zero cards."""
    names = vendor.resources
    count = limits.count(container, names.count)
    if not count:
        return None
    config = settings(vendor)
    memory = limits.memory(container, names.memory, factor=names.memory_factor)
    percent = limits.percentage(container, names.percentage)
    cores = limits.cores(container, names.cores)
    return Demand(
        vendor=vendor.word,
        count=count,
        memory=_memory(memory, percent, config.default_memory),
        cores=min(config.default_cores if cores is None else cores, 100),
        percent_hint=(percent or None) if memory else None,
    )


def _memory(memory: int | None, percent: int | None, default: int) -> MemoryDemand:
    if memory:
        return Exactly(memory)
    if percent:
        return Percent(percent)
    return Exactly(default) if default else Whole()
