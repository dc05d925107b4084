"""Every "no" as a value. Turned into HAMi's words once, at the edge, by ``reason_text``.

One rule: nothing ever parses these words back. The words are HAMi's (spec scheduling §3.3).
"""

from collections.abc import Mapping
from enum import StrEnum


class Reason(StrEnum):
    """Why a card, or a node, does not take a demand. The value is HAMi's word."""

    UNHEALTHY = "CardNotHealth"
    CORDONED = "CardCordoned"
    TYPE_MISMATCH = "CardTypeMismatch"
    UUID_MISMATCH = "CardUuidMismatch"
    NUMA_MISMATCH = "NumaNotFit"
    SLOTS_EXHAUSTED = "CardTimeSlicingExhausted"
    EXCLUSIVE_CONFLICT = "ExclusiveDeviceAllocateConflict"
    QUOTA_EXCEEDED = "ResourceQuotaNotFit"
    INSUFFICIENT_MEMORY = "CardInsufficientMemory"
    INSUFFICIENT_CORES = "CardInsufficientCore"
    COMPUTE_EXHAUSTED = "CardComputeUnitsExhausted"
    MIG_INFEASIBLE = "CardMigTopologyInfeasible"
    CUSTOM_RULE = "CardNotFoundCustomFilterRule"
    MODE_MISMATCH = "ModeNotFit"
    CARD_UNHEALTHY = "CardUnhealthy"
    """HAMi's word for ``UNHEALTHY`` among MetaX's shares."""
    CLASS_MISMATCH = "CardAppClassMismatch"
    QOS_MISMATCH = "CardQosPolicyMismatch"
    TOO_FEW_CARDS = "AllocatedCardsInsufficientRequest"


NODE_UNREGISTERED = "node unregistered"
NODE_INSUFFICIENT = "NodeInsufficientDevice"
TYPE_NOT_FOUND = "Device type not found"


def reason_text(counts: Mapping[Reason, int], total: int) -> str:
    """Write counted reasons as HAMi does: ``1/4 CardCordoned, 3/4 CardInsufficientMemory``, parts sorted as text."""
    return ", ".join(sorted(f"{n}/{total} {reason.value}" for reason, n in counts.items()))
