"""Pick NPUs that reach each other quickly: of one network on a 910, both of a module on a 910C.

One rule: the biggest group is used first (HAMi compat); among groups of one size the first in walk order.
"""

from collections import Counter
from collections.abc import Sequence

from hami_model.allocation import Grant
from hami_model.request import Demand
from hami_model.vendor import Candidate, Choice, Constraints, Picker, Vendor

FAMILY_910 = "Ascend910"
PAIRED = "Ascend910C"
NETWORK = "NetworkID"
BEST_BONUS = 10.0

_MODULE = 2


def choose(vendor: Vendor, demand: Demand, constraints: Constraints) -> Picker | None:
    """Return how to pick several NPUs of the 910 family; a single one is the first in walk order."""
    if demand.count == 1 or not vendor.word.startswith(FAMILY_910):
        return None
    by_group = _whole_modules if vendor.word == PAIRED else _one_network

    def pick(candidates: Sequence[Candidate]) -> Choice:
        return by_group(candidates, demand.count)

    return pick


def node_score(vendor: Vendor, containers: tuple[tuple[Grant, ...], ...]) -> float:
    """Return 10 for each container whose NPUs share one network, less where they do not, 0 where it is unknown."""
    if any(NETWORK not in grant.custom for grants in containers for grant in grants):
        return 0.0
    networks = [Counter(grant.custom[NETWORK] for grant in grants) for grants in containers if grants]
    return sum(BEST_BONUS * max(network.values()) / network.total() for network in networks)


def has_networks(word: str) -> bool:
    """Say whether the chip's nodes are scored by network."""
    return word.startswith(FAMILY_910)


def _one_network(candidates: Sequence[Candidate], count: int) -> Choice:
    """Take NPUs network by network, unless all are wanted or some network is unknown."""
    if len(candidates) <= count or any(NETWORK not in c.device.custom for c in candidates):
        return _granted(candidates[:count])
    groups: dict[object, list[Candidate]] = {}
    for candidate in candidates:
        groups.setdefault(candidate.device.custom[NETWORK], []).append(candidate)
    biggest_first = sorted(groups.values(), key=len, reverse=True)
    return _granted([candidate for group in biggest_first for candidate in group][:count])


def _whole_modules(candidates: Sequence[Candidate], count: int) -> Choice:
    """Take modules of which both NPUs are free. HAMi compat: an odd count never fits, and counts stand for cards."""
    modules: dict[int, list[Candidate]] = {}
    for candidate in candidates:
        modules.setdefault(candidate.device.index // _MODULE, []).append(candidate)
    taken: list[Candidate] = []
    for module in modules.values():
        if len(module) == _MODULE and len(taken) < count:
            taken += module
    return Choice(grants=tuple(candidate.grant for candidate in taken), total=count)


def _granted(candidates: Sequence[Candidate]) -> Choice:
    return Choice(grants=tuple(candidate.grant for candidate in candidates))
