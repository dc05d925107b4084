"""Ask one demand of every card of the fleet at once: which nodes may take it, and what the others answer.

One rule: a node that the survey rules out would be ruled out by the walk too, with the same words wherever
``is_final`` says so; what the survey lets through, the walk decides.
"""

import numpy as np
from msgspec import Struct, structs

from hami_model.checks import FITS, NODE_WIDE, Ask, first_refusals
from hami_model.columns import NOBODY
from hami_model.fleet import Fleet
from hami_model.quota import Room
from hami_model.refusals import NOTHING, Tally
from hami_model.rows import Ints, Mask, Rows

_FEW = 4
"""Below one in so many nodes, their rows are gathered instead of asking the whole fleet."""


class Survey(Struct, frozen=True):
    """What the cards of every node answer to one demand; arrays are indexed by node id."""

    ask: Ask
    passing: Ints
    tally: Tally
    is_cut: Mask | None = None
    """Which nodes have cards that give several parts each: only the walk counts those."""

    @property
    def may_fit(self) -> Mask:
        """Say which nodes have enough cards that pass."""
        enough = self.passing >= self.ask.demand.count
        return enough if self.is_cut is None else enough | (self.is_cut & (self.passing > 0))

    @property
    def is_final(self) -> Mask:
        """Say which nodes' refusals are known in HAMi's words without a walk."""
        ask, tally = self.ask, self.tally
        if self.is_cut is not None:
            return structs.replace(self, is_cut=None).is_final & ~self.is_cut
        too_few = tally.total < ask.demand.count
        closed = tally.counts[:, [reason in NODE_WIDE for reason in tally.reasons]].any(axis=1)
        if ask.picker is not None:
            return too_few | closed
        depends = ask.constraints.numa_bind or ask.room != Room()
        walked = self.passing == 0 if depends else ~self.may_fit
        final: Mask = too_few | closed | walked
        return final


def rows_for(fleet: Fleet, word: str, nodes: Ints) -> Rows:
    """Return the vendor's rows of at least these nodes, whichever is quicker."""
    cards = fleet.cards[word]
    return cards.among(nodes) if len(nodes) * _FEW < len(fleet.ids) else cards.all()


def survey(rows: Rows, ask: Ask, capacity: int) -> Survey:
    """Ask one demand of all rows; ``capacity`` is one more than the largest node id."""
    codes = first_refusals(rows, ask)
    node, checks = rows.node, len(ask.checks)
    # One count for each node and answer; the last column, reached by FITS = -1, is the cards that pass.
    answers = np.bincount(node * (checks + 1) + codes % (checks + 1), minlength=capacity * (checks + 1))
    table = answers.reshape(capacity, checks + 1)
    table[NOBODY] = 0
    passing = table[:, FITS]
    tally = Tally(
        wanted=ask.demand.count,
        reasons=tuple(check.reason for check in ask.checks),
        counts=table[:, :FITS],
        total=table.sum(axis=1),
        short=np.where(passing > 0, passing, NOTHING),
        told=ask.vendor.told,
    )
    is_cut = None
    if rows.cards.cut_nodes:
        is_cut = np.zeros(capacity, dtype=np.bool_)
        is_cut[list(rows.cards.cut_nodes)] = True
    return Survey(ask, passing, tally, is_cut)
