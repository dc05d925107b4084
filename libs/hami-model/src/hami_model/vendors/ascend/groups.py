"""Pick NPUs that reach each other quickly: of one network on a 910, both of a module on a 910C.

One rule: the biggest group is used first (HAMi compat); among groups of one size the first in walk order.
"""

from collections.abc import Sequence

import numpy as np

from hami_model.device import Device
from hami_model.picking import Given, Passed, Picked, Picker, biggest_group_first, grouped, togetherness
from hami_model.request import Demand
from hami_model.rows import Floats
from hami_model.vendor import Constraints, Vendor

FAMILY_910 = "Ascend910"
PAIRED = "Ascend910C"
NETWORK = "NetworkID"
BEST_BONUS = 10.0

_MODULE = 2


def choose(vendor: Vendor, demand: Demand, constraints: Constraints) -> Picker | None:
    """Return how to pick several NPUs of the 910 family; a single one is the first in walk order."""
    if demand.count == 1 or not vendor.word.startswith(FAMILY_910):
        return None
    by_group = _whole_modules if vendor.word == PAIRED else biggest_group_first

    def pick(passed: Passed) -> Picked:
        return by_group(passed, demand.count)

    return pick


def network(device: Device) -> float | None:
    """Return the network that an NPU names; None for none, or for one that is no number."""
    named = device.custom.get(NETWORK)
    return named if isinstance(named, int | float) and not isinstance(named, bool) else None


def node_score(vendor: Vendor, given: Sequence[Given]) -> Floats:
    """Return 10 for each container whose NPUs share one network, less where they do not, 0 where it is unknown."""
    return BEST_BONUS * togetherness(given)


def has_networks(word: str) -> bool:
    """Say whether the chip's nodes are scored by network."""
    return word.startswith(FAMILY_910)


def _whole_modules(passed: Passed, count: int) -> Picked:
    """Take modules of which both NPUs are free. HAMi compat: an odd count never fits, and counts stand for cards."""
    modules = np.take_along_axis(passed.rows.index // _MODULE, passed.order, axis=1)
    size, first = grouped(modules, passed.passes)
    is_whole = passed.passes & (size == _MODULE)
    number = np.minimum(is_whole.sum(axis=1), -(-count // _MODULE) * _MODULE)
    return Picked(np.lexsort((first, ~is_whole), axis=1), number, total=count)
