"""Disagreements as CloudEvents.

One rule: an agent tells of its own node alone, as a source of its own; ``source`` and number name an event for good.
"""

from itertools import count

from hami_kit.bus import Bus
from hami_kit.clock import Clock, rfc3339
from hami_model.bus.events import CloudEvent
from hami_model.bus.messages import Drift

from hami_node_agent.desk import trace_of
from hami_node_agent.pods import NodePods


class DriftEvents:
    """Puts what begins and what is over into the bus' outbox. ``agent`` is another at each start."""

    def __init__(self, bus: Bus, *, node: str, agent: str, pods: NodePods, clock: Clock) -> None:
        self._bus = bus
        self._node = node
        self._agent = agent
        self._pods = pods
        self._clock = clock
        self._numbers = count(1)

    def tell(self, kind: str, drift: Drift) -> None:
        """Tell of one disagreement; never waits, never fails."""
        data: dict[str, object] = {"node": self._node, "kind": drift.kind, "says": drift.says}
        data |= {"devices": [drift.device]} if drift.device else {}
        data |= {"uid": drift.pod.uid} if drift.pod is not None else {}
        event = CloudEvent(
            id=f"{self._agent}-{next(self._numbers)}",
            source=f"/hami/node-agent/{self._agent}",
            type=f"io.hami.{kind}.v1",
            time=rfc3339(self._clock.now()),
            subject=str(drift.pod) if drift.pod is not None else self._node,
            traceparent=trace_of(self._pods, drift.pod) if drift.pod is not None else "",
            data=data,
        )
        self._bus.emit(event)
