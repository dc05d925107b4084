"""The scheduler's queue: pods ready to be tried, being tried, waiting out their back-off, or waiting for a change.

One rule: a pod stands in exactly one of the four; what moved while a pod was being tried counts for it too.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable
from itertools import count

from msgspec import Struct

from hami_testkit.cluster.status import Json

LONGEST_WAIT = 300.0
"""Seconds after which a pod that waits for a change is tried again anyway."""


class Waiting(Struct):
    """One pod in the queue."""

    pod: Json
    attempts: int = 0
    due: float = 0
    """When its back-off is over."""
    moves: int = 0
    """How many changes of the cluster the queue had seen when the pod was taken."""

    @property
    def uid(self) -> str:
        """Return the pod's uid."""
        return str(self.pod["metadata"]["uid"])


class SchedulingQueue:
    """Pods that no node has yet."""

    def __init__(self, *, initial: float, longest: float, clock: Callable[[], float]) -> None:
        self._initial = initial
        self._longest = longest
        self._clock = clock
        self._order = count()
        self._active: list[tuple[int, int, str]] = []
        self._ready: dict[str, Waiting] = {}
        self._backoff: dict[str, Waiting] = {}
        self._unschedulable: dict[str, Waiting] = {}
        self._taken: dict[str, Waiting] = {}
        self._moves = 0
        self._changed = asyncio.Event()

    @property
    def unschedulable(self) -> tuple[str, ...]:
        """Return the uids of the pods that wait for a change of the cluster."""
        return tuple(self._unschedulable)

    def put(self, pod: Json) -> None:
        """Take a new pod, or the new state of one that is here."""
        uid = pod["metadata"]["uid"]
        for place in (self._taken, self._ready, self._backoff):
            if uid in place:
                place[uid].pod = pod
                return
        if uid not in self._unschedulable:
            self._activate(Waiting(pod))
        elif _wishes(self._unschedulable[uid].pod) != _wishes(pod):
            item = self._unschedulable.pop(uid)
            item.pod = pod
            self._requeue(item)
        else:
            self._unschedulable[uid].pod = pod

    def drop(self, uid: str) -> None:
        """Forget a pod that is bound or gone."""
        for place in (self._taken, self._ready, self._backoff, self._unschedulable):
            place.pop(uid, None)

    def give_back(self, item: Waiting, *, for_change: bool) -> None:
        """Take back a pod whose attempt failed; ``for_change``: only a change of the cluster can help it.

        A pod that was bound or deleted meanwhile does not come back.
        """
        if self._taken.pop(item.uid, None) is None:
            return
        item.attempts += 1
        item.due = self._clock() + min(self._initial * 2 ** (item.attempts - 1), self._longest)
        if for_change and item.moves == self._moves:
            self._unschedulable[item.uid] = item
        else:
            self._backoff[item.uid] = item
        self._changed.set()

    def move_all(self) -> None:
        """Let every pod that waits for a change be tried again, after its back-off."""
        self._moves += 1
        waiting, self._unschedulable = self._unschedulable, {}
        for item in waiting.values():
            self._requeue(item)

    async def take(self) -> Waiting:
        """Wait for the next pod to be tried: the highest priority, then the longest in the queue."""
        while True:
            self._promote()
            while self._active:
                uid = heapq.heappop(self._active)[2]
                if item := self._ready.pop(uid, None):
                    item.moves = self._moves
                    self._taken[uid] = item
                    return item
            self._changed.clear()
            try:
                async with asyncio.timeout(self._until_next()):
                    await self._changed.wait()
            except TimeoutError:
                continue

    def _promote(self) -> None:
        now = self._clock()
        for item in [item for item in self._backoff.values() if item.due <= now]:
            del self._backoff[item.uid]
            self._activate(item)
        for item in [item for item in self._unschedulable.values() if item.due + LONGEST_WAIT <= now]:
            del self._unschedulable[item.uid]
            self._activate(item)

    def _until_next(self) -> float | None:
        waits = [item.due for item in self._backoff.values()]
        waits += [item.due + LONGEST_WAIT for item in self._unschedulable.values()]
        return max(0.001, min(waits) - self._clock()) if waits else None

    def _requeue(self, item: Waiting) -> None:
        if item.due <= self._clock():
            self._activate(item)
        else:
            self._backoff[item.uid] = item
            self._changed.set()

    def _activate(self, item: Waiting) -> None:
        self._ready[item.uid] = item
        priority = item.pod["spec"].get("priority") or 0
        heapq.heappush(self._active, (-priority, next(self._order), item.uid))
        self._changed.set()


def _wishes(pod: Json) -> list[object]:
    meta = pod["metadata"]
    return [pod["spec"], meta.get("labels"), meta.get("annotations")]
