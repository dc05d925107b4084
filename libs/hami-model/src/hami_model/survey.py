"""Ask one demand of every card of the fleet at once: which nodes may take it, and what the others answer.

One rule: a node that the survey rules out would be ruled out by the walk too, with the same words wherever
``is_final`` says so; what the survey lets through, the walk decides.
"""

from functools import cached_property

import numpy as np

from hami_model.checks import FITS, NODE_WIDE, Ask, first_refusals
from hami_model.columns import NOBODY
from hami_model.fleet import Fleet
from hami_model.quota import Room
from hami_model.refusals import NOTHING, Tally
from hami_model.rows import Ints, Mask, Rows

_FEW = 4
"""Below one in so many nodes, their rows are gathered instead of asking the whole fleet."""


class Survey:
    """What the cards of every node answer to one demand; arrays are indexed by node id.

    ``capacity`` is one more than the largest node id. Why cards refuse is counted when somebody asks: as long as a node
    takes the pod, nobody does.
    """

    def __init__(self, rows: Rows, ask: Ask, capacity: int) -> None:
        self.ask = ask
        self._node, self._codes, self._capacity = rows.node, first_refusals(rows, ask), capacity
        self.passing: Ints = np.bincount(self._node[self._codes == FITS], minlength=capacity)
        self.passing[NOBODY] = 0
        self._is_cut = rows.cards.are_cut(np.arange(capacity)) if rows.cards.gives_parts else None
        """Which nodes have cards that give several parts each: only the walk counts those."""

    @cached_property
    def tally(self) -> Tally:
        """Count why cards refuse."""
        checks = len(self.ask.checks)
        # One count for each node and answer; the last column, reached by FITS = -1, is the cards that pass.
        answers = self._node * (checks + 1) + self._codes % (checks + 1)
        table = np.bincount(answers, minlength=self._capacity * (checks + 1)).reshape(self._capacity, checks + 1)
        table[NOBODY] = 0
        return Tally(
            wanted=self.ask.demand.count,
            reasons=tuple(check.reason for check in self.ask.checks),
            counts=table[:, :FITS],
            total=table.sum(axis=1),
            short=np.where(self.passing > 0, self.passing, NOTHING),
            told=self.ask.vendor.told,
        )

    @property
    def may_fit(self) -> Mask:
        """Say which nodes have enough cards that pass."""
        return self._has_enough if self._is_cut is None else self._has_enough | (self._is_cut & (self.passing > 0))

    @property
    def is_final(self) -> Mask:
        """Say which nodes' refusals are known in HAMi's words without a walk."""
        ask, tally = self.ask, self.tally
        final: Mask = tally.total < ask.demand.count
        final = final | tally.counts[:, [reason in NODE_WIDE for reason in tally.reasons]].any(axis=1)
        if ask.picker is None:
            depends = ask.constraints.numa_bind or ask.room != Room()
            final = final | (self.passing == 0 if depends else ~self._has_enough)
        return final if self._is_cut is None else final & ~self._is_cut

    @property
    def _has_enough(self) -> Mask:
        enough: Mask = self.passing >= self.ask.demand.count
        return enough


def rows_for(fleet: Fleet, word: str, nodes: Ints) -> Rows:
    """Return the vendor's rows of at least these nodes, whichever is quicker."""
    cards = fleet.cards[word]
    return cards.among(nodes) if len(nodes) * _FEW < len(fleet.ids) else cards.all()
