"""How long ago something was, as kubectl's tables write it.

One rule: two or three significant figures, by the API server's own steps.
"""

from __future__ import annotations

from datetime import UTC, datetime

_MINUTE, _HOUR, _DAY, _YEAR = 60, 3600, 86_400, 365 * 86_400
_STEPS = (
    (2 * _MINUTE, 1, "s", 0, ""), (10 * _MINUTE, _MINUTE, "m", 1, "s"), (3 * _HOUR, _MINUTE, "m", 0, ""),
    (8 * _HOUR, _HOUR, "h", _MINUTE, "m"), (2 * _DAY, _HOUR, "h", 0, ""), (8 * _DAY, _DAY, "d", _HOUR, "h"),
    (2 * _YEAR, _DAY, "d", 0, ""), (8 * _YEAR, _YEAR, "y", _DAY, "d"),
)  # fmt: skip
"""Below so many seconds: the unit and its letter, and those of the rest, if any."""


def since(moment: str | None) -> str:
    """Return how long ago a moment was, as a table writes it."""
    if not moment:
        return "<unknown>"
    return human(int((datetime.now(UTC) - datetime.fromisoformat(moment)).total_seconds()))


def human(seconds: int) -> str:
    """Return a duration; clocks that differ by a second are no matter."""
    if seconds < -1:
        return "<invalid>"
    for below, unit, letter, small, small_letter in _STEPS:
        if seconds < below:
            whole, rest = divmod(max(0, seconds), unit)
            more = f"{rest // small}{small_letter}" if small and rest >= small else ""
            return f"{whole}{letter}{more}"
    return f"{seconds // _YEAR}y"
