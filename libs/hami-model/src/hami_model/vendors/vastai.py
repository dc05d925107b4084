"""Vastai accelerators, whole or die by die, where a node lists each die of its physical cards (AICs) by itself.

One rule: cards and dies are asked for by number alone (``counted``). Dies of one AIC belong together: they are taken
together, and under the card policy ``mutex`` an AIC is one pod's.
"""

from collections.abc import Sequence

import numpy as np

from hami_model import counted, selectors
from hami_model.checks import CHECKS, Ask, Check
from hami_model.columns import UNKNOWN_GROUP
from hami_model.config import Names
from hami_model.device import Device
from hami_model.keys import is_served
from hami_model.picking import Given, Passed, Picked, Picker, biggest_group_first, togetherness
from hami_model.policies import MUTEX
from hami_model.reason import Reason
from hami_model.request import Demand
from hami_model.rows import Floats, Mask, Rows
from hami_model.vendor import MUTEX_LOCK, AnnotationKeys, Constraints, ResourceNames, Selectors, Vendor

WORD = "Vastai"
STRATEGY, DIES = "DeviceStrategy", "die"
AIC = "AIC"
BEST_BONUS = 1.0


def vendor(config: Names) -> Vendor:
    """Describe Vastai under the names of the device config."""
    return Vendor(
        word=WORD,
        resources=ResourceNames(count=config.resource_count_name),
        keys=AnnotationKeys(
            register="hami.io/node-va-register",
            handshake="hami.io/node-handshake-va",
            to_allocate="hami.io/Vastai-devices-to-allocate",
            allocated="hami.io/Vastai-devices-allocated",
        ),
        selectors=Selectors(use_uuid="vastaitech.com/use-gpuuuid", nouse_uuid="vastaitech.com/nouse-gpuuuid"),
        lock=MUTEX_LOCK,
        ids_are_local=True,
        settings=config,
        demand=counted.demand,
        admit=counted.admit,
        discover=counted.discover,
        constraints=selectors.constraints,
        confirmed=is_served,
        group=_aic,
        checks=(*CHECKS, Check(Reason.EXCLUSIVE_CONFLICT, _aic_unshared_if_mutex)),
        choose=_choose,
        node_score=_node_score,
        best_bonus=BEST_BONUS,
    )


def _aic(device: Device) -> str | None:
    """Return the physical card that a die is on; None for a whole card, or where the node does not say."""
    named = device.custom.get(AIC)
    return named if isinstance(named, str) and device.custom.get(STRATEGY) == DIES else None


def _aic_unshared_if_mutex(rows: Rows, ask: Ask) -> Mask | None:
    """Under the policy ``mutex`` no die of the AIC is in use."""
    if MUTEX not in ask.constraints.card_policies:
        return None
    aic = np.where(rows.group == UNKNOWN_GROUP, -1, rows.node * (rows.group.max(initial=0) + 1) + rows.group)
    fits: Mask = (aic < 0) | ~np.isin(aic, aic[rows.used_slots > 0])
    return fits


def _choose(vendor: Vendor, demand: Demand, constraints: Constraints) -> Picker | None:
    """Return how to pick several dies; a single one is the first in walk order, as whole cards are."""

    def pick(passed: Passed) -> Picked:
        return biggest_group_first(passed, demand.count)

    return None if demand.count == 1 else pick


def _node_score(vendor: Vendor, given: Sequence[Given]) -> Floats:
    """Return 1 for each container whose dies are of one AIC, less where they are not, 0 for whole cards."""
    return togetherness(given)
