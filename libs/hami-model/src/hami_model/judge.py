"""What each card answers to a demand by itself, and in which order cards are asked: for one node or for many at once.

One rule: only what does not depend on the cards taken before is judged here; quota and NUMA runs are the walk's.
"""

from collections.abc import Sequence

import numpy as np
from msgspec import Struct, structs

from hami_model.checks import Ask, first_refusals
from hami_model.columns import Rows
from hami_model.quota import Room
from hami_model.request import Demand
from hami_model.score import card_scores, walk_order


class Judged(Struct, frozen=True):
    """One node's cards, by position: plain lists, since the walk looks at them one by one."""

    codes: list[int]
    """The first check that refuses the card, quota left out, or ``FITS``."""
    memory: list[int]
    """The MiB that the demand takes of the card."""
    order: list[int]
    """Positions in walk order."""


def judge(rows: Rows, ask: Ask, demands: Sequence[Demand], *, listed: Sequence[int] | None = None) -> Judged:
    """Judge one node's cards, listed in this order or else the node's. ``demands`` are all of the container's."""
    return _judged(rows, ask, demands, listed=listed)


def judge_each(rows: Rows, ask: Ask, demands: Sequence[Demand]) -> dict[int, Judged]:
    """Judge many nodes' cards in one pass; return each node's by its id. Rows must stand node by node."""
    judged, node = _judged(rows, ask, demands, by_node=True), rows.node
    starts = np.flatnonzero(np.diff(node, prepend=-1))
    spans = zip(starts.tolist(), [*starts[1:].tolist(), len(rows)], strict=True)
    # Walk order has the nodes by id; each node's rows are one span, there as here.
    places = {
        int(node[judged.order[at]]): at for at in np.flatnonzero(np.diff(node[judged.order], prepend=-1)).tolist()
    }
    each: dict[int, Judged] = {}
    for start, stop in spans:
        at = places[int(node[start])]
        order = [position - start for position in judged.order[at : at + stop - start]]
        each[int(node[start])] = Judged(judged.codes[start:stop], judged.memory[start:stop], order)
    return each


def _judged(
    rows: Rows, ask: Ask, demands: Sequence[Demand], *, listed: Sequence[int] | None = None, by_node: bool = False
) -> Judged:
    scores = card_scores(rows, demands, ask.policies)
    keys = ask.policies.card_order(numa_bind=ask.constraints.numa_bind)
    memory = ask.memory_on(rows)
    return Judged(
        first_refusals(rows, structs.replace(ask, room=Room())).tolist(),
        [memory] * len(rows) if isinstance(memory, int) else memory.tolist(),
        walk_order(rows, scores, keys, listed=listed, by_node=by_node),
    )
