"""Cards cut with MIG: known, shown and left alone, since nobody here reserves their profiles and placements."""

from hami_model.checks import CHECKS, Ask, Check
from hami_model.reason import Reason
from hami_model.rows import Mask, Rows

MIG = "mig"


def whole(rows: Rows, ask: Ask) -> Mask | None:
    """The card is not cut with MIG: a share of memory and cores means nothing to its instances."""
    mode = rows.cards.modes.get(MIG)
    if mode is None:
        return None
    fits: Mask = rows.mode != mode
    return fits


WITH_PARTITIONS = (*CHECKS, Check(Reason.MIG_INFEASIBLE, whole))
"""HAMi's order: a partitioned card is refused last."""
