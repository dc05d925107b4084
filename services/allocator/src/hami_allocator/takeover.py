"""How a new leader begins: nothing that an earlier one sent may land after we have counted.

One rule: no answer before the sweep is done. Kubernetes is the fence: each unbound pod that asks for devices gets our
mark, which moves its resourceVersion past every Binding sent before (architecture §3).
"""

import asyncio
from collections.abc import Sequence

from hami_kit.errors import KubeConflict, KubeError, KubeNotFound
from hami_kit.kube import Kube, Listed
from hami_kit.kube.reflector import Reflector
from hami_model.objects import Pod, PodRef

from hami_allocator.fence import TERM_KEY, Term
from hami_allocator.reconcile import Reconcile, asks_for_any, device_resources
from hami_allocator.retry import Backoff
from hami_allocator.world import World
from hami_allocator.writer import Writer

AT_ONCE = 16
"""Pods marked side by side."""


class Takeover:
    """The sweep over unbound pods."""

    def __init__(self, *, kube: Kube, world: World, writer: Writer, reconcile: Reconcile, backoff: Backoff) -> None:
        self._kube = kube
        self._world = world
        self._writer = writer
        self._reconcile = reconcile
        self._backoff = backoff
        self._names = device_resources(world.catalog)

    async def run(self, term: Term, pods: Reflector[Pod]) -> None:
        """Fence off what came before, then wait until our own view has passed it."""
        listed = await self._list()
        swept = await self._mark_all([pod for pod in listed.items if asks_for_any(pod, self._names)], term)
        if not swept:
            await self._stir(term)
        await pods.wait_passed(listed.resource_version)
        await self._writer.wait_caught_up()
        await self._writer.ask(lambda: self._count(swept))

    async def _list(self) -> Listed[Pod]:
        attempt = 0
        while True:
            try:
                return await self._kube.list_pods(field_selector="spec.nodeName=")
            except KubeError:
                await self._backoff.wait(attempt)
                attempt += 1

    async def _mark_all(self, pods: Sequence[Pod], term: Term) -> list[Pod]:
        gate = asyncio.Semaphore(AT_ONCE)
        swept: list[Pod] = []

        async def mark(pod: Pod) -> None:
            async with gate:
                answer = await self._mark(PodRef.of(pod), term)
            if answer is not None:
                swept.append(answer)

        async with asyncio.TaskGroup() as tasks:
            for pod in pods:
                tasks.create_task(mark(pod), name=f"mark {pod.metadata.name}")
        return swept

    async def _mark(self, pod: PodRef, term: Term) -> Pod | None:
        """Move the pod past older Bindings, as often as it takes; None when it is gone."""
        attempt = 0
        while True:
            try:
                return await self._kube.patch_pod(pod, annotations={TERM_KEY: term.mark()})
            except (KubeNotFound, KubeConflict):
                return None  # gone, or replaced by a namesake, which no older Binding names
            except KubeError:
                await self._backoff.wait(attempt)
                attempt += 1

    async def _stir(self, term: Term) -> None:
        """Mark any pod that holds devices: its change shows that our watch has passed the list, and spares another."""
        bound = next((entry.allocation.pod for entry in self._world.ledger.entries if entry.is_bound), None)
        try:
            if bound is not None:
                await self._kube.patch_pod(bound, annotations={TERM_KEY: term.mark()})
        except KubeError:
            return  # the watch is waited for, and where it stays quiet a list is made

    def _count(self, swept: Sequence[Pod]) -> None:
        """End what was never written, and take the answers in: some show pods that were bound meanwhile."""
        self._world.apply(*self._world.ledger.unwritten("a new term began, and older Bindings are fenced off"))
        for pod in swept:
            self._reconcile.saw(pod)
