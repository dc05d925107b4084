"""Who may bind on a node whose plugin takes the pod named in a lock annotation as its own.

One rule: per (node, lock key) one pod is between its lock and its confirmation, the others wait in line. The queue is
the truth; the annotation is written for the plugin. Nothing here does I/O: waiting is waiting for others to leave.
"""

import asyncio
from collections import deque
from collections.abc import Iterable
from datetime import UTC, datetime

from hami_model.errors import DomainError
from hami_model.objects import PodRef
from hami_model.vendor import Lock
from msgspec import Struct, field

NodeKey = tuple[str, str]
"""Node name and the key of the lock annotation."""


class Contended(DomainError):
    """Another pod of the node is still being served; HAMi's text."""


class LockValue(Struct, frozen=True):
    """What a lock annotation says; a Cambricon lock and HAMi's oldest ones name no pod."""

    since: float
    namespace: str = ""
    name: str = ""


def write_lock(lock: Lock, pod: PodRef, now: float) -> str:
    """Return ``<RFC3339>,<namespace>,<pod>``, or the bare time where the plugin reads no owner."""
    stamp = datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return f"{stamp},{pod.namespace},{pod.name}" if lock.owned else stamp


def read_lock(text: str) -> LockValue | None:
    """Read a lock annotation; None for one that nobody could have meant."""
    stamp, *owner = text.split(",")
    try:
        since = datetime.fromisoformat(stamp)
    except ValueError:
        return None
    if since.tzinfo is None or len(owner) not in (0, 2):
        return None
    return LockValue(since.timestamp(), *owner)


def go_duration(seconds: float) -> str:
    """Write a duration as Go prints it (``5m0s``): it stands in a text that people and dashboards know."""
    whole = int(seconds)
    hours, minutes, rest = whole // 3600, whole // 60 % 60, seconds - whole + whole % 60
    tail = f"{rest:g}s"
    if hours:
        return f"{hours}h{minutes}m{tail}"
    return f"{minutes}m{tail}" if minutes else tail


class _Queue(Struct):
    holders: dict[str, float] = field(default_factory=dict)
    """Pod uid -> since when. More than one only after a rebuild that found several bound, unconfirmed pods."""
    waiting: deque[tuple[str, "asyncio.Future[None]"]] = field(default_factory=deque)


class NodeLocks:
    """The queues of all nodes that a foreign plugin serves."""

    def __init__(self, *, timeout: float) -> None:
        self._timeout = timeout
        self._queues: dict[NodeKey, _Queue] = {}

    async def wait_turn(self, node: str, locks: Iterable[Lock], pod: PodRef, *, deadline: float) -> None:
        """Become the holder of every lock of the node, in the order of the keys; ``deadline`` is in the loop's time.

        Raises ``Contended`` with HAMi's text where the line does not move in time; nothing is held then.
        """
        within = ""
        try:
            async with asyncio.timeout_at(deadline):
                for lock in sorted(set(locks), key=lambda lock: lock.key):
                    within = lock.within or go_duration(self._timeout)
                    await self._wait_one((node, lock.key), pod.uid)
        except TimeoutError:
            self.leave(pod.uid)
            raise Contended(f"node {node} has been locked within {within}: node lock contention") from None
        except asyncio.CancelledError:
            self.leave(pod.uid)
            raise

    async def _wait_one(self, place: NodeKey, uid: str) -> None:
        queue = self._queues.setdefault(place, _Queue())
        if uid in queue.holders:
            return
        loop = asyncio.get_running_loop()
        turn: asyncio.Future[None] = loop.create_future()
        queue.waiting.append((uid, turn))
        self._admit(place, loop.time())
        await turn

    def forget(self) -> None:
        """Begin anew, with no holder anywhere; nobody may be waiting."""
        self._queues.clear()

    def restore(self, node: str, key: str, pod: PodRef, *, since: float) -> None:
        """Take note of a pod found between its lock and its confirmation; ``since`` is in the loop's time."""
        self._queues.setdefault((node, key), _Queue()).holders[pod.uid] = since

    def is_taken(self, node: str, key: str) -> bool:
        """Say whether any pod holds, or waits for, the lock."""
        return (node, key) in self._queues

    def leave(self, uid: str, *, now: float | None = None) -> tuple[NodeKey, ...]:
        """Let the next in line everywhere the pod held or waited; return where it held."""
        at = asyncio.get_running_loop().time() if now is None else now
        left = []
        for place, queue in list(self._queues.items()):
            if queue.holders.pop(uid, None) is not None:
                left.append(place)
            queue.waiting = deque(turn for turn in queue.waiting if turn[0] != uid)
            self._admit(place, at)
        return tuple(left)

    def overdue(self, now: float) -> tuple[str, ...]:
        """Return the pods that have held a lock for longer than the timeout."""
        limit = now - self._timeout
        return tuple(uid for queue in self._queues.values() for uid, since in queue.holders.items() if since < limit)

    def _admit(self, place: NodeKey, now: float) -> None:
        queue = self._queues[place]
        while queue.waiting and not queue.holders:
            uid, turn = queue.waiting.popleft()
            if not turn.done():
                queue.holders[uid] = now
                turn.set_result(None)
        if not queue.holders and not queue.waiting:
            del self._queues[place]
