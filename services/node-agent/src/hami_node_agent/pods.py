"""The pods of the own node, as our watch shows them, and what was pushed to us about pods that it does not show yet.

One rule: what the API server stored wins over what was pushed, and a push is believed for a moment only; a pod that
left the API server is remembered for a while, because the kubelet may still ask for it.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable
from typing import TypeVar

from hami_kit.clock import Clock, SystemClock
from hami_model.allocation import Allocation
from hami_model.bus.messages import PushAllocation, Withdraw
from hami_model.errors import MalformedAllocation
from hami_model.objects import Meta, Pod, PodRef
from msgspec import Struct

R = TypeVar("R")

REMEMBERED = 256
"""Pods that left the API server, and pushes, that are kept: more than one node ever runs."""

FRESH = 2.5
"""Seconds for which a push is believed. A leader pushes while it believes in its Lease, which is free for the next one
2.5 s later: whoever hears neither of the two any more must not go by a Binding that the next one has replaced."""

ReadAllocation = Callable[[Pod], Allocation | None]
"""Reads the allocation that the binding wrote; raises ``MalformedAllocation``."""


class _Pushed(Struct, frozen=True):
    message: PushAllocation
    at: float


class NodePods:
    """What is known of the node's pods, by uid; whoever waits hears of each change."""

    def __init__(self, node: str, read_allocation: ReadAllocation, *, clock: Clock | None = None) -> None:
        self._node = node
        self._clock = clock or SystemClock()
        self._read = read_allocation
        self._live: dict[str, Pod] = {}
        self._gone: OrderedDict[str, Pod] = OrderedDict()
        self._pushed: OrderedDict[str, _Pushed] = OrderedDict()
        self._term = ""
        self._followed: set[str] = set()
        """Terms of leaders that were followed by another."""
        self._news = asyncio.Event()

    # --- what arrives

    def replace(self, pods: Iterable[Pod], unread: Collection[str] = ()) -> None:
        """Take a whole list: a pod that is missing has left the API server; one that could not be read has not."""
        listed = {uid: pod for uid, pod in self._live.items() if uid in unread}
        listed |= {pod.metadata.uid: pod for pod in pods}
        for uid in self._live.keys() - listed.keys():
            _remember(self._gone, uid, self._live[uid])
        self._live = listed
        for uid in listed:
            self._gone.pop(uid, None)
        self._tell()

    def miss(self, pods: Iterable[PodRef]) -> None:
        """Count pods as gone that hold something here and that the API server has no more, though no watch said so."""
        for ref in pods:
            if ref.uid not in self._live:
                _remember(self._gone, ref.uid, Pod(metadata=Meta(ref.name, ref.namespace, ref.uid)))

    def see(self, pod: Pod) -> None:
        """Take one pod as it is now."""
        self._live[pod.metadata.uid] = pod
        self._gone.pop(pod.metadata.uid, None)
        self._tell()

    def read(self, pod: Pod) -> None:
        """Take a pod that we asked for ourselves, unless the watch has told of its end meanwhile."""
        if pod.spec.node_name == self._node and pod.metadata.uid not in self._gone:
            self.see(pod)

    def lose(self, pod: Pod) -> None:
        """Take note that a pod left the API server."""
        self._live.pop(pod.metadata.uid, None)
        _remember(self._gone, pod.metadata.uid, pod)
        self._tell()

    def push(self, message: PushAllocation) -> None:
        """Keep what the leader says a pod will get here; who was followed by another says nothing any more."""
        if message.term in self._followed:
            return
        self.led_by(message.term)
        if message.allocation.node == self._node:
            _remember(self._pushed, message.allocation.pod.uid, _Pushed(message, self._clock.boottime()))
            self._tell()

    def led_by(self, term: str) -> None:
        """Forget what earlier leaders pushed: their Bindings may never have landed, and the new one decides anew."""
        if term == self._term:
            return
        self._followed.add(self._term)
        self._followed.discard(term)
        self._term = term
        for uid in [uid for uid, pushed in self._pushed.items() if pushed.message.term != term]:
            del self._pushed[uid]

    def withdraw(self, message: Withdraw) -> None:
        """Forget what was pushed for a pod; what the API server stored stands."""
        self._pushed.pop(message.pod.uid, None)

    # --- what is asked

    @property
    def live(self) -> tuple[Pod, ...]:
        """Return the pods that the API server has on this node."""
        return tuple(self._live.values())

    @property
    def pushed(self) -> tuple[Allocation, ...]:
        """Return every pushed allocation that is still believed, of pods that were never seen here."""
        unseen = self._pushed.keys() - self._live.keys() - self._gone.keys()
        believed = (self._believed(uid) for uid in self._pushed if uid in unseen)
        return tuple(message.allocation for message in believed if message is not None)

    def get(self, uid: str) -> Pod | None:
        """Return a pod as last seen, gone or not."""
        return self._live.get(uid) or self._gone.get(uid)

    def is_live(self, uid: str) -> bool:
        """Say whether the API server has the pod on this node, as far as we have heard."""
        return uid in self._live

    def is_over(self, uid: str) -> bool:
        """Say whether the pod was seen here and has ended or left the API server since."""
        pod = self._live.get(uid)
        return uid in self._gone if pod is None else pod.status.phase in {"Succeeded", "Failed"}

    def named(self, namespace: str, name: str) -> tuple[Pod, ...]:
        """Return every pod of that name seen here, the living first."""
        seen = (*self._live.values(), *reversed(self._gone.values()))
        return tuple(p for p in seen if (p.metadata.namespace, p.metadata.name) == (namespace, name))

    def allocation(self, pod: PodRef) -> Allocation | None:
        """Return what the pod gets: as stored with its binding, else as pushed; None = nothing readable is at hand."""
        seen = self.get(pod.uid)
        stored = self._stored(seen) if seen is not None else None
        pushed = self._believed(pod.uid)
        return stored or (pushed.allocation if pushed is not None else None)

    def pushed_trace(self, uid: str) -> str:
        """Return the traceparent that came with the pod's allocation; empty = none did."""
        pushed = self._pushed.get(uid)
        return pushed.message.traceparent if pushed is not None else ""

    async def wait_for(self, find: Callable[[], R | None], timeout: float) -> R | None:
        """Return what ``find`` finds, at once or after the next news, or None when the time is over."""
        try:
            async with asyncio.timeout(timeout):
                while (found := find()) is None:
                    await self._news.wait()
                return found
        except TimeoutError:
            return None

    def _believed(self, uid: str) -> PushAllocation | None:
        pushed = self._pushed.get(uid)
        return pushed.message if pushed is not None and self._clock.boottime() - pushed.at < FRESH else None

    def _stored(self, pod: Pod) -> Allocation | None:
        if pod.spec.node_name != self._node:
            return None
        try:
            return self._read(pod)
        except MalformedAllocation:
            return None

    def _tell(self) -> None:
        self._news.set()
        self._news = asyncio.Event()


def _remember(shelf: "OrderedDict[str, R]", uid: str, thing: R) -> None:
    shelf[uid] = thing
    shelf.move_to_end(uid)
    while len(shelf) > REMEMBERED:
        shelf.popitem(last=False)
