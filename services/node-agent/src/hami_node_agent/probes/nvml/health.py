"""When a card is ill: by the errors that the driver reports (XIDs), and by what it says must be done to the card.

One rule: what an application did wrong is none of the card's fault. An ill card recovers when the driver asks for
nothing any more and the card has been quiet; HAMi's plugin forgets only when it is restarted.
"""

from collections.abc import Iterable

from msgspec import Struct

from hami_node_agent.probes.nvml.driver import DRAIN_P2P, NOTHING_TO_DO, Card

OF_APPLICATIONS = frozenset({13, 31, 43, 45, 68, 109})
"""XIDs that applications cause (HAMi compat)."""

EVERY = frozenset({"all", "xids"})

QUIET = 60.0
"""Seconds without another error after which the driver's word counts."""

QUIET_UNTOLD = 300.0
"""Seconds likewise, where the driver cannot say whether the card is well."""


class XidRules(Struct, frozen=True, kw_only=True):
    """Which XIDs count; as DP_DISABLE_HEALTHCHECKS and DP_ENABLE_HEALTHCHECKS say. What is named as counting counts."""

    ignored: frozenset[int] = OF_APPLICATIONS
    counted: frozenset[int] = frozenset()
    ignores_all: bool = False
    counts_all: bool = False

    @classmethod
    def of(cls, ignore: str, count: str) -> "XidRules":
        """Read both lists; raise ``ValueError`` naming the word that is no XID."""
        ignored, ignores_all = _read("DP_DISABLE_HEALTHCHECKS", ignore)
        counted, counts_all = _read("DP_ENABLE_HEALTHCHECKS", count)
        return cls(ignored=OF_APPLICATIONS | ignored, counted=counted, ignores_all=ignores_all, counts_all=counts_all)

    def counts(self, xid: int) -> bool:
        """Say whether the error makes a card ill."""
        if self.counts_all or xid in self.counted:
            return True
        return not self.ignores_all and xid not in self.ignored


def _read(variable: str, text: str) -> tuple[frozenset[int], bool]:
    words = [word.strip() for word in text.lower().split(",") if word.strip()]
    wrong = next((word for word in words if word not in EVERY and not word.isdecimal()), None)
    if wrong is not None:
        raise ValueError(f'{variable}: "{wrong}" is no XID; write numbers such as 48,79, or all')
    return frozenset(int(word) for word in words if word.isdecimal()), any(word in EVERY for word in words)


class _Ill(Struct, frozen=True):
    xid: int
    since: float


class Infirmary:
    """Which cards are ill, by uuid."""

    def __init__(self, rules: XidRules) -> None:
        self._rules = rules
        self._ill: dict[str, _Ill] = {}

    def report(self, uuids: Iterable[str], xid: int, *, at: float) -> bool:
        """Take note of an error of these cards; say whether it makes them ill."""
        if not self._rules.counts(xid):
            return False
        self._ill |= {uuid: _Ill(xid, at) for uuid in uuids}
        return True

    def complaint(self, card: Card, *, at: float) -> str:
        """Say what ails a card that the driver shows; empty = nothing. A card that has recovered is forgotten."""
        if card.recovery not in (None, NOTHING_TO_DO, DRAIN_P2P):
            return f"the driver asks for {ACTIONS.get(card.recovery or 0, 'a repair')}"
        ill = self._ill.get(card.uuid)
        if ill is None:
            return ""
        if at - ill.since < (QUIET_UNTOLD if card.recovery is None else QUIET):
            return f"XID {ill.xid}"
        del self._ill[card.uuid]
        return ""


ACTIONS = {
    1: "a reset of the GPU", 2: "a reboot of the node", 4: "an empty GPU and its reset", 5: "a new IMEX domain",
    6: "a reset of the bus", 7: "a reboot of the system",
}  # fmt: skip
