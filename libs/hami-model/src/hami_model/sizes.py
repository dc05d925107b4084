"""Cards that give shares of a few fixed sizes: which of them a demand gets.

One rule: the first size, in the order of the card's list, that has what is asked for; what is booked is the size, not
the ask. Where on the card a share lies is its own plugin's business.
"""

from collections.abc import Sequence

from hami_model.device import Size
from hami_model.request import Demand, Exactly

Sizes = tuple[Size, ...]
"""Every size that a card gives, those to be preferred first."""


def chosen(sizes: Sequence[Size], demand: Demand) -> Size | None:
    """Return the size that a demand gets: of exactly so many slices, or with so much memory and so many cores."""
    if demand.slices:
        return next((size for size in sizes if size.slices == demand.slices), None)
    memory = demand.memory.mib if isinstance(demand.memory, Exactly) else max((s.memory for s in sizes), default=0)
    return next((size for size in sizes if size.memory >= memory and size.cores >= demand.cores), None)
