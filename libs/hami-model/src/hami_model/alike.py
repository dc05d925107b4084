"""Find what is alike: positions at which several columns hold the same values.

One rule: groups are numbered by their values, so equal columns give equal groups. Values are never negative.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from hami_model.rows import Ints

_INT64_ROOM = 2**62


def alike(columns: Sequence[Ints]) -> Iterator[Ints]:
    """Yield groups of positions with equal values in all columns, each in rising order."""
    if len(columns[0]) == 1:
        return iter([np.zeros(1, dtype=np.int64)])
    key, size = np.zeros(len(columns[0]), dtype=np.int64), 1
    for column in columns:
        top = int(column.max(initial=0)) + 1
        if size * top > _INT64_ROOM:
            key = np.unique(key, return_inverse=True)[1]
            size = len(key)
        key, size = key * top + column, size * top
    order = np.argsort(key, kind="stable")
    starts = np.flatnonzero(np.diff(key[order])) + 1
    return iter(np.split(order, starts)) if len(order) else iter(())
