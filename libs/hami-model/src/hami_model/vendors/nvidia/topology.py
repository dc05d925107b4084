"""Pick cards by how well they are connected (card policy ``topology-aware``).

One rule: one card is the one that the others miss least; several are those whose pairs score highest together. Scores
are the node's own (``Device.links``), a missing one is 0. Among equals the first in walk order.
"""

from itertools import combinations
from math import comb

import numpy as np

from hami_model.picking import Passed, Picked, Picker, grouped, true_first
from hami_model.policies import TOPOLOGY
from hami_model.request import Demand
from hami_model.rows import Floats, Ints, Mask
from hami_model.vendor import Constraints, Vendor

_FEW = 128
"""So many subsets of a node's cards are quicker weighed than searched: any number of eight cards has at most 70."""


def choose(vendor: Vendor, demand: Demand, constraints: Constraints) -> Picker | None:
    """Return how to pick cards, where the pod's card policy asks for it."""
    if TOPOLOGY not in constraints.card_policies:
        return None

    def pick(passed: Passed) -> Picked:
        among = _same_numa(passed, demand.count) if constraints.numa_bind else passed.passes
        return _best_connected(passed, among, demand.count)

    return pick


def _same_numa(passed: Passed, count: int) -> Mask:
    """Return the cards of one NUMA node: HAMi compat: of several that suffice, the one walked last."""
    numa = np.take_along_axis(passed.rows.numa, passed.order, axis=1)
    size, first = grouped(numa, passed.passes)
    most = size.shape[1] + 1
    merit = np.where(size >= count, most * most + first, most * size - first)
    best = np.argmax(np.where(passed.passes, merit, 0), axis=1)[:, np.newaxis]
    same: Mask = passed.passes & (numa == np.take_along_axis(numa, best, axis=1))
    return same


def _best_connected(passed: Passed, among: Mask, count: int) -> Picked:
    """Take ``count`` of the cards, or all of them where there are no more."""
    order = passed.order
    places = true_first(among)
    number = among.sum(axis=1)
    for size in np.unique(number[number > count]).tolist():
        nodes = np.flatnonzero(number == size)
        cards = np.take_along_axis(order[nodes], places[nodes, :size], axis=1)
        links = passed.rows.cards.links_of(passed.nodes[nodes])
        pairs = cards[:, :, np.newaxis] * links.shape[2] + cards[:, np.newaxis]
        links = np.take_along_axis(links.reshape(len(nodes), -1), pairs.reshape(len(nodes), -1), axis=1)
        links = links.reshape(pairs.shape)
        chosen = _least_missed(links) if count == 1 else _best_subsets(links, count)
        places[nodes, :count] = np.take_along_axis(places[nodes], chosen, axis=1)
    return Picked(places, np.minimum(number, count))


def _least_missed(links: Floats) -> Ints:
    """Return, for each node, the card that has the lowest score with the others."""
    least: Ints = np.argmin(links.sum(axis=2), axis=1)[:, np.newaxis]
    return least


def _best_subsets(links: Floats, count: int) -> Ints:
    """Return each node's best subset: weigh all of them at once where they are few, else search node by node."""
    nodes, size, _ = links.shape
    flat = links.reshape(nodes, -1)
    if comb(size, count) <= _FEW:
        subsets, by_pair = np.array(list(combinations(range(size), count))), np.ascontiguousarray(flat.T)
        pairs = (subsets[:, one] * size + subsets[:, other] for one, other in combinations(range(count), 2))
        best: Ints = subsets[np.argmax(sum(by_pair[pair] for pair in pairs), axis=0)]
        return best
    kinds, kind_of = np.unique(flat, axis=0, return_inverse=True)
    found: Ints = np.array([_Subsets(kind.reshape(size, size).tolist(), count).best() for kind in kinds])
    return found[kind_of.ravel()]


class _Subsets:
    """All subsets of one size in walk order, leaving out those that cannot beat the best one found."""

    def __init__(self, links: list[list[float]], count: int) -> None:
        self._links = links
        self._count = count
        self._highest = max(max(row) for row in links)
        self._pairs = count * (count - 1) // 2
        self._best: tuple[int, ...] = ()
        self._score = 0.0

    def best(self) -> tuple[int, ...]:
        """Return the subset whose pairs score highest, the first one among equals."""
        self._extend((), 0)
        return self._best

    def _extend(self, chosen: tuple[int, ...], score: float) -> None:
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
