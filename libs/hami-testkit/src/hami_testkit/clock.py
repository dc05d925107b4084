"""A clock that a test holds in its hand.

One rule: it moves only when told to; suspension moves boot time and the wall, not the monotonic clock.
"""


class FakeClock:
    """The ``Clock`` protocol, standing still at a known moment."""

    def __init__(self, *, now: float = 1_700_000_000.0) -> None:
        self._now = now
        self._monotonic = 1_000.0
        self._boottime = 2_000.0

    def now(self) -> float:
        """Return seconds since 1970."""
        return self._now

    def monotonic(self) -> float:
        """Return seconds that only grow."""
        return self._monotonic

    def boottime(self) -> float:
        """Return seconds that only grow, suspension included."""
        return self._boottime

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self._monotonic += seconds
        self.suspend(seconds)

    def suspend(self, seconds: float) -> None:
        """Let the machine sleep: only the wall clock and boot time go on."""
        self._now += seconds
        self._boottime += seconds
