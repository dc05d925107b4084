"""The card policy ``topology-aware`` without tricks: every subset is tried.

One rule: as in the slow scheduler, no code is shared with what it is compared with.
"""

from collections.abc import Iterable, Sequence
from itertools import combinations

from hami_model.device import Device


def best_connected(groups: Sequence[list[Device]], count: int) -> list[Device]:
    """Pick by pair scores in the last group that has enough cards: one the others miss least, several that fit best."""
    enough = [group for group in groups if len(group) >= count]
    if not enough:
        return groups[-1]
    group = enough[-1]
    if count == 1:
        return [min(group, key=lambda card: sum(card.links.get(other.id, 0) for other in group if other is not card))]
    return list(max(combinations(group, count), key=pair_scores))


def pair_scores(cards: Iterable[Device]) -> int:
    """Add up how well each pair of the cards is connected."""
    return sum(one.links.get(other.id, 0) for one, other in combinations(cards, 2))
