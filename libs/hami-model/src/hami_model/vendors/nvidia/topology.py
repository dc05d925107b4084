"""Pick cards by how well they are connected (card policy ``topology-aware``).

One rule: one card is the one that the others miss least; several are those whose pairs score highest together. Scores
are the node's own (``Device.links``), a missing one is 0. Among equals the first in walk order.
"""

from collections.abc import Sequence

from hami_model.device import Device
from hami_model.policies import TOPOLOGY
from hami_model.request import Demand
from hami_model.vendor import Candidate, Choice, Constraints, Picker, Vendor


def choose(vendor: Vendor, demand: Demand, constraints: Constraints) -> Picker | None:
    """Return how to pick cards, where the pod's card policy asks for it."""
    if TOPOLOGY not in constraints.card_policies:
        return None

    def pick(candidates: Sequence[Candidate], cards: Sequence[Device]) -> Choice:
        group = _same_numa(candidates, demand.count) if constraints.numa_bind else candidates
        return Choice(grants=tuple(candidate.grant for candidate in best_connected(group, demand.count)))

    return pick


def best_connected(candidates: Sequence[Candidate], count: int) -> Sequence[Candidate]:
    """Return ``count`` of the candidates, or all of them where there are no more."""
    if len(candidates) <= count:
        return candidates
    links = _links(candidates)
    if count == 1:
        least = min(range(len(candidates)), key=lambda at: sum(links[at]))
        return [candidates[least]]
    return [candidates[at] for at in _Subsets(links, count).best()]


def _same_numa(candidates: Sequence[Candidate], count: int) -> Sequence[Candidate]:
    """Return the cards of one NUMA node: HAMi compat: of several that suffice, the one walked last."""
    groups: dict[int, list[Candidate]] = {}
    for candidate in candidates:
        groups.setdefault(candidate.device.numa, []).append(candidate)
    enough = [group for group in groups.values() if len(group) >= count]
    return (enough or [max(groups.values(), key=len, default=[])])[-1]


def _links(candidates: Sequence[Candidate]) -> list[list[int]]:
    return [
        [0 if one is other else one.device.links.get(other.device.id, 0) for other in candidates] for one in candidates
    ]


class _Subsets:
    """All subsets of one size in walk order, leaving out those that cannot beat the best one found."""

    def __init__(self, links: list[list[int]], count: int) -> None:
        self._links = links
        self._count = count
        self._highest = max(max(row) for row in links)
        self._pairs = count * (count - 1) // 2
        self._best: tuple[int, ...] = ()
        self._score = 0

    def best(self) -> tuple[int, ...]:
        """Return the subset whose pairs score highest, the first one among equals."""
        self._extend((), 0)
        return self._best

    def _extend(self, chosen: tuple[int, ...], score: int) -> None:
        if len(chosen) == self._count:
            if not self._best or score > self._score:
                self._best, self._score = chosen, score
            return
        known = len(chosen) * (len(chosen) - 1) // 2
        if self._best and score + (self._pairs - known) * self._highest <= self._score:
            return
        start = chosen[-1] + 1 if chosen else 0
        for at in range(start, len(self._links) - (self._count - len(chosen)) + 1):
            self._extend((*chosen, at), score + sum(self._links[other][at] for other in chosen))
