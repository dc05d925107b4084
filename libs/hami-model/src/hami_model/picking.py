"""What a vendor is asked where its cards' place on a node is special, and what it answers: for many nodes at once.

One rule: tables are [node, card] or [node, place in walk order]; a node's answer depends on nothing but that node.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from msgspec import Struct

from hami_model.columns import UNKNOWN_GROUP
from hami_model.rows import Floats, Ints, Mask, Rows

if TYPE_CHECKING:
    from hami_model.checks import Ask


class Passed(Struct, frozen=True):
    """The cards of many nodes that passed every check: tables of [node, card]."""

    rows: Rows
    order: Ints
    """Positions of each node's cards in walk order."""
    passes: Mask
    """Whether the card at this place of the walk order passed."""
    nodes: Ints
    """Node ids."""


class Picked(Struct, frozen=True):
    """What a picker took of each node."""

    places: Ints
    """Places in walk order, those taken first."""
    number: Ints
    """How many were taken; anything but the number asked for means no."""
    total: int | None = None
    """What then stands for the node's cards in HAMi's text; None = all of them."""


Picker = Callable[[Passed], Picked]
"""Picks cards for one demand among all cards of each node that passed every check."""


class Given(Struct, frozen=True):
    """What one container gets of one vendor on many nodes: positions among each node's cards."""

    rows: Rows
    positions: Ints
    ask: "Ask"


def given_cards(rows: Rows, given: Sequence[Given]) -> Mask:
    """Say which cards of each node the containers get."""
    taken = np.zeros(rows.shape, dtype=np.bool_)
    for got in given:
        np.put_along_axis(taken, got.positions, values=True, axis=1)
    return taken


def grouped(groups: Ints, counts: Mask) -> tuple[Ints, Ints]:
    """Return, for each place of tables of [node, place], the size of its group, and the first place of that group.

    Only places where ``counts`` is true are counted.
    """
    same = (groups[:, :, np.newaxis] == groups[:, np.newaxis]) & counts[:, np.newaxis]
    return same.sum(axis=2), np.argmax(same, axis=2)


def true_first(mask: Mask) -> Ints:
    """Return, for each node, the places where the mask is true, then the others, both in order."""
    size = mask.shape[1]
    places: Ints = np.argsort(np.arange(size) + size * ~mask, axis=1)
    return places


def biggest_group_first(passed: Passed, count: int) -> Picked:
    """Take cards group by group, the biggest first, unless all are wanted; of equal ones the first in walk order.

    HAMi compat: one card of an unknown group, even one that is not free, and the node has no groups.
    """
    groups = np.take_along_axis(passed.rows.group, passed.order, axis=1)
    number = passed.passes.sum(axis=1)
    is_unknown = (groups == UNKNOWN_GROUP).any(axis=1)
    by_walk = (is_unknown | (number <= count))[:, np.newaxis]
    size, first = grouped(groups, passed.passes)
    keys = np.where(by_walk, 0, first), np.where(by_walk, 0, -size), ~passed.passes
    return Picked(np.lexsort(keys, axis=1), np.minimum(number, count))


def togetherness(given: Sequence[Given]) -> Floats:
    """Return, for each node, 1 for each container whose cards are of one group, less where they are not.

    One card of an unknown group, and it is 0.
    """
    groups = [np.take_along_axis(got.rows.group, got.positions, axis=1) for got in given]
    known = np.all([(found != UNKNOWN_GROUP).all(axis=1) for found in groups], axis=0)
    shares = (grouped(found, np.ones(found.shape, dtype=np.bool_))[0].max(axis=1) / found.shape[1] for found in groups)
    total: Floats = sum(shares) * known
    return total
