"""What the scheduler's contract tests share: a fake extender, a scheduler (stand-in or real), pods to wait for.

The stand-in's scheduler answers by default; with HAMI_TEST_KUBECONFIG and HAMI_TEST_KUBE_SCHEDULER (a binary) set, the
same tests run a real kube-scheduler on the real server.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiohttp import web
from hami_testkit.cluster.client import ApiClient
from hami_testkit.cluster.extender import Extender
from hami_testkit.cluster.scheduler import KubeScheduler
from hami_testkit.cluster.status import ApiError
from hami_testkit.real_cluster import kube_scheduler

Json = dict[str, Any]
REAL = os.environ.get("HAMI_TEST_KUBECONFIG")
BINARY = os.environ.get("HAMI_TEST_KUBE_SCHEDULER")
CORE = "/api/v1"
GPU = "nvidia.com/gpu"
NODES = ("node-a", "node-b")
HTTP_TIMEOUT = 1.0


class FakeExtender:
    """An extender that fits every pod on its first node and binds it, until a test says otherwise."""

    def __init__(self, api: ApiClient) -> None:
        self.filters: list[Json] = []
        self.binds: list[Json] = []
        self.headers: list[str] = []
        self.on_filter: Callable[[Json], Any] = fit_first
        self.on_bind: Callable[[Json], Any] = self.bind
        self.called = asyncio.Event()
        self.url = ""
        self._api = api

    async def filter(self, request: web.Request) -> web.Response:
        self.headers.append(request.content_type)
        return await self._answer(request, self.filters, self.on_filter)

    async def take_bind(self, request: web.Request) -> web.Response:
        return await self._answer(request, self.binds, self.on_bind)

    async def _answer(self, request: web.Request, log: list[Json], act: Callable[[Json], Any]) -> web.Response:
        asked = await request.json()
        log.append(asked)
        self.called.set()
        answer = act(asked)
        answer = await answer if asyncio.iscoroutine(answer) else answer
        return answer if isinstance(answer, web.Response) else web.json_response(answer)

    async def bind(self, asked: Json) -> Json:
        meta = {"name": asked["PodName"], "namespace": asked["PodNamespace"], "uid": asked["PodUID"]}
        binding = {"metadata": meta, "target": {"kind": "Node", "name": asked["Node"]}}
        try:
            await self._api.create(f"{CORE}/namespaces/{meta['namespace']}/pods/{meta['name']}/binding", binding)
        except ApiError as refusal:
            return {"Error": str(refusal)}
        return {"Error": ""}

    async def wait_for(self, seen: Callable[[], bool]) -> None:
        """Wait until a call has made ``seen`` true."""
        async with asyncio.timeout(30):
            while not seen():
                self.called.clear()
                await self.called.wait()


def fit(*nodes: str, **failed: str) -> Json:
    return {
        "Nodes": None,
        "NodeNames": list(nodes),
        "FailedNodes": failed,
        "FailedAndUnresolvableNodes": {},
        "Error": "",
    }


def fit_first(asked: Json) -> Json:
    return fit(min(asked["NodeNames"]))


def fail_all(asked: Json) -> Json:
    failed = dict.fromkeys(asked["NodeNames"], "CardInsufficientMemory")
    return {"Nodes": None, "NodeNames": [], "FailedNodes": failed, "FailedAndUnresolvableNodes": {}, "Error": ""}


class Cluster:
    """The cluster of one test: its API, and a way to run its scheduler."""

    def __init__(self, api: ApiClient, url: str, folder: Path) -> None:
        self.api, self._url, self._folder = api, url, folder

    @asynccontextmanager
    async def scheduling(self, extender: Extender) -> AsyncIterator[KubeScheduler | None]:
        """Run hami-scheduler with the extender; a real one cannot be looked into, so None stands for it."""
        if BINARY:
            async with self._real_scheduler(extender):
                yield None
        else:
            scheduler = KubeScheduler(self._url, extender, initial_backoff=0.05, max_backoff=0.4)
            async with scheduler.running():
                yield scheduler

    @asynccontextmanager
    async def _real_scheduler(self, extender: Extender) -> AsyncIterator[None]:
        managed = [{"name": name, "ignoredByScheduler": True} for name in sorted(extender.managed)]
        entry = {
            "urlPrefix": extender.url, "filterVerb": "filter", "bindVerb": "bind", "nodeCacheCapable": True,
            "httpTimeout": f"{extender.http_timeout}s", "ignorable": extender.ignorable, "managedResources": managed,
        }  # fmt: skip
        async with kube_scheduler(Path(str(BINARY)), self._folder, Path(str(REAL)), [entry]):
            yield


def an_extender(fake: FakeExtender, *, ignorable: bool = False) -> Extender:
    managed = frozenset({GPU})
    return Extender(url=fake.url, managed=managed, ignored=managed, http_timeout=HTTP_TIMEOUT, ignorable=ignorable)


def a_pod(name: str = "p0", *, limits: Json | None = None, **spec: Any) -> Json:
    container = {"name": "main", "image": "busybox", "resources": {"limits": {GPU: 1} if limits is None else limits}}
    return {"metadata": {"name": name}, "spec": {"schedulerName": "hami-scheduler", "containers": [container], **spec}}


async def pod_where(api: ApiClient, pods: str, holds: Callable[[Json], bool], name: str = "p0") -> Json:
    """Wait until the pod is as ``holds`` asks, and return it."""
    async with asyncio.timeout(40):
        while True:
            async for event in api.watch(pods, fieldSelector=f"metadata.name={name}", timeoutSeconds=30):
                if event["type"] in ("ADDED", "MODIFIED") and holds(event["object"]):
                    return dict(event["object"])


async def event_of(api: ApiClient, pods: str, reason: str, text: str = "") -> Json:
    """Wait for an event of this reason about any pod of the namespace, and return it."""
    async with asyncio.timeout(40):
        while True:
            async for event in api.watch(pods.removesuffix("pods") + "events", timeoutSeconds=30):
                found = event["object"]
                if found.get("reason") == reason and text in found.get("message", ""):
                    return dict(found)


def is_bound(pod: Json) -> bool:
    return bool(pod["spec"].get("nodeName"))


def verdict(pod: Json) -> tuple[str, str]:
    """Return reason and message of the pod's PodScheduled condition."""
    conditions = pod["status"].get("conditions") or []
    return next(
        ((c.get("reason", ""), c.get("message", "")) for c in conditions if c["type"] == "PodScheduled"), ("", "")
    )
