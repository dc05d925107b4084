"""Time as an argument.

One rule: nobody else reads the system's clocks, so that a test can hold them in its hand.
"""

import time
from typing import Protocol


class Clock(Protocol):
    """Three clocks: for people, for waits, and for what must also pass while the machine sleeps."""

    def now(self) -> float:
        """Return seconds since 1970; may jump."""
        ...

    def monotonic(self) -> float:
        """Return seconds that only grow; stands still while the machine is suspended."""
        ...

    def boottime(self) -> float:
        """Return seconds that only grow and also count suspension: what a lease is measured by."""
        ...


class SystemClock:
    """The machine's clocks."""

    def now(self) -> float:
        """Return seconds since 1970."""
        return time.time()

    def monotonic(self) -> float:
        """Return CLOCK_MONOTONIC."""
        return time.monotonic()

    def boottime(self) -> float:
        """Return CLOCK_BOOTTIME."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)


def rfc3339(seconds: float) -> str:
    """Write seconds since 1970 as RFC 3339 in UTC with microseconds, as Kubernetes' MicroTime does."""
    whole, micros = divmod(round(seconds * 1_000_000), 1_000_000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(whole))}.{micros:06d}Z"
