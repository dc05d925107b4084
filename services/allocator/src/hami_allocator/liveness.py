"""Who is still there: agents by their heartbeats, foreign plugins by what the kubelet counts and their handshake.

One rule: silence is counted on our own clock, and only while we could have heard.
"""

from hami_model.objects import Node
from hami_model.units import plain_integer
from hami_model.vendor import Vendor
from msgspec import Struct

AGENT_SILENCE = 30.0
"""Seconds without a heartbeat after which an agent's cards take no new pod."""
HANDSHAKE_SILENCE = 60.0
"""Seconds without a change of its handshake after which a plugin without devices counts as gone."""


class Hearing:
    """A clock that stands still while we are cut off from the bus."""

    def __init__(self, now: float) -> None:
        self._heard = 0.0
        self._last = now
        self._connected = True

    def tick(self, now: float, *, connected: bool) -> None:
        """Take note of the time; what passed while disconnected at either end does not count."""
        if connected and self._connected:
            self._heard += now - self._last
        self._connected = connected
        self._last = now

    @property
    def now(self) -> float:
        """Return the seconds during which we could hear."""
        return self._heard


class Heartbeats:
    """When each agent was last heard; one never heard counts from when we first knew of it."""

    def __init__(self, hearing: Hearing) -> None:
        self._hearing = hearing
        self._last: dict[str, float] = {}

    def heard(self, node: str) -> None:
        """Take note of a heartbeat, or of any other word of this agent."""
        self._last[node] = self._hearing.now

    def expect(self, node: str) -> None:
        """Start counting for an agent that we know only from its node's annotation."""
        self._last.setdefault(node, self._hearing.now)

    def forget(self, node: str) -> None:
        """Stop counting for a node that is gone."""
        self._last.pop(node, None)

    def is_alive(self, node: str) -> bool:
        """Say whether the agent was heard in the last 30 seconds of hearing."""
        last = self._last.get(node)
        return last is not None and self._hearing.now - last <= AGENT_SILENCE


class Handshake(Struct, frozen=True):
    """A plugin's handshake as last seen, and since when it has not changed."""

    value: str | None
    since: float


def counted(vendor: Vendor, node: Node) -> int:
    """Return how much of the vendor the kubelet offers on the node, by whichever of its resources a plugin registers.

    Cambricon's own plugin registers cores and memory, and never the count.
    """
    return max(_offers(vendor, node), default=0)


def is_withdrawn(vendor: Vendor, node: Node) -> bool:
    """Say whether the kubelet offers nothing of what a plugin has registered: the plugin is gone, or all is ill.

    It says so with its next status, within 10 s. Of what it does not name it has not heard yet.
    """
    offers = _offers(vendor, node)
    return bool(offers) and not any(offers)


def _offers(vendor: Vendor, node: Node) -> list[int]:
    offered = node.status.allocatable or {}
    names = (vendor.resources.count, vendor.resources.memory, vendor.resources.cores)
    return [plain_integer(offered[name]) or 0 for name in names if name in offered]


def shake(vendor: Vendor, node: Node, last: Handshake | None, now: float) -> Handshake:
    """Return the node's handshake of the vendor, keeping the old instant where the value is still the same."""
    value = node.annotations.get(vendor.keys.handshake) if vendor.keys.handshake else None
    return last if last is not None and last.value == value else Handshake(value, now)


def is_plugin_there(vendor: Vendor, node: Node, handshake: Handshake, now: float) -> bool:
    """Say whether a foreign plugin still serves the vendor's devices on the node."""
    if counted(vendor, node) > 0:
        return True
    return bool(vendor.keys.handshake) and now - handshake.since < HANDSHAKE_SILENCE
