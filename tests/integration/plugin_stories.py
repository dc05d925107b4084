"""What stories of vendors' own plugins are told with: one node, its lock, and pods bound as HAMi leaves them."""

from typing import Any

from tests.integration.one_node import NODE, OneNode, path_of

MUTEX = "hami.io/mutex.lock"
OF_P = "2026-01-02T15:04:05Z,default,p"
"""A lock of the pod ``p``."""
PENDING = {"hami.io/bind-phase": "allocating", "hami.io/bind-time": "1767225600", "hami.io/vgpu-node": NODE}


async def node_notes(node: OneNode) -> dict[str, str]:
    """Return the node's annotations."""
    return (await node.api.get(f"/api/v1/nodes/{NODE}"))["metadata"].get("annotations") or {}


async def notes(node: OneNode, pod: str) -> dict[str, str]:
    """Return a pod's annotations."""
    return (await node.api.get(path_of(pod)))["metadata"]["annotations"]  # type: ignore[no-any-return]


async def lock(node: OneNode, key: str, value: str) -> None:
    """Write a lock on the node."""
    await node.api.patch(f"/api/v1/nodes/{NODE}", {"metadata": {"annotations": {key: value}}})


async def bind(node: OneNode, pod: dict[str, Any], annotations: dict[str, str]) -> None:
    """Create a pod and bind it with its annotations."""
    made = await node.api.create("/api/v1/namespaces/default/pods", pod)
    await node.bind(made, annotations)
