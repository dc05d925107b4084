"""Cards that are cut into parts of fixed sizes at fixed places: which parts are possible, and which one is next.

One rule: the first possible part, in the order of its card's list, that is large enough and touches nothing that is
taken. What is taken is a mask: bit ``n`` is the card's memory slice ``n``.
"""

from collections.abc import Iterable
from functools import lru_cache

from msgspec import Struct

from hami_model.allocation import Cut
from hami_model.device import Placement

SLICES = 32
"""So many slices a card may have here; real ones have 8."""

EVERYWHERE = Cut(profile="", placement=Placement(start=0, size=SLICES))
"""The whole card, held by a pod of which nobody knows the part that it has."""


class Part(Struct, frozen=True, kw_only=True):
    """One part that a card can be cut into: memory in MiB, cores in percent."""

    cut: Cut
    memory: int
    cores: int


Parts = tuple[Part, ...]
"""Every possible part of a card, those to be preferred first."""


def is_possible(placement: Placement) -> bool:
    """Say whether a placement is a range of slices at all."""
    return placement.start >= 0 and placement.size > 0 and placement.start + placement.size <= SLICES


def slices(placements: Iterable[Placement]) -> int:
    """Return the slices that placements take, as a mask; what lies beyond the last slice takes the whole card."""
    mask = 0
    for placement in placements:
        whole = placement if is_possible(placement) else EVERYWHERE.placement
        mask |= ((1 << whole.size) - 1) << whole.start
    return mask


def first_free(parts: Parts, taken: int, memory: int) -> Part | None:
    """Return the part that a demand of so many MiB gets beside the slices taken."""
    fitting = (part for part in parts if part.memory >= memory)
    return next((part for part in fitting if not slices([part.cut.placement]) & taken), None)


@lru_cache(maxsize=4096)
def one_after_another(parts: Parts, taken: int, memory: int) -> Parts:
    """Return the parts that a demand of so many MiB each gets until none is left."""
    found: list[Part] = []
    while (part := first_free(parts, taken, memory)) is not None:
        found.append(part)
        taken |= slices([part.cut.placement])
    return tuple(found)


def largest(parts: Parts) -> int:
    """Return the most memory that one part has."""
    return max((part.memory for part in parts), default=0)
