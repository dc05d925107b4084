"""The stand-in API server as a thing that listens: store, registry, switches and webhooks, wired in one place."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from aiohttp import web

from hami_testkit.cluster.admission import Webhooks
from hami_testkit.cluster.api import Api
from hami_testkit.cluster.faults import Faults
from hami_testkit.cluster.journal import Journal
from hami_testkit.cluster.registry import Registry
from hami_testkit.cluster.store import Store

NAMESPACES = ("default", "kube-system", "kube-public", "kube-node-lease")


class ApiServer:
    """A running API server: where it listens, what it holds, and its switches."""

    def __init__(self, url: str, registry: Registry, faults: Faults) -> None:
        self.url = url
        self.registry = registry
        self.store = registry.store
        self.faults = faults


@asynccontextmanager
async def api_server(
    *, host: str = "127.0.0.1", port: int = 0, bookmark_seconds: float = 30, journal: Path | None = None
) -> AsyncIterator[ApiServer]:
    """Serve an empty cluster, or what the journal holds of an earlier one; port 0 takes a free one.

    Leaving ends every watch and frees the port.
    """
    written = Journal(journal) if journal else None
    store = Store(journal=written)
    webhooks, faults = Webhooks(store), Faults(store)
    registry = Registry(store, webhooks)
    for namespace in NAMESPACES:
        registry.ensure_namespace(namespace)
    app = Api(registry, faults, bookmark_seconds=bookmark_seconds).application()
    runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=1)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port, backlog=1024).start()
        address, taken = runner.addresses[0][:2]
        yield ApiServer(
            f"http://[{address}]:{taken}" if ":" in address else f"http://{address}:{taken}", registry, faults
        )
    finally:
        faults.clear()
        for collection in store.collections:
            collection.hub.end()
        await asyncio.sleep(0)  # the readers of the watches say goodbye
        await runner.cleanup()
        await webhooks.close()
        if written is not None:
            written.close()
