"""Every subject of the bus, in one place.

One rule: nobody writes a subject as a literal elsewhere. A node name becomes one token: ``.`` turns into ``_``, which
no Kubernetes name has, so the way back is exact.
"""

PREFIX = "hami.v1"

FILTER = f"{PREFIX}.allocator.filter"
BIND = f"{PREFIX}.allocator.bind"
QUOTA = f"{PREFIX}.allocator.quota"
EXPLAIN = f"{PREFIX}.allocator.explain"
SIMULATE = f"{PREFIX}.allocator.simulate"
SNAPSHOT = f"{PREFIX}.allocator.snapshot"
LEADER = f"{PREFIX}.allocator.leader"
FOLLOWER = f"{PREFIX}.allocator.follower"

EVENTS_STREAM = "HAMI_EVENTS"
EVENT_PREFIX = f"{PREFIX}.event"
ALL_EVENTS = f"{EVENT_PREFIX}.>"

MAX_PAYLOAD = 8 * 1024 * 1024
"""Bytes; the server is started with the same number."""


def node_token(node: str) -> str:
    """Write a node name as one subject token."""
    return node.replace(".", "_")


def node_name(token: str) -> str:
    """Read a node name back from its subject token."""
    return token.replace("_", ".")


def of_node(node: str, what: str) -> str:
    """Return a node's subject: ``what`` is inventory, heartbeat, allocation, confirm, refuse, report or withdraw."""
    return f"{PREFIX}.node.{node_token(node)}.{what}"


def of_any_node(what: str) -> str:
    """Return the subject that matches ``what`` of every node."""
    return f"{PREFIX}.node.*.{what}"


def node_of(subject: str) -> str:
    """Return the node name in a subject made by ``of_node``."""
    return node_name(subject.split(".")[3])


def event(kind: str) -> str:
    """Return the subject of an event kind, such as ``reserved`` or ``quota.denied``."""
    return f"{EVENT_PREFIX}.{kind}"
