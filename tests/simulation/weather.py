"""What becomes of one request on its way to the API server and back.

One rule: everything is drawn from the seed, and nothing happens here that a network or an API server cannot do.
"""

from random import Random

from msgspec import Struct

SOON = (0.05, 1.0)
"""Seconds after which a write lands whose connection broke at once: its sender is trying again by then."""

LATE = (20.0, 40.0)
"""Seconds after which a very late write arrives: its sender has long given up, and perhaps been deposed."""


class Fate(Struct, frozen=True):
    """How long a request travels, whether it arrives, what is answered, and whether the answer arrives."""

    way: float
    back: float
    arrives: bool = True
    refused: int = 0
    """An HTTP status with which the server turns it away, before doing anything."""
    answered: bool = True
    breaks: bool = False
    """Without an answer: the connection breaks at once, instead of the caller waiting for his deadline."""


class Weather:
    """How bad it is, and what was ordered for the next write."""

    def __init__(self, rng: Random) -> None:
        self._rng = rng
        self.trouble = rng.choice((0.0, 0.02, 0.06, 0.15))
        """The share of requests to which something happens."""
        self.slow = rng.choice((0.0, 0.02, 0.1))
        """The share of requests that take seconds."""
        self.late_bindings = 0
        """Bindings that will arrive very late."""
        self.lost_answers = 0
        """Bindings that will be stored and not answered."""
        self.broken = 0
        """Bindings whose connection will break while the server is still at it."""

    def calm_down(self) -> None:
        """End all trouble."""
        self.trouble = self.slow = 0.0
        self.late_bindings = self.lost_answers = self.broken = 0

    def fate(self, method: str, path: str) -> Fate:
        """Draw what becomes of a request."""
        rng = self._rng
        way, back = rng.uniform(0.001, 0.02), rng.uniform(0.001, 0.02)
        if self.slow and rng.random() < self.slow:
            way += rng.uniform(0.5, 8.0)
        if path.endswith("/binding"):
            if self.late_bindings:
                self.late_bindings -= 1
                return Fate(rng.uniform(*LATE), back, answered=False, breaks=rng.random() < 0.5)
            if self.broken:
                self.broken -= 1
                return Fate(rng.uniform(*SOON), back, answered=False, breaks=True)
            if self.lost_answers:
                self.lost_answers -= 1
                return Fate(way, back, answered=False, breaks=rng.random() < 0.5)
        if self.trouble and rng.random() < self.trouble:
            return self._trouble(way, back, writes=method != "GET")
        return Fate(way, back)

    def _trouble(self, way: float, back: float, *, writes: bool) -> Fate:
        rng = self._rng
        kind = rng.random()
        breaks = rng.random() < 0.6
        if kind < 0.3:
            return Fate(way, back, refused=rng.choice((429, 500, 503)))
        if kind < 0.6:
            return Fate(way, back, arrives=False, answered=False, breaks=breaks)
        if kind < 0.9 or not writes:
            return Fate(way, back, answered=False, breaks=breaks)
        return Fate(rng.uniform(*LATE), back, answered=False, breaks=breaks)
