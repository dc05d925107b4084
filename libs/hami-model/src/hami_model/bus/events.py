"""What the outside hears: one CloudEvents 1.0 envelope per fact, in the past tense.

One rule: an event is told after the fact and never read back for a decision.
"""

from msgspec import Struct, field

EVENT_KINDS = (
    "reserved", "bound", "active", "released", "rejected",
    "inventory.changed", "inventory.conflict", "inventory.malformed", "health.changed",
    "quota.denied", "drift", "drift.cleared", "unaccounted", "unconfirmed", "malformed", "gap",
)  # fmt: skip


class CloudEvent(Struct, frozen=True, kw_only=True, rename={"content_type": "datacontenttype"}):
    """CloudEvents 1.0 in structured JSON mode; ``type`` is ``io.hami.<kind>.v1``, ``subject`` a pod or a node."""

    id: str
    source: str
    type: str
    time: str
    subject: str = ""
    specversion: str = "1.0"
    content_type: str = "application/json"
    traceparent: str = ""
    data: dict[str, object] = field(default_factory=dict)
