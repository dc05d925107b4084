"""The lock annotations on nodes: written before a Binding, cleared after it was served.

One rule: the queue (``NodeLocks``) decides whose turn it is; this only shows the plugin. A lock is not cleared where
the next pod in line is about to write its own over it.
"""

from collections.abc import Callable, Sequence

from hami_kit.clock import Clock
from hami_kit.errors import KubeConflict, KubeError, KubeNotFound
from hami_kit.kube import Kube
from hami_model.errors import DomainError
from hami_model.objects import Node, PodRef
from hami_model.vendor import Lock

from hami_allocator.node_locks import NodeLocks, read_lock, write_lock
from hami_allocator.retry import Backoff

ATTEMPTS = 5


class LockKeeper:
    """Takes and opens node locks for pods."""

    def __init__(
        self, queues: NodeLocks, kube: Kube, clock: Clock, backoff: Backoff, seen: Callable[[str], Node | None]
    ) -> None:
        self._queues = queues
        self._kube = kube
        self._clock = clock
        self._backoff = backoff
        self._seen = seen
        self._held: dict[str, tuple[str, tuple[Lock, ...], PodRef]] = {}

    async def take(self, node: str, locks: Sequence[Lock], pod: PodRef, *, deadline: float) -> None:
        """Wait for the pod's turn on the node and write its locks; raise ``Contended``, or what the API server says."""
        if not locks:
            return
        await self._queues.wait_turn(node, locks, pod, deadline=deadline)
        self._held[pod.uid] = (node, tuple(locks), pod)
        await self._write(node, locks, pod)

    async def _write(self, node: str, locks: Sequence[Lock], pod: PodRef) -> None:
        values: dict[str, str | None] = {lock.key: write_lock(lock, pod, self._clock.now()) for lock in locks}
        fresh = self._seen(node) or await self._kube.get_node(node)
        for attempt in range(ATTEMPTS):
            if pod.uid not in self._held:  # its end was seen, and the next in line writes here by now
                raise DomainError(f"pod {pod} ended while node {node} was being locked for it")
            try:
                await self._kube.patch_node(node, annotations=values, resource_version=fresh.metadata.resource_version)
            except KubeConflict:
                await self._backoff.wait(attempt)
                fresh = await self._kube.get_node(node)
            else:
                return
        raise DomainError(f"node {node} changes faster than its lock can be written: the bind is tried again later")

    def forget(self) -> None:
        """Begin anew: what an earlier term of ours knew of locks is no longer true."""
        self._queues.forget()
        self._held.clear()

    def restore(self, node: Node, locks: Sequence[Lock], pod: PodRef, *, loop_time: float) -> None:
        """Take note of a pod found bound and not served yet; its lock counts from when it was written."""
        self._held[pod.uid] = (node.metadata.name, tuple(locks), pod)
        for lock in locks:
            value = read_lock(node.annotations.get(lock.key, ""))
            age = max(0.0, self._clock.now() - value.since) if value is not None else 0.0
            self._queues.restore(node.metadata.name, lock.key, pod, since=loop_time - age)

    def is_taken(self, node: str, key: str) -> bool:
        """Say whether any pod holds, or waits for, the lock."""
        return self._queues.is_taken(node, key)

    def holds(self, uid: str) -> bool:
        """Say whether the pod has a lock somewhere."""
        return uid in self._held

    def overdue(self, loop_time: float) -> tuple[str, ...]:
        """Return the pods whose locks are older than the timeout."""
        return self._queues.overdue(loop_time)

    async def open(self, uid: str) -> None:
        """Clear the pod's locks where nobody else writes over them at once, and let the next pod have its turn."""
        held = self._held.pop(uid, None)
        self._queues.leave(uid)
        if held is not None:
            node, locks, pod = held
            await self._clear(node, locks, lambda lock, text: _is_of(text, lock, pod))

    async def clear_left(self, node: str, locks: Sequence[Lock]) -> None:
        """Clear locks whose pods were served, ended or never bound while nobody led; what cannot be read goes too."""
        await self._clear(node, locks, lambda _lock, _text: True)

    async def _clear(self, node: str, locks: Sequence[Lock], is_to_go: Callable[[Lock, str], bool]) -> None:
        for attempt in range(ATTEMPTS):
            free = [lock for lock in locks if not self._queues.is_taken(node, lock.key)]
            if not free:
                return
            try:
                await self._clear_once(node, free, is_to_go)
            except KubeNotFound:
                return
            except KubeError as error:
                await self._backoff.wait(attempt, asked=error.retry_after)
            else:
                return

    async def _clear_once(self, node: str, locks: Sequence[Lock], is_to_go: Callable[[Lock, str], bool]) -> None:
        fresh = await self._kube.get_node(node)
        gone = {
            lock.key: None
            for lock in locks
            if not self._queues.is_taken(node, lock.key)
            and (text := fresh.annotations.get(lock.key)) is not None
            and is_to_go(lock, text)
        }
        if gone:
            await self._kube.patch_node(node, annotations=gone, resource_version=fresh.metadata.resource_version)


def _is_of(text: str, lock: Lock, pod: PodRef) -> bool:
    value = read_lock(text)
    return value is not None and (not lock.owned or (value.namespace, value.name) == (pod.namespace, pod.name))
