"""Whether a Binding whose answer was lost has landed, can still land, or never will.

One rule: only proof frees devices, never time. The proofs that it can no longer land: the pod is not there (404), has
another uid, is being deleted, is bound elsewhere, or our own patch moved its resourceVersion while it was unbound, so
that the Binding, which names the older one, gets 409.
"""

from msgspec import Struct

from hami_model.life import Bound, Entry, Released
from hami_model.objects import Pod


class StillUnknown(Struct, frozen=True):
    """The pod is unbound and the Binding may still land: patch the pod, or ask again."""

    uid: str


def settle(
    entry: Entry, fresh: Pod | None, *, has_patched: bool = False, at: float = 0.0
) -> Bound | Released | StillUnknown:
    """Judge a Binding by a fresh quorum read of its pod, ``None`` for 404.

    ``has_patched``: what was read is the API server's answer to a patch that we sent after the Binding.
    """
    uid = entry.uid
    if fresh is None:
        return Released(uid=uid, why="the pod is gone")
    if fresh.metadata.uid != uid:
        return Released(uid=uid, why=f"the pod was replaced by a namesake with uid {fresh.metadata.uid}")
    if fresh.spec.node_name == entry.node:
        return Bound(uid=uid, at=at)
    if fresh.spec.node_name:
        return Released(uid=uid, why=f"the pod was bound to {fresh.spec.node_name} by somebody else")
    if fresh.metadata.deletion_timestamp:
        return Released(uid=uid, why="the pod is being deleted, so no Binding is accepted any more")
    if has_patched:
        return Released(uid=uid, why="a patch of ours moved the pod past the Binding")
    return StillUnknown(uid)
