"""The stand-in cluster as tests hold it in process, and as the program ``hami-standin``."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import yaml

from hami_testkit.cluster.faults import Faults
from hami_testkit.cluster.registry import Registry
from hami_testkit.cluster.resources import NODES
from hami_testkit.cluster.server import ApiServer, api_server


class Standin:
    """A stand-in cluster in this process."""

    def __init__(self, server: ApiServer) -> None:
        self._server = server

    @property
    def url(self) -> str:
        """Return where its API server listens."""
        return self._server.url

    @property
    def faults(self) -> Faults:
        """Return its fault switches."""
        return self._server.faults

    @property
    def registry(self) -> Registry:
        """Return its objects, to be read and written without HTTP."""
        return self._server.registry

    @classmethod
    @asynccontextmanager
    async def start(
        cls, *, nodes: Sequence[Mapping[str, Any]] = (), listen: str = "127.0.0.1:0", bookmark_seconds: float = 30
    ) -> AsyncIterator[Standin]:
        """Run a stand-in cluster with these Node objects until the block is left."""
        host, _, port = listen.rpartition(":")
        async with api_server(host=host, port=int(port), bookmark_seconds=bookmark_seconds) as server:
            for node in nodes:
                await server.registry.create(NODES, dict(node))
            yield cls(server)

    def kubeconfig(self, path: Path) -> Path:
        """Write a kubeconfig that leads here, and return its path."""
        path.write_text(kubeconfig(self.url))
        return path


def kubeconfig(url: str) -> str:
    """Return a kubeconfig for an API server that asks nobody who they are."""
    name = "standin"
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": name,
        "clusters": [{"name": name, "cluster": {"server": url}}],
        "users": [{"name": name, "user": {}}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name, "namespace": "default"}}],
    }
    return yaml.safe_dump(config, sort_keys=False)
