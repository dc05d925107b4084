"""Ask one demand of every card of the fleet at once: which nodes may take it, and what the others answer.

One rule: a node that the survey rules out would be ruled out by the walk too, with the same words wherever
``is_final`` says so; what the survey lets through, the walk decides.
"""

from collections.abc import Iterable, Sequence

import numpy as np
from msgspec import Struct

from hami_model.checks import FITS, NODE_WIDE, Ask, first_refusals
from hami_model.columns import NOBODY, Ints, Mask, Rows
from hami_model.fleet import Fleet
from hami_model.quota import Room
from hami_model.reason import NODE_INSUFFICIENT, Reason, reason_text

_INT64_ROOM = 2**62
_FEW = 4
"""Below one in so many nodes, their rows are gathered instead of asking the whole fleet."""


class Survey(Struct, frozen=True):
    """What the cards of every node answer to one demand; arrays are indexed by node id."""

    ask: Ask
    total: Ints
    passing: Ints
    refused: Ints
    """How many cards each check refuses first: one row for each node, one column for each check."""

    @property
    def may_fit(self) -> Mask:
        """Say which nodes have enough cards that pass."""
        return self.passing >= self.ask.demand.count

    @property
    def is_final(self) -> Mask:
        """Say which nodes' refusals are known in HAMi's words without a walk."""
        ask, too_few = self.ask, self.total < self.ask.demand.count
        closed = self.refused[:, [check.reason in NODE_WIDE for check in ask.checks]].any(axis=1)
        if ask.picker is not None:
            return too_few | closed
        depends = ask.constraints.numa_bind or ask.room != Room()
        walked = self.passing == 0 if depends else ~self.may_fit
        final: Mask = too_few | closed | walked
        return final

    def texts(self, nodes: Ints) -> dict[str, Ints]:
        """Return HAMi's words for nodes whose refusal is final, each with positions in ``nodes``."""
        columns = [self.total[nodes], self.passing[nodes], *self.refused[nodes].T]
        groups, firsts = _alike(columns)
        order = np.argsort(groups, kind="stable")
        members = np.split(order, np.searchsorted(groups[order], np.arange(1, len(firsts))))
        return _merged((self._text(int(nodes[first])), found) for first, found in zip(firsts, members, strict=True))

    def _text(self, node_id: int) -> str:
        total = int(self.total[node_id])
        if total < self.ask.demand.count:
            return NODE_INSUFFICIENT
        counts: dict[Reason, int] = {}
        for check, refused in zip(self.ask.checks, self.refused[node_id].tolist(), strict=True):
            if refused and check.reason in NODE_WIDE:
                return reason_text({check.reason: 1}, total)
            if refused:
                counts[check.reason] = counts.get(check.reason, 0) + refused
        passing = int(self.passing[node_id])
        if passing:
            counts[Reason.TOO_FEW_CARDS] = passing
        return reason_text(counts, total)


def rows_for(fleet: Fleet, word: str, nodes: Sequence[int]) -> Rows:
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
    return Survey(ask, table.sum(axis=1), table[:, FITS], table[:, :FITS])


def _alike(columns: Sequence[Ints]) -> tuple[Ints, Ints]:
    """Group positions with equal values in all columns: return each one's group, and each group's first position."""
    key, size = np.zeros(len(columns[0]), dtype=np.int64), 1
    for column in columns:
        top = int(column.max(initial=0)) + 1
        if size * top > _INT64_ROOM:
            key = np.unique(key, return_inverse=True)[1]
            size = len(key)
        key, size = key * top + column, size * top
    _, firsts, groups = np.unique(key, return_index=True, return_inverse=True)
    return groups, firsts


def _merged(found: Iterable[tuple[str, Ints]]) -> dict[str, Ints]:
    merged: dict[str, Ints] = {}
    for text, positions in found:
        merged[text] = np.sort(np.concatenate([merged[text], positions])) if text in merged else positions
    return merged
