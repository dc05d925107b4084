"""The last write about a pod: its devices are served, whoever said so.

One rule: written once, and only what the pod lacks; the watch brings the pod by again where it failed.
"""

import asyncio
import re
from collections.abc import Sequence

from hami_kit.errors import KubeError, KubeInvalid, KubeNotFound
from hami_kit.telemetry import parent_of_pod
from hami_model.allocation import Allocation, MadeInstance, State
from hami_model.catalog import Catalog
from hami_model.keys import BIND_PHASE, NODE, SUCCESS
from hami_model.life import Entry
from hami_model.objects import Pod
from msgspec import Struct

from hami_allocator.means import Means

ATTEMPTS = 6
_LABEL = re.compile(r"[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")


class Confirmation(Struct, frozen=True):
    """What a served pod still lacks."""

    annotations: dict[str, str]
    labels: dict[str, str]
    version: str | None = None
    """The pod's resourceVersion where something is added to what stands there; somebody may have changed that since."""

    def __bool__(self) -> bool:
        return bool(self.annotations or self.labels)


def confirmation(pod: Pod, allocation: Allocation, catalog: Catalog, made: Sequence[MadeInstance] = ()) -> Confirmation:
    """Return what the pod still lacks: ``bind-phase: success``, emptied ``*-to-allocate``, the label of its node.

    And the identity of what its node has ``made`` of cards for it.

    HAMi compat: HAMi's monitor selects its node's pods by the label, which a Binding cannot carry. A node name too long
    for a label value gets none.
    """
    annotations = {} if pod.annotations.get(BIND_PHASE) == SUCCESS else {BIND_PHASE: SUCCESS}
    identities: dict[str, str] = {}
    for word in allocation.vendors:
        vendor = catalog.find(word)
        key = vendor.keys.to_allocate if vendor is not None else ""
        text = pod.annotations.get(key, "" if pod.spec.node_name else ";" * len(pod.all_containers))
        emptied = ";" * text.count(";")
        if key and text and (text != emptied or not pod.spec.node_name):
            annotations[key] = emptied
        if vendor is not None and vendor.made is not None and made:
            identities |= vendor.made(vendor, allocation, pod, made)
    labels = pod.metadata.labels or {}
    wanted = {NODE: allocation.node} if _LABEL.fullmatch(allocation.node) else {}
    lacking = {k: v for k, v in wanted.items() if labels.get(k) != v}
    return Confirmation(annotations | identities, lacking, pod.metadata.resource_version if identities else None)


class Confirmer:
    """Writes confirmations, one task per pod at a time."""

    def __init__(self, means: Means, tasks: asyncio.TaskGroup) -> None:
        self._means = means
        self._tasks = tasks
        self._running: set[str] = set()

    def ensure(self, entry: Entry) -> None:
        """See to it that an ACTIVE pod is marked as served; of which nobody knows with what is left alone."""
        uid = entry.uid
        if uid in self._running or entry.everywhere or not self._lacking(entry):
            return
        self._running.add(uid)
        task = self._tasks.create_task(self._confirm(uid), name=f"confirm {entry.allocation.pod}")
        task.add_done_callback(lambda _: self._running.discard(uid))

    async def _confirm(self, uid: str) -> None:
        for attempt in range(ATTEMPTS):
            entry = self._means.world.ledger.entry(uid)
            if entry is None or entry.state is not State.ACTIVE:
                return
            lacking = self._lacking(entry)
            if not lacking:
                return
            try:
                await self._patch(entry, lacking)
            except (KubeNotFound, KubeInvalid):
                return
            except KubeError:
                await self._means.backoff.wait(attempt)
            else:
                return

    def _lacking(self, entry: Entry) -> Confirmation:
        return confirmation(entry.pod, entry.allocation, self._means.world.catalog, entry.instances)

    async def _patch(self, entry: Entry, lacking: Confirmation) -> None:
        pod = entry.allocation.pod
        parent = parent_of_pod(entry.pod)
        with self._means.telemetry.span("confirm", parent=parent, pod=str(pod), node=entry.node):
            await self._means.kube.patch_pod(
                pod,
                annotations=dict(lacking.annotations),
                labels=dict(lacking.labels),
                resource_version=lacking.version,
            )
