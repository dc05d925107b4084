"""What a vendor is asked where its cards' place on a node is special, and what it answers: for many nodes at once.

One rule: tables are [node, card] or [node, place in walk order]; a node's answer depends on nothing but that node.
"""

from collections.abc import Callable

import numpy as np
from msgspec import Struct

from hami_model.rows import Ints, Mask, Rows


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
