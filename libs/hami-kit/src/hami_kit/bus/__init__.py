"""The bus: publish, request, subscribe, serve, emit; the only place that imports the nats library."""

from hami_kit.bus.client import connect
from hami_kit.bus.seam import Bus, BusSettings, BusStatistics, Endpoint, Handle, MalformedHook, NotMine, Serving

__all__ = [
    "Bus",
    "BusSettings",
    "BusStatistics",
    "Endpoint",
    "Handle",
    "MalformedHook",
    "NotMine",
    "Serving",
    "connect",
]
