"""Who may share a card: pods of the classes online and offline keep to themselves, and all shares are of one QoS.

One rule: what a pod is, is counted on each of its cards (``Constraints.guest``, the column ``guests``). A card that
nobody else is on takes everybody; containers of one pod are company for each other.
"""

import numpy as np

from hami_model.checks import Ask
from hami_model.objects import Pod
from hami_model.rows import Ints, Mask, Rows
from hami_model.vendor import Constraints

CLASS, QOS = "metax-tech.com/sgpu-app-class", "metax-tech.com/sgpu-qos-policy"
ONLINE, OFFLINE = "online", "offline"
CLASSES = (ONLINE, OFFLINE)
POLICIES = ("best-effort", "fixed-share", "burst-share")
DEFAULT = POLICIES[0]

_KINDS = (*CLASSES, *POLICIES)
_WIDTH = 12
"""Bits that each kind of guest has in a card's number of guests."""


def guest(pod: Pod, *, alone: bool = False) -> int:
    """Return what a pod counts as on a card: its class, and its QoS unless it is online or has the whole card."""
    kind, qos = pod.annotations.get(CLASS), pod.annotations.get(QOS)
    kinds = [kind] if kind in CLASSES else []
    if kind != ONLINE and not alone:
        kinds.append(qos if qos in POLICIES else DEFAULT)
    return sum(1 << _WIDTH * _KINDS.index(one) for one in kinds if one)


def is_of(rules: Constraints, kind: str) -> bool:
    """Say whether a pod counts as a guest of this kind."""
    return bool(rules.guest >> _WIDTH * _KINDS.index(kind) & 1)


def number(rows: Rows, kind: str) -> Ints:
    """Return how many pods of a kind are on each card, this one left out."""
    found: Ints = rows.guests >> _WIDTH * _KINDS.index(kind) & (1 << _WIDTH) - 1
    return found


def is_idle(rows: Rows) -> Mask:
    """Say which cards nobody else is on."""
    idle: Mask = rows.cards.used_slots[rows.where] == 0
    return idle


def of_one_class(rows: Rows, ask: Ask) -> Mask | None:
    """Pods with a class only join such pods, and one that is offline joins none that is online."""
    online, offline = number(rows, ONLINE) > 0, number(rows, OFFLINE) > 0
    has_class = is_of(ask.constraints, ONLINE) or is_of(ask.constraints, OFFLINE)
    fits: Mask = is_idle(rows) | ((online | offline) == has_class)
    return fits & ~online if is_of(ask.constraints, OFFLINE) else fits


def of_one_qos(rows: Rows, ask: Ask) -> Mask | None:
    """Shares of a card have one QoS; whole cards, and pods that are online, have none."""
    if is_of(ask.constraints, ONLINE) or ask.demand.cores == 100:
        return None
    others = [number(rows, policy) > 0 for policy in POLICIES if not is_of(ask.constraints, policy)]
    fits: Mask = ~np.logical_or.reduce(others)
    return fits
