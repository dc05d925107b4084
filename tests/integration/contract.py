"""What the contract tests share: a client of the server under test, a namespace of its own, pods and bindings.

The stand-in answers by default; with HAMI_TEST_KUBECONFIG set, the same tests ask the real server it leads to.
"""

import asyncio
import os
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from hami_testkit.cluster import Standin
from hami_testkit.cluster.access import connect
from hami_testkit.cluster.client import ApiClient
from hami_testkit.cluster.status import ApiError

Json = dict[str, Any]
REAL = os.environ.get("HAMI_TEST_KUBECONFIG")
CORE = "/api/v1"
HOOKS = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations"


@asynccontextmanager
async def a_server() -> AsyncIterator[ApiClient]:
    """Open a client of the server under test."""
    if REAL:
        async with connect(Path(REAL)) as client:
            yield client
    else:
        async with Standin.start(bookmark_seconds=0.2) as cluster, ApiClient.connect(cluster.url) as client:
            yield client


@asynccontextmanager
async def a_namespace(api: ApiClient) -> AsyncIterator[str]:
    """Make a namespace of one test alone, labelled so that only its own webhooks are called for it."""
    name = f"contract-{uuid.uuid4().hex[:8]}"
    await api.create(f"{CORE}/namespaces", {"metadata": {"name": name, "labels": {"contract": name}}})
    yield name
    await api.delete(f"{CORE}/namespaces/{name}/pods", {"gracePeriodSeconds": 0})
    await api.delete(f"{CORE}/namespaces/{name}")


def a_pod(name: str = "p0", *, limits: Json | None = None, requests: Json | None = None, **spec: Any) -> Json:
    resources = {key: value for key, value in (("limits", limits), ("requests", requests)) if value}
    container = {"name": "main", "image": "busybox", "resources": resources}
    return {"metadata": {"name": name}, "spec": {"containers": [container], **spec}}


def a_binding(name: str = "p0", node: str = "node-a", **meta: Any) -> Json:
    target = {"kind": "Node", "name": node}
    return {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": name, **meta}, "target": target}


async def bind(api: ApiClient, pods: str, binding: Json) -> None:
    await api.create(f"{pods}/{binding['metadata']['name']}/binding", binding)


@asynccontextmanager
async def refusal(code: int, text: str = "") -> AsyncIterator[None]:
    with pytest.raises(ApiError) as refused:
        yield
    assert (code, True) == (refused.value.code, text in refused.value.message), refused.value.message


async def events(api: ApiClient, path: str, *, until: Callable[[Json], bool], **query: str | int) -> list[Json]:
    """Return the events of a watch up to the first that ``until`` accepts."""
    seen = []
    async with asyncio.timeout(30):
        async for event in api.watch(path, **query):
            seen.append(event)
            if until(event):
                return seen
    raise AssertionError(f"the watch ended after {seen}")


def told(seen: list[Json]) -> list[tuple[str, str]]:
    return [(event["type"], event["object"]["metadata"]["name"]) for event in seen]
