"""Pick NPUs that reach each other quickly: of one network on a 910, both of a module on a 910C.

One rule: the biggest group is used first (HAMi compat); among groups of one size the first in walk order.
"""

from collections import Counter
from collections.abc import Mapping, Sequence

from hami_model.allocation import Grant
from hami_model.device import Device
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
    count = demand.count

    def by_module(candidates: Sequence[Candidate], cards: Sequence[Device]) -> Choice:
        return _whole_modules(candidates, count)

    def by_network(candidates: Sequence[Candidate], cards: Sequence[Device]) -> Choice:
        # HAMi compat: one card of an unknown network, even one that is not free, and the node has no networks.
        known = all(_network(card.custom) is not None for card in cards)
        return _biggest_network(candidates, count) if known else _granted(candidates[:count])

    return by_module if vendor.word == PAIRED else by_network


def node_score(vendor: Vendor, containers: tuple[tuple[Grant, ...], ...]) -> float:
    """Return 10 for each container whose NPUs share one network, less where they do not, 0 where it is unknown."""
    networks = [Counter(_network(grant.custom) for grant in grants) for grants in containers if grants]
    if any(None in network for network in networks):
        return 0.0
    return sum(BEST_BONUS * max(network.values()) / network.total() for network in networks)


def has_networks(word: str) -> bool:
    """Say whether the chip's nodes are scored by network."""
    return word.startswith(FAMILY_910)


def _network(facts: Mapping[str, object]) -> float | None:
    """Return the network that a card names; None for none, or for one that is no number."""
    named = facts.get(NETWORK)
    return named if isinstance(named, int | float) and not isinstance(named, bool) else None


def _biggest_network(candidates: Sequence[Candidate], count: int) -> Choice:
    """Take NPUs network by network, unless all are wanted."""
    if len(candidates) <= count:
        return _granted(candidates)
    groups: dict[float | None, list[Candidate]] = {}
    for candidate in candidates:
        groups.setdefault(_network(candidate.device.custom), []).append(candidate)
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
