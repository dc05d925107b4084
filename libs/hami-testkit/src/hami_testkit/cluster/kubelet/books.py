"""Which pods the kubelet knows, and how far each is; pure but for the clock that it is given.

One rule: a pod is known from its admission until the API server has lost it; what queues for it is not.
"""

from collections.abc import Callable
from enum import Enum

from msgspec import Struct

from hami_testkit.cluster.kubelet.pod import has_ended, uid_of
from hami_testkit.cluster.status import Json


class Stage(Enum):
    """How far a pod is."""

    ADMITTING = "admitting"
    ADMITTED = "admitted"
    REJECTED = "rejected"
    OVER = "over"


class Entry(Struct):
    """A pod as last seen."""

    pod: Json
    stage: Stage
    ended: float = 0.0


class PodBooks:
    """The pods of one node. ``linger``: seconds for which a pod that has just ended is still listed."""

    def __init__(self, *, linger: float, now: Callable[[], float]) -> None:
        self._linger = linger
        self._now = now
        self._entries: dict[str, Entry] = {}

    def put(self, pod: Json, stage: Stage) -> None:
        """Take in a pod, or note that it got further; its containers have ended when it is OVER."""
        known = self._entries.get(uid_of(pod))
        if known is None:
            self._entries[uid_of(pod)] = Entry(pod, stage)
        else:
            known.stage = stage
            known.ended = self._now()

    def renew(self, pod: Json) -> None:
        """Take in what the API server shows of a known pod."""
        if known := self._entries.get(uid_of(pod)):
            known.pod = pod

    def remove(self, uid: str) -> None:
        """Forget a pod."""
        self._entries.pop(uid, None)

    def knows(self, uid: str) -> bool:
        """Say whether the pod has come to its admission."""
        return uid in self._entries

    def active(self) -> set[str]:
        """Return the uids of the pods whose devices are not free again."""
        return {uid for uid, e in self._entries.items() if e.stage in {Stage.ADMITTING, Stage.ADMITTED}}

    def listed(self) -> list[Json]:
        """Return the pods that PodResources lists: in admission, admitted, and for a while the ones just ended."""
        return [e.pod for e in self._entries.values() if self._is_listed(e)]

    def known(self) -> list[Json]:
        """Return the pods that PodResources finds: rejected ones too, until the API server shows them as Failed."""
        return [e.pod for e in self._entries.values() if not has_ended(e.pod)]

    def _is_listed(self, entry: Entry) -> bool:
        if entry.stage is Stage.OVER:
            return bool(entry.ended) and self._now() - entry.ended < self._linger
        return entry.stage in {Stage.ADMITTING, Stage.ADMITTED}
