"""MetaX GPUs given whole.

One rule: the node's capacity says how many there are; its two topology annotations say how much a number of its cards
is worth (``scores``) and what taking them breaks up (``losses``), and so which node is the best.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from hami_model import capacity, counted, selectors
from hami_model.config import Metax
from hami_model.device import Device
from hami_model.keys import is_served
from hami_model.objects import Node
from hami_model.picking import Given
from hami_model.rows import Floats
from hami_model.vendor import AnnotationKeys, ResourceNames, Vendor

WORD = "Metax-GPU"
MEMORY = 65536
"""MiB of a card: a fixed number in HAMi too, since the capacity names none."""
LOSSES, SCORES = "metax-tech.com/gpu.topology.losses", "metax-tech.com/gpu.topology.scores"
BEST = 2000.0


def vendor(config: Metax) -> Vendor:
    """Describe whole cards."""
    return Vendor(
        word=WORD,
        resources=ResourceNames(count=config.resource_count_name),
        keys=AnnotationKeys(
            to_allocate="hami.io/metax-gpu-devices-to-allocate", allocated="hami.io/metax-gpu-devices-allocated"
        ),
        settings=config,
        demand=counted.whole,
        admit=counted.admit,
        discover=_discover,
        constraints=selectors.constraints,
        confirmed=is_served,
        node_score=_node_score,
        best_bonus=BEST,
    )


def _discover(vendor: Vendor, node: Node) -> tuple[Device, ...]:
    tables = {key: _table(node.annotations[key]) for key in (LOSSES, SCORES) if key in node.annotations}
    return tuple(
        Device(
            id=f"{node.metadata.name}-metax-{index}",
            vendor=WORD,
            index=index,
            slots=1,
            memory=MEMORY,
            cores=100,
            model=WORD,
            custom=dict(tables),
        )
        for index in range(capacity.amount(node, vendor.resources.count))
    )


def _table(text: str) -> dict[str, int]:
    """Read what so many cards are worth, by number; a table that cannot be read says nothing."""
    try:
        return msgspec.json.decode(text, type=dict[str, int])
    except msgspec.DecodeError:
        return {}


def _node_score(vendor: Vendor, given: Sequence[Given]) -> Floats:
    """Return what the pod's number of cards is worth on each node; where its table does not say, as little as can be.

    Under ``binpack`` little loss is worth much. HAMi compat: under ``spread`` nodes without a table come first.
    """
    rows, number = given[0].rows, str(sum(got.positions.shape[1] for got in given))
    fills = given[0].ask.policies.prefers_full_nodes
    devices = (rows.cards.devices[row] for row in rows.numbers[:, 0].tolist())
    worth = [_worth_losing(device, number) if fills else _worth_having(device, number) for device in devices]
    bonus: Floats = np.array(worth, dtype=np.float64)
    return bonus


def _worth_losing(device: Device | None, number: str) -> float:
    loss = (_told(device, LOSSES) or {}).get(number)
    return 0.0 if loss is None else BEST - min(max(loss, 0), BEST)


def _worth_having(device: Device | None, number: str) -> float:
    table = _told(device, SCORES)
    return 0.0 if table is None else min(max(table.get(number, 0), 0), BEST) - BEST


def _told(device: Device | None, key: str) -> Mapping[str, Any] | None:
    table = device.custom.get(key) if device is not None else None
    return table if isinstance(table, dict) else None
