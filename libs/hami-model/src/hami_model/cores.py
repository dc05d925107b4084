"""What a demand takes of a card's cores, in the form in which that is booked and stands in device lists.

One rule: each case of ``CoreUnit`` is handled here, for one card and for forty thousand; the form is that of
``Device.cores``.
"""

from typing import assert_never

import numpy as np

from hami_model.request import CoreUnit, Demand
from hami_model.rows import Ints, Mask

WHOLE_CARD = 100
"""All cores of a card, in percent."""


def taken(demand: Demand, cores: Ints, used: Ints) -> Ints | int:
    """Return what each card gives that has so many cores, so many of them booked; nothing is refused here."""
    match demand.core_unit:
        case CoreUnit.PERCENT:
            return min(demand.cores, WHOLE_CARD)
        case CoreUnit.UNITS:
            units: Ints = np.maximum(np.minimum(cores * demand.cores // WHOLE_CARD, cores), 1)
            return units
        case CoreUnit.BITS:
            return _lowest_bits(cores & ~used, demand.cores) if demand.cores else cores
        case _ as never:
            assert_never(never)


def are_free(demand: Demand, cores: Ints, used: Ints) -> Mask:
    """Say which cards have that much left."""
    if demand.core_unit is not CoreUnit.BITS:
        return used + taken(demand, cores, used) <= cores
    free: Ints = np.bitwise_count(cores & ~used)
    return free >= (demand.cores or np.bitwise_count(cores))


def most(demand: Demand, cores: int) -> int:
    """Return the most that the demand can take of a card that has so many."""
    if demand.core_unit is CoreUnit.BITS:
        return cores
    return int(taken(demand, np.array(cores), np.array(0)))


def counted(unit: CoreUnit, booked: int) -> int:
    """Return how much of a quota a booked number uses."""
    return booked.bit_count() if unit is CoreUnit.BITS else booked


def left(unit: CoreUnit, cores: Ints, used: Ints) -> Ints:
    """Return what is not booked of cards that have so many cores."""
    free: Ints = cores & ~used if unit is CoreUnit.BITS else np.maximum(cores - used, 0)
    return free


def text(unit: CoreUnit, booked: int) -> str:
    """Write a booked number for people."""
    match unit:
        case CoreUnit.PERCENT:
            return f"{booked} %"
        case CoreUnit.UNITS:
            return f"{booked} compute unit{'s' * (booked != 1)}"
        case CoreUnit.BITS:
            number = booked.bit_count()
            return f"{number} core{'s' * (number != 1)}"
        case _ as never:
            assert_never(never)


def _lowest_bits(free: Ints, count: int) -> Ints:
    """Return the lowest ``count`` bits of each mask, or all where it has fewer."""
    found, left = np.zeros_like(free), np.full_like(free, count)
    for bit in range(int(free.max(initial=0)).bit_length()):
        is_taken = ((free >> bit) & 1) * (left > 0)
        found |= is_taken << bit
        left -= is_taken
    return found
