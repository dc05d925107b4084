"""A webhook on a bus in memory, asked as the API server asks: over HTTP, without a socket."""

import base64
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import httpx
import pytest
from hami_kit.bus import Endpoint
from hami_kit.telemetry import Metrics, Telemetry
from hami_model import config, vendors
from hami_model.bus import subjects
from hami_model.bus.messages import AskQuota, QuotaAllowed, QuotaAnswer
from hami_testkit.bus import MemoryBus
from hami_webhook.app import Rules, Webhook, routes
from opentelemetry.sdk.trace import TracerProvider
from starlette.applications import Starlette

Json = dict[str, Any]


class Allocator:
    """Answers the quota question with what the test lays down, and remembers what was asked."""

    def __init__(self, answer: QuotaAnswer | Exception) -> None:
        self._answer = answer
        self.asked: list[AskQuota] = []

    async def quota(self, question: AskQuota) -> QuotaAnswer:
        self.asked.append(question)
        if isinstance(self._answer, Exception):
            raise self._answer
        return self._answer


class ApiServer:
    """Posts reviews and reads what came back."""

    def __init__(self, http: httpx.AsyncClient, bus: MemoryBus, metrics: Metrics) -> None:
        self.http = http
        self.bus = bus
        self._metrics = metrics

    def counted(self, outcome: str) -> float:
        """Return how many reviews the webhook counts as ended so."""
        return self._metrics.get_sample_value("hami_webhook_reviews_total", {"outcome": outcome}) or 0

    async def post(self, body: bytes, content_type: str = "application/json") -> Json:
        """Post bytes; the HTTP status is 200 whatever they are."""
        answer = await self.http.post("/webhook", content=body, headers={"content-type": content_type})
        assert (200, "application/json") == (answer.status_code, answer.headers["content-type"])
        review: Json = answer.json()
        return review

    async def review(self, pod: Any, *, version: str = "v1", namespace: str = "team-a") -> Json:
        """Ask about an object."""
        request = {"uid": "r-1", "operation": "CREATE", "namespace": namespace, "object": pod}
        review = {"apiVersion": f"admission.k8s.io/{version}", "kind": "AdmissionReview", "request": request}
        return await self.post(json.dumps(review).encode())

    async def ask(self, pod: Any, *, namespace: str = "team-a") -> Json:
        """Ask about an object and return the response alone, its patch readable."""
        response: Json = (await self.review(pod, namespace=namespace))["response"]
        assert "r-1" == response["uid"]
        if "patch" in response:
            response["patch"] = json.loads(base64.b64decode(response["patch"]))
        return response

    async def serve_quota(self, answer: QuotaAnswer | Exception) -> Allocator:
        """Let an allocator give this answer to every quota question."""
        allocator = Allocator(answer)
        await self.bus.serve("allocator", [Endpoint("quota", subjects.QUOTA, AskQuota, allocator.quota)])
        return allocator


Start = Callable[..., AbstractAsyncContextManager[ApiServer]]


@asynccontextmanager
async def _started(*, exports: bool = False, force: bool = True) -> AsyncIterator[ApiServer]:
    bus = MemoryBus()
    telemetry = Telemetry(TracerProvider(shutdown_on_exit=False)) if exports else Telemetry()
    catalog = vendors.build(config.DEFAULTS, ascend=True, iluvatar=True)
    rules = Rules(scheduler_name="hami-scheduler", force_overwrite=force)
    webhook = Webhook(bus=bus, catalog=catalog, rules=rules, telemetry=telemetry)
    transport = httpx.ASGITransport(app=Starlette(routes=routes(webhook)))
    async with httpx.AsyncClient(transport=transport, base_url="http://webhook") as http:
        yield ApiServer(http, bus, telemetry.metrics)
    telemetry.close()


@pytest.fixture
def start() -> Start:
    """Return what starts a webhook with other rules."""
    return _started


@pytest.fixture
async def api() -> AsyncIterator[ApiServer]:
    """Lend an ordinary webhook whose allocator allows every quota."""
    async with _started() as server:
        await server.serve_quota(QuotaAllowed())
        yield server


@pytest.fixture
async def alone() -> AsyncIterator[ApiServer]:
    """Lend a webhook on a bus where nobody serves anything."""
    async with _started() as server:
        yield server


def _pod(*, limits: Json | None = None, annotations: Json | None = None, **spec: Any) -> Json:
    container: Json = {"name": "main", "image": "i"}
    if limits is not None:
        container["resources"] = {"limits": limits}
    meta: Json = {"name": "p", "namespace": "team-a"}
    if annotations is not None:
        meta["annotations"] = annotations
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": {"containers": [container], **spec}}


@pytest.fixture
def a_pod() -> Callable[..., Json]:
    """Return what makes a pod of one container, as JSON."""
    return _pod


def _changes(response: Json) -> dict[str, Any]:
    return {step["path"]: step.get("value") for step in response.get("patch", ())}


@pytest.fixture
def changes() -> Callable[[Json], Json]:
    """Return what reads a response's patch as path and value."""
    return _changes
