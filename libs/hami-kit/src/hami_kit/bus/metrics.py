"""What the bus has done, for ``/metrics``.

One rule: the numbers are read when somebody asks; the bus itself counts in plain integers.
"""

from collections.abc import Callable, Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from hami_kit.bus.seam import BusStatistics

_COUNTERS = {
    "reconnects": "Connections to NATS made again.",
    "received": "Messages and requests received.",
    "sent": "Messages and requests sent.",
    "malformed": "Messages that could not be read.",
    "failed": "Messages whose handler failed.",
    "events_sent": "Events stored in JetStream.",
    "events_lost": "Events dropped because too many waited.",
}
_GAUGES = {
    "connected": "Whether there is a connection to NATS.",
    "in_flight": "Messages and requests at work.",
    "events_waiting": "Events that wait to be stored.",
}


class BusCollector(Collector):
    """Shows the bus's statistics as ``hami_bus_*``."""

    def __init__(self, statistics: Callable[[], BusStatistics]) -> None:
        self._statistics = statistics

    def collect(self) -> Iterator[Metric]:
        """Return the numbers as of now."""
        now = self._statistics()
        for name, text in _COUNTERS.items():
            yield CounterMetricFamily(f"hami_bus_{name}", text, value=getattr(now, name))
        for name, text in _GAUGES.items():
            yield GaugeMetricFamily(f"hami_bus_{name}", text, value=float(getattr(now, name)))
