"""Refused pods are tried again when cards come free later than kube-scheduler could know.

One rule: kube-scheduler tries a refused pod again when something in the API changes, such as the end of a pod that held
cards. We free those cards somewhat later: when our own watch shows the end, or when the containers have let go. A pod
that was tried in between would wait for kube-scheduler's flush, five minutes; a mark on the node is one more change.
"""

import asyncio

from hami_kit.errors import KubeError

from hami_allocator.means import Means
from hami_allocator.reconcile import LINGER

KEY = "hami.io/devices-freed"
"""On the node: when we freed cards of it that somebody may wait for, in unix seconds."""

RECENTLY = LINGER + 5.0
"""Seconds within which a refused pod may have been tried too early: as long as containers are waited for, and more."""


class Waker:
    """Marks nodes, one at a time, once a second at most."""

    def __init__(self, means: Means, tasks: asyncio.TaskGroup) -> None:
        self._means = means
        self._tasks = tasks
        self._freed = ""
        self._marking: asyncio.Task[None] | None = None

    def freed(self, node: str) -> None:
        """Take note that cards of a node may take pods that they did not take before."""
        if self._means.clock.monotonic() - self._means.world.refused_at <= RECENTLY:
            self._freed = node

    def tick(self) -> None:
        """Mark the node whose cards came free last: one change moves every refused pod."""
        if self._freed and (self._marking is None or self._marking.done()):
            self._marking = self._tasks.create_task(self._mark(self._freed), name=f"mark {self._freed}")
            self._freed = ""

    async def _mark(self, node: str) -> None:
        try:
            await self._means.kube.patch_node(node, annotations={KEY: f"{self._means.clock.now():.3f}"})
        except KubeError:
            self._freed = self._freed or node  # whoever waits is worth another try
