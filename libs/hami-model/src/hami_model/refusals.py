"""What nodes that refuse a pod say: reasons counted over their cards, and HAMi's words for them.

One rule: nodes with equal counts say the same, so words are written once for each different count.
"""

from collections.abc import Callable, Iterator, Mapping

import numpy as np
from msgspec import Struct

from hami_model.alike import alike
from hami_model.checks import NODE_WIDE
from hami_model.reason import NODE_INSUFFICIENT, Reason, reason_text
from hami_model.rows import Ints

NOTHING = -1


class Tally(Struct, frozen=True, kw_only=True):
    """How many cards of each node are refused, and why; arrays are indexed alike by node."""

    wanted: int
    reasons: tuple[Reason, ...]
    counts: Ints
    """One row for each node, one column for each reason."""
    total: Ints
    """How many cards the node has."""
    short: Ints
    """How many cards would do, but are not enough, or ``NOTHING`` where that is not said."""
    over: int | None = None
    """What stands for the number of cards in the text; None = that number."""
    told: Callable[[Mapping[Reason, int]], Mapping[Reason, int]] | None = None
    """What of the counts is told (``Vendor.told``)."""

    def texts(self, nodes: Ints) -> Iterator[tuple[str, Ints]]:
        """Yield HAMi's words with the positions in ``nodes`` whose nodes say them."""
        columns = [self.total[nodes], self.short[nodes] - NOTHING, *self.counts[nodes].T]
        for members in alike(columns):
            yield self.text(int(nodes[members[0]])), members

    def text(self, node: int) -> str:
        """Return HAMi's words for one node."""
        total, short = int(self.total[node]), int(self.short[node])
        if total < self.wanted:
            return NODE_INSUFFICIENT
        counts: dict[Reason, int] = {}
        for reason, count in zip(self.reasons, self.counts[node].tolist(), strict=True):
            if count and reason in NODE_WIDE:
                return reason_text({reason: 1}, total)
            if count:
                counts[reason] = counts.get(reason, 0) + count
        if short != NOTHING:
            counts[Reason.TOO_FEW_CARDS] = short
        told = counts if self.told is None else self.told(counts)
        return reason_text(told, total if self.over is None else self.over)


class Refusals:
    """What each node that refuses said last, by node id."""

    def __init__(self, capacity: int) -> None:
        self._texts: dict[str, int] = {}
        self._said: Ints = np.full(capacity, NOTHING, dtype=np.int64)

    def note(self, nodes: Ints, text: str) -> None:
        """Take note of what some nodes say."""
        self._said[nodes] = self._texts.setdefault(text, len(self._texts))

    def unheard(self, nodes: Ints) -> Ints:
        """Return those nodes that have not said anything, each once."""
        is_asked = np.zeros(len(self._said), dtype=np.bool_)
        is_asked[nodes] = True
        return np.flatnonzero(is_asked & (self._said == NOTHING))

    def by_text(self, nodes: Ints) -> dict[str, list[int]]:
        """Return HAMi's words with the positions in ``nodes`` of those that say them."""
        said, texts = self._said[nodes], list(self._texts)
        groups = {int(said[members[0]]): members for members in alike([said - NOTHING])}
        return {texts[number]: members.tolist() for number, members in groups.items() if number != NOTHING}
