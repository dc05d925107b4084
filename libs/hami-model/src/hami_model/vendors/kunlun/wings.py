"""Which XPUs of a node reach each other quickly: two wings of four, 0-3 and 4-7, linked across in pairs 0-4 … 3-7.

One rule: only a card's index says where it is, never its place in a list sorted by load (HAMi compat otherwise: the
rules and their order are HAMi's, spec vendors-b §4.2). Twice 256 answers, looked up for all nodes at once; where a node
has more than eight cards, each eight are by themselves.
"""

from collections.abc import Iterable, Sequence
from itertools import combinations

import numpy as np

from hami_model.picking import Given, Passed, Picked, given_cards
from hami_model.rows import Floats, Ints, Mask

WING, BOARD = 4, 8
SIZES = (1, 2, 4, 8)
"""How many cards may be taken together."""

BEST_BONUS = 3000.0

_PREFERRED = {1: (1, 3, 2, 4), 2: (2, 3, 4), 4: (4,)}
"""Free cards of the wing to take from, the best number first: what is begun is used up, and one card breaks no pair."""
_ACROSS = ((0, 1, 4, 5), (2, 3, 6, 7), (0, 2, 4, 6), (1, 3, 5, 7), (0, 3, 4, 7), (1, 2, 5, 6))
_NONE = -1


def pick(passed: Passed, count: int) -> Picked:
    """Take so many cards of each node, of the first eight that have them; other numbers than ``SIZES`` never fit."""
    size = passed.order.shape[1]
    numbers = np.take_along_axis(passed.rows.index, passed.order, axis=1)
    found: Ints = np.full((len(numbers), count), _NONE)
    if count in SIZES:
        for board in range(int(numbers.max(initial=0)) // BOARD + 1):
            free = _masks(numbers, passed.passes & (numbers // BOARD == board))
            chosen = _CHOICES[count][free]
            is_new = (found == _NONE).all(axis=1, keepdims=True) & (chosen != _NONE)
            found = np.where(is_new, chosen + board * BOARD, found)
    places = np.argmax(numbers[:, np.newaxis] == found[:, :, np.newaxis], axis=2)
    return Picked(places % size, np.where((found != _NONE).all(axis=1), count, 0))


def node_score(given: Sequence[Given]) -> Floats:
    """Return how little the cards given break up wings that were whole: 3000 at best, 0 at worst, for the whole pod.

    HAMi compat: the wings after it are judged by the cards given alone.
    """
    rows = given[0].rows
    before = _broken(_masks(rows.index, rows.cards.used_slots[rows.where] > 0))
    change = _broken(_masks(rows.index, given_cards(rows, given))) - before
    score: Floats = np.select([change == -1, change == 0, change == 2], [BEST_BONUS, 2000.0, 0.0], 1000.0)
    return score


def _masks(numbers: Ints, counts: Mask) -> Ints:
    """Return each node's cards as bits, by their number on their eight."""
    masks: Ints = np.bitwise_or.reduce(np.where(counts, 1 << (numbers % BOARD), 0), axis=1)
    return masks


def _broken(masks: Ints) -> Ints:
    """Return how much is broken up: a wing of four not at all, one with a single card most."""
    return _BROKEN[masks]


def _cards(mask: int) -> list[int]:
    return [card for card in range(BOARD) if mask >> card & 1]


def _chosen(count: int, mask: int) -> tuple[int, ...]:
    """Return the cards to take of those that are free; none where they do not fit together."""
    free = _cards(mask)
    if count == BOARD:
        return tuple(free) if len(free) == BOARD else ()
    wings = [card for card in free if card < WING], [card for card in free if card >= WING]
    if max(map(len, wings)) < count:
        return _across(count, free)
    for number in _PREFERRED[count]:
        for wing in wings:
            if len(wing) == number:
                return tuple(wing[:count])
    return ()


def _across(count: int, free: Sequence[int]) -> tuple[int, ...]:
    """Take cards of both wings that are linked in pairs, and of six leave two that are linked, where that can be."""
    if count == 2:
        return next(((card, card + WING) for card in range(WING) if {card, card + WING} <= set(free)), ())
    groups = [group for group in _ACROSS if count == len(group) and set(group) <= set(free)]
    if not groups:
        return ()
    if len(free) == count + 2:
        linked = (group for group in groups if _are_linked(set(free) - set(group)))
        return next(linked, groups[-1])
    return groups[0]


def _are_linked(pair: Iterable[int]) -> bool:
    return all(b - a == WING or a // WING == b // WING for a, b in combinations(sorted(pair), 2))


def _table(count: int) -> Ints:
    rows = (_chosen(count, mask) or (_NONE,) * count for mask in range(2**BOARD))
    return np.array(list(rows), dtype=np.int64)


def _breaks(mask: int) -> int:
    if not mask:
        return 1
    wings = (mask & 0b1111, mask >> WING)
    return sum({WING: 0, 1: 2}.get(wing.bit_count(), 1) for wing in wings)


_CHOICES = {count: _table(count) for count in SIZES}
_BROKEN: Ints = np.array([_breaks(mask) for mask in range(2**BOARD)], dtype=np.int64)
