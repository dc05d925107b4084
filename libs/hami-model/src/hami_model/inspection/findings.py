"""What an inspection finds, as values.

One rule: a finding says what is wrong in one sentence with its numbers, and its rule says the way out.
"""

from enum import StrEnum

from msgspec import Struct


class Severity(StrEnum):
    """How bad it is: an error breaks a promise, a warning needs a person, the last was not looked at at all."""

    ERROR = "error"
    WARNING = "warning"
    UNCHECKED = "not checked"


class Finding(Struct, frozen=True, kw_only=True):
    """One thing that is wrong. ``pod`` is ``namespace/name``; what a finding is not about is empty."""

    severity: Severity
    rule: str
    says: str
    way_out: str
    node: str = ""
    card: str = ""
    pod: str = ""
    had: int | None = None
    """What there is of it, where the rule is about an amount."""
    used: int | None = None

    def __str__(self) -> str:
        return f"{self.severity}: {self.rule}: {self.says}; {self.way_out}"


class Rule(Struct, frozen=True, kw_only=True):
    """What must hold. ``passes``: a cluster at work breaks it for moments, so one look proves nothing."""

    name: str
    severity: Severity
    means: str
    way_out: str
    passes: bool = False

    def broken(
        self,
        says: str,
        *,
        node: str = "",
        card: str = "",
        pod: str = "",
        amount: tuple[int, int] | None = None,
    ) -> Finding:
        """Return the finding that this rule is broken; ``amount``: what there is, and what is used of it."""
        had, used = amount if amount is not None else (None, None)
        return Finding(
            severity=self.severity,
            rule=self.name,
            says=says,
            way_out=self.way_out,
            node=node,
            card=card,
            pod=pod,
            had=had,
            used=used,
        )
