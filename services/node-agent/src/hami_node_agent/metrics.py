"""What the agent shows of itself on ``/metrics``: read from the agent when asked, counted nowhere twice."""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from hami_node_agent.agent import Agent


def register(registry: CollectorRegistry, agent: Agent) -> None:
    """Show the agent's numbers in this registry."""
    registry.register(_Numbers(agent))


class _Numbers(Collector):
    def __init__(self, agent: Agent) -> None:
        self._agent = agent

    def collect(self) -> Iterator[Metric]:
        """Return the numbers as they are now."""
        answered = CounterMetricFamily("hami_node_agent_allocates", "Allocates answered", labels=["result"])
        answered.add_metric(["served"], self._agent.served)
        answered.add_metric(["refused"], self._agent.refused)
        yield answered
        held = {device_id for entry in self._agent.table.entries for device_id in entry.ids}
        yield GaugeMetricFamily("hami_node_agent_device_ids_held", "Device IDs that containers hold", value=len(held))
        unheard = len(self._agent.reports.waiting)
        yield GaugeMetricFamily(
            "hami_node_agent_statements_unacknowledged", "Statements that no allocator acknowledged", value=unheard
        )
