"""How good a node and a card are: 32-bit floats, added up in the order of HAMi's formula, so that equals stay equals.

One rule: a score says how full something is, nothing else; the policy says whether full is good. Nothing here refuses.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from hami_model.policies import PodPolicies, SortKey
from hami_model.request import Demand, Exactly, Percent, Whole
from hami_model.rows import Ints, Rows

Scores = npt.NDArray[np.float32]

_TEN = np.float32(10)


def node_scores(used: Ints, total: Ints) -> Scores:
    """Score nodes by what is booked on all their cards: rows of (slots, cores, memory). 0 where anything is missing."""
    with np.errstate(divide="ignore", invalid="ignore"):
        share = used.astype(np.float32) / total.astype(np.float32)
        full = _TEN * (share[:, 0] + share[:, 1] + share[:, 2])
    return np.where((total > 0).all(axis=1), full, np.float32(0))


def card_scores(rows: Rows, demands: Sequence[Demand], policies: PodPolicies) -> Scores:
    """Score cards by what is booked on them and what a container asks of all its vendors.

    HAMi compat: what is asked counts only where the card's model is the vendor's word itself.
    """
    weights = policies.weights
    slots, cores, memory = rows.slots, rows.cores, rows.memory
    used_slots, used_cores, used_memory = rows.used_slots, rows.used_cores, rows.used_memory
    for demand in demands:
        model = rows.cards.models.get(demand.vendor)
        if model is None:
            continue
        same = (rows.model == model).astype(np.int64)
        used_slots = used_slots + same
        used_cores = used_cores + same * demand.cores
        used_memory = used_memory + same * _weighed_memory(demand, memory)
    parts = (
        (weights.slot, used_slots, slots),
        (weights.core, used_cores, cores),
        (weights.memory, used_memory, memory),
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        first, second, third = (
            np.float32(weight) * used.astype(np.float32) / total.astype(np.float32) for weight, used, total in parts
        )
        full = _TEN * (first + second + third)
    known = (slots != 0) & (cores != 0) & (memory != 0)
    return np.where(known, full, np.float32(0))


def walk_order(rows: Rows, scores: Scores, keys: Sequence[SortKey], *, listed: Ints | None = None) -> Ints:
    """Return positions of each node's cards, the preferred card first: a stable sort of the list, walked from its end.

    ``listed``: the order in which the lists stand, where they are not the nodes' own any more.
    """
    columns: dict[str, Ints | Scores] = {
        "score": scores, "numa": rows.numa, "index": rows.index, "used_slots": rows.used_slots,
    }  # fmt: skip
    chosen = [-columns[key.column] if key.descending else columns[key.column] for key in reversed(keys)]
    if listed is None:
        order: Ints = np.lexsort(chosen, axis=-1)
    else:
        order = np.lexsort([np.take_along_axis(column, listed, axis=-1) for column in chosen], axis=-1)
        order = np.take_along_axis(listed, order, axis=-1)
    return order[..., ::-1]


def _weighed_memory(demand: Demand, memory: Ints) -> Ints | int:
    """Return what a demand weighs; a percentage written beside an exact memory weighs instead of it (HAMi compat)."""
    match demand.memory:
        case Percent(percent):
            pass
        case Whole():
            percent = 100
        case Exactly(mib):
            if demand.percent_hint is None:
                return mib
            percent = demand.percent_hint
    weighed: Ints = memory * percent // 100
    return weighed
