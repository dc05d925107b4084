"""Looks now and then whether table, kubelet and cards agree, and tells what does not.

One rule: the kubelet's ``List`` is never called here. Whatever we hold back, the kubelet may be within an Allocate, of
ours or of another plugin, and a List then makes it give one ID twice. Its checkpoint is a file; Get rebuilds nothing.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from hami_model.bus.messages import Drift
from hami_model.objects import PodRef

from hami_node_agent.drift import EVERY
from hami_node_agent.drift.compare import Finding, Key, Running, Views, compare, doubtful
from hami_node_agent.drift.owners import Owners
from hami_node_agent.inventory import Inventory
from hami_node_agent.kubelet import CheckpointEntry, KubeletUnreachable, Sights, checkpoint
from hami_node_agent.pods import NodePods
from hami_node_agent.table import Entry, Table

log = logging.getLogger(__name__)

GET_PAUSE = 0.1
"""Seconds between two Gets: the kubelet takes a hundred calls a second, and those for pods in admission come first."""

Tell = Callable[[str, Drift], None]
"""Hears of what begins (``drift``) and what is over (``drift.cleared``)."""


class Lookout:
    """The disagreements of one node. ``plugins``: the folder of the kubelet's checkpoint."""

    def __init__(  # noqa: PLR0913  wired in one place, by keyword
        self,
        *,
        table: Table,
        pods: NodePods,
        kubelet: Sights,
        plugins: Path,
        resources: Sequence[str],
        inventory: Inventory,
        owners: Owners,
        tell: Tell,
        every: float = EVERY,
    ) -> None:
        self._table = table
        self._pods = pods
        self._kubelet = kubelet
        self._plugins = plugins
        self._resources = resources
        self._inventory = inventory
        self._owners = owners
        self._tell = tell
        self._every = every
        self._before: dict[Key, Finding] = {}
        self._told: dict[Key, Finding] = {}
        self._trouble = ""

    @property
    def findings(self) -> tuple[Drift, ...]:
        """Return what has been told and is not over."""
        return tuple(finding.drift for finding in self._told.values())

    async def run(self) -> None:
        """Look again and again until cancelled."""
        while True:
            await asyncio.sleep(self._every)
            await self.look()

    async def look(self) -> None:
        """Look once. Where a view is not to be had, everything stands as it stood."""
        try:
            counted = checkpoint(self._plugins, self._resources)
            views = await self._views(counted)
        except (KubeletUnreachable, ValueError) as e:
            self._complain(f"what is held and what runs cannot be compared now: {e}")
            return
        self._complain("")
        self._judge({finding.key: finding for finding in compare(views)})

    def _judge(self, found: dict[Key, Finding]) -> None:
        """Tell what this look and the one before it show; take back what this one does not."""
        blind = {card.id for card in self._inventory.cards} - self._seen_cards()
        for key, finding in list(self._told.items()):
            if key in found:
                self._told[key] = found[key]
            elif not finding.pids or finding.drift.device not in blind:
                del self._told[key]
                log.info("over: %s", finding.drift.says)
                self._tell("drift.cleared", finding.drift)
        for key, finding in found.items():
            if key not in self._told and key in self._before and finding.lasts_from(self._before[key]):
                self._told[key] = finding
                log.warning("%s: %s", finding.drift.kind, finding.drift.says)
                self._tell("drift", finding.drift)
        self._before = found

    async def _views(self, counted: tuple[CheckpointEntry, ...]) -> Views:
        table = self._table.entries
        alive = [p for p in self._pods.live if not self._pods.is_over(p.metadata.uid)]
        pods = {pod.metadata.uid: PodRef.of(pod) for pod in alive}
        asked = dict.fromkeys(entry.pod for entry in doubtful(table, counted) if entry.pod.uid in pods)
        shown = {pod.uid: await self._shown(pod) for pod in asked}
        return Views(
            table=table,
            pods=pods,
            cards=self._cards(table),
            counted=counted,
            shown=shown,
            running=await asyncio.to_thread(self._running),
        )

    async def _shown(self, pod: PodRef) -> frozenset[str]:
        await asyncio.sleep(GET_PAUSE)
        listed = await self._kubelet.get_pod(pod.namespace, pod.name)
        return listed.ids if listed is not None else frozenset()

    def _cards(self, table: Sequence[Entry]) -> dict[str, frozenset[str]]:
        """Return each holder's cards: as it was served, else as its allocation says."""
        found: dict[str, frozenset[str]] = {}
        for pod in dict.fromkeys(entry.pod for entry in table):
            allocation = self._pods.allocation(pod)
            served = [entry.grants for entry in table if entry.pod == pod]
            if allocation is not None:
                served.extend(container.grants for container in allocation.containers)
            elif not all(served):
                continue  # rebuilt from the kubelet's account alone, which knows IDs and no cards
            found[pod.uid] = frozenset(grant.uuid for grants in served for grant in grants)
        return found

    def _running(self) -> list[Running]:
        return [
            Running(card=card, pid=one.pid, memory=one.memory, owner=self._owners.of(one.pid))
            for card, facts in self._inventory.facts.items()
            for one in facts.processes or ()
        ]

    def _seen_cards(self) -> set[str]:
        return {card for card, facts in self._inventory.facts.items() if facts.processes is not None}

    def _complain(self, why: str) -> None:
        """Tell each change once."""
        if why != self._trouble:
            log.warning("%s", why or "what is held and what runs is compared again")
        self._trouble = why
