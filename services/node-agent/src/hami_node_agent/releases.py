"""When device IDs become free: after the container is really gone, and not because the kubelet says so.

One rule: a pod that ended or left the API server is asked for at the kubelet (Get, which rebuilds nothing), and its
folder under ``pods/`` is looked at; a force-deleted pod's containers run on for a while after both have forgotten it.
What was made for the pod alone is destroyed then, and before that nothing of it is free.
"""

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from hami_kit.clock import Clock
from hami_model.objects import PodRef

from hami_node_agent.kubelet import KubeletUnreachable, Sights
from hami_node_agent.pods import NodePods
from hami_node_agent.table import Entry, Table

log = logging.getLogger(__name__)

SWEEP_EVERY = 1.0
LONGEST = 30.0
"""Seconds after which a pod that the API server and the kubelet have both forgotten holds its devices no longer."""

OnRelease = Callable[[PodRef, tuple[Entry, ...]], None]


class Made(Protocol):
    """What was made on the node for single pods."""

    @property
    def pods(self) -> tuple[PodRef, ...]:
        """Return the pods that something was made for."""
        ...

    async def destroy_of(self, pod: PodRef) -> bool:
        """Destroy what a pod had whose containers are gone; say whether nothing of it is left."""
        ...


class Releases:
    """Frees what ended pods held."""

    def __init__(  # noqa: PLR0913  wired in one place, by keyword
        self,
        *,
        table: Table,
        pods: NodePods,
        kubelet: Sights,
        pods_folder: Path,
        clock: Clock,
        on_release: OnRelease,
        made: Made | None = None,
    ) -> None:
        self._table = table
        self._pods = pods
        self._kubelet = kubelet
        self._folder = pods_folder
        self._clock = clock
        self._on_release = on_release
        self._made = made
        self._over_since: dict[str, float] = {}
        self._turn = asyncio.Lock()

    @property
    def holders(self) -> tuple[PodRef, ...]:
        """Return the pods that hold anything, each once."""
        return tuple(dict.fromkeys((*self._table.pods, *(self._made.pods if self._made is not None else ()))))

    @property
    def expected(self) -> bool:
        """Say whether somebody who holds devices is on the way out."""
        return any(self._is_over(pod) for pod in self.holders)

    async def sweep(self) -> None:
        """Free what every pod held whose containers are gone."""
        async with self._turn:
            for pod in self.holders:
                if self._is_over(pod) and await self._is_gone(pod) and await self._is_unmade(pod):
                    self._over_since.pop(pod.uid, None)
                    self._on_release(pod, self._table.release(pod.uid))

    async def run(self) -> None:
        """Sweep again and again."""
        while True:
            await asyncio.sleep(SWEEP_EVERY)
            await self.sweep()

    def _is_over(self, pod: PodRef) -> bool:
        if not self._pods.is_over(pod.uid):
            if self._pods.is_live(pod.uid):  # A list that was older than the pod said otherwise.
                self._over_since.pop(pod.uid, None)
            return pod.uid in self._over_since
        self._over_since.setdefault(pod.uid, self._clock.monotonic())
        return True

    async def _is_unmade(self, pod: PodRef) -> bool:
        return self._made is None or await self._made.destroy_of(pod)

    async def _is_gone(self, pod: PodRef) -> bool:
        """Say whether the kubelet shows none of the pod's IDs and, where it was deleted, has removed its folder."""
        try:
            listed = await self._kubelet.get_pod(pod.namespace, pod.name)
        except KubeletUnreachable as e:
            log.debug("whether %s is gone cannot be told now: %s", pod, e)
            return False
        held = {device_id for entry in self._table.of_pod(pod.uid) for device_id in entry.ids}
        if listed is not None and listed.ids & held:
            return False
        if self._pods.is_live(pod.uid):  # Ended, not deleted: the kubelet reports that only when all containers have.
            return True
        waited = self._clock.monotonic() - self._over_since[pod.uid]
        return waited >= LONGEST or not (self._folder / pod.uid).exists()
