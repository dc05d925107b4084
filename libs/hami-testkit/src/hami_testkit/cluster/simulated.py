"""The stand-in cluster in one process: API server, schedulers and kubelets as asked for.

One rule: everything it starts ends with its block. ``hami-standin`` runs the same thing as a program.
"""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from hami_testkit.cluster.extender import Extender, hami_extender
from hami_testkit.cluster.faults import Faults
from hami_testkit.cluster.registry import Registry
from hami_testkit.cluster.resources import NODES, WEBHOOKS
from hami_testkit.cluster.scheduler import KubeScheduler
from hami_testkit.cluster.server import ApiServer, api_server
from hami_testkit.cluster.status import Json

if TYPE_CHECKING:
    from hami_testkit.cluster.kubelet import Kubelet

WEBHOOK = "hami-webhook"


class Standin:
    """A running stand-in cluster."""

    def __init__(self, server: ApiServer) -> None:
        self._server = server
        self.schedulers: dict[str, KubeScheduler] = {}
        self.kubelets: dict[str, Kubelet] = {}

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
    async def start(  # noqa: PLR0913 - each is one switch of the program, with a default
        cls,
        *,
        nodes: Sequence[Mapping[str, Any]] = (),
        listen: str = "127.0.0.1:0",
        webhook_url: str | None = None,
        scheduler: Extender | str | bool = False,
        kubelets: Path | None = None,
        bookmark_seconds: float = 30,
        journal: Path | None = None,
    ) -> AsyncIterator[Standin]:
        """Run a cluster with these Node objects until the block is left.

        ``scheduler``: True for a scheduler alone, or the extender (or its URL) that device pods go through;
        ``kubelets``: the folder under which each node gets its kubelet's folders; ``journal``: a file with everything
        that an earlier run of the same cluster wrote, and that this one will write.
        """
        host, _, port = listen.rpartition(":")
        host = host.strip("[]")
        async with AsyncExitStack() as stack:
            server = await stack.enter_async_context(
                api_server(host=host, port=int(port), bookmark_seconds=bookmark_seconds, journal=journal)
            )
            cluster = cls(server)
            for node in nodes:
                if server.store.get(NODES, ("", node["metadata"]["name"])) is None:
                    await server.registry.create(NODES, dict(node))
            if webhook_url:
                await cluster.add_webhook(webhook_url)
            if scheduler:
                await stack.enter_async_context(cluster.scheduling(None if scheduler is True else scheduler))
            if kubelets:
                await stack.enter_async_context(cluster.kubelets_running(kubelets))
            yield cluster

    @asynccontextmanager
    async def scheduling(self, extender: Extender | str | None = None) -> AsyncIterator[KubeScheduler]:
        """Run ``hami-scheduler`` with the extender, and ``default-scheduler`` without, until the block is left."""
        found = hami_extender(extender) if isinstance(extender, str) else extender
        ours = KubeScheduler(self.url, found, scheduler_name="hami-scheduler")
        plain = KubeScheduler(self.url, scheduler_name="default-scheduler")
        self.schedulers |= {scheduler.name: scheduler for scheduler in (ours, plain)}
        async with ours.running(), plain.running():
            yield ours

    @asynccontextmanager
    async def kubelets_running(self, root: Path) -> AsyncIterator[dict[str, Kubelet]]:
        """Run a kubelet, and the plugins it asks for, for every node that exists now, each in ``root/<node>``."""
        # gRPC takes half a second to import: only who asks for kubelets pays it
        from hami_testkit.cluster.kubelets import run_kubelets  # noqa: PLC0415

        nodes = {key[1]: node.object["metadata"] for key, node in self.registry.store.of(NODES).objects.items()}
        wanted = {name: dict(meta.get("annotations") or {}) for name, meta in nodes.items()}
        async with run_kubelets(self.url, wanted, root) as self.kubelets:
            yield self.kubelets

    async def add_webhook(
        self,
        url: str,
        *,
        ca: bytes | None = None,
        failure_policy: str = "Fail",
        timeout_seconds: int = 10,
    ) -> None:
        """Have every new pod shown to the webhook at ``url``; one that a journal brought back stays as it is."""
        if self._server.store.get(WEBHOOKS, ("", WEBHOOK)) is not None:
            return
        ignored = {"matchExpressions": [{"key": "hami.io/webhook", "operator": "NotIn", "values": ["ignore"]}]}
        rule = {"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"], "scope": "*"}
        client: Json = {"url": url}
        if ca:
            client["caBundle"] = base64.b64encode(ca).decode()
        webhook = {
            "name": "vgpu.hami.io", "admissionReviewVersions": ["v1"], "sideEffects": "None", "clientConfig": client,
            "failurePolicy": failure_policy, "timeoutSeconds": timeout_seconds, "rules": [rule],
            "namespaceSelector": ignored, "objectSelector": ignored,
        }  # fmt: skip
        await self.registry.create(WEBHOOKS, {"metadata": {"name": WEBHOOK}, "webhooks": [webhook]})

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
