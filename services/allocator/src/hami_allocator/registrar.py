"""What our agents told, made durable: the node annotations that HAMi's WebUI, HAMi itself and a cold start read.

One rule: a vendor that a foreign plugin serves is never written. HAMi compat: the plugin's own format and keys.
"""

import asyncio

from hami_kit.errors import KubeError, KubeNotFound
from hami_model.annotations import encode_links, encode_register
from hami_model.catalog import Catalog
from msgspec import structs

from hami_allocator.means import Means
from hami_allocator.nodes import Known
from hami_allocator.registration import AGENT_KEY, Source, agent_words, written

ATTEMPTS = 6


def durable(known: Known, catalog: Catalog) -> dict[str, str | None]:
    """Return the annotations of the node that are not as they should be; ``None`` = to be removed."""
    if known.node is None or known.told is None:
        return {}
    wanted: dict[str, str | None] = {}
    served = [word for word, claim in known.claims.items() if claim.source is Source.AGENT]
    for word in served:
        vendor = catalog.by_word(word)
        devices = [
            structs.replace(d, healthy=d.healthy and d.id not in known.unhealthy) for d in known.claims[word].devices
        ]
        if vendor.keys.register:
            wanted[vendor.keys.register] = encode_register(devices, vendor.form)
        links = {d.id: d.links for d in devices if d.links}
        if vendor.keys.links and links:
            wanted[vendor.keys.links] = encode_links(links)
    for word in agent_words(known.node):
        gone = catalog.find(word)
        if gone is not None and gone.keys.register and word not in known.claims and word not in known.told.vendors:
            wanted[gone.keys.register] = None
    wanted[AGENT_KEY] = ",".join(served) or None
    return {key: value for key, value in wanted.items() if known.node.annotations.get(key) != value}


class Registrar:
    """Writes nodes' inventories, one task per node at a time."""

    def __init__(self, means: Means, tasks: asyncio.TaskGroup) -> None:
        self._nodes = means.world.nodes
        self._kube = means.kube
        self._catalog = means.world.catalog
        self._writer = means.writer
        self._backoff = means.backoff
        self._tasks = tasks
        self._running: dict[str, asyncio.Task[None]] = {}

    def ensure(self, node: str) -> None:
        """See to it that the node's annotations say what its agent told."""
        known = self._nodes.known(node)
        if node in self._running or known is None or not durable(known, self._catalog):
            return
        task = self._tasks.create_task(self._write(node), name=f"register {node}")
        self._running[node] = task
        task.add_done_callback(lambda _: self._running.pop(node, None))

    async def wait(self, node: str) -> None:
        """Wait for the node's write under way, if any."""
        task = self._running.get(node)
        if task is not None:
            await asyncio.shield(task)

    async def _write(self, node: str) -> None:
        for attempt in range(ATTEMPTS):
            known = self._nodes.known(node)
            changes = durable(known, self._catalog) if known is not None else {}
            if known is None or not changes:
                return
            await self._writer.ask(lambda known=known, changes=changes: self._remember(known, changes))  # type: ignore[misc]
            try:
                await self._kube.patch_node(node, annotations=changes)
            except KubeNotFound:
                return
            except KubeError:
                await self._backoff.wait(attempt)
            else:
                return

    def _remember(self, known: Known, changes: dict[str, str | None]) -> None:
        """Take note of what we are about to write, so that the watch does not show it as somebody else's."""
        for word in known.claims:
            text = changes.get(self._catalog.by_word(word).keys.register)
            if text is not None:
                known.memory = written(known.memory, word, text)
