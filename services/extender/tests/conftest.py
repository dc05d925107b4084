"""An extender on a bus in memory, asked as kube-scheduler asks: over HTTP, without a socket."""

import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
from hami_extender.app import Extender, routes
from hami_kit.bus import Endpoint
from hami_kit.telemetry import Metrics, Telemetry
from hami_model import config, vendors
from hami_model.bus import subjects
from hami_model.bus.messages import BindPod, FilterPod, Simulate
from hami_testkit.bus import MemoryBus
from msgspec import Struct
from starlette.applications import Starlette

Json = dict[str, Any]
QUESTIONS = {subjects.FILTER: FilterPod, subjects.SIMULATE: Simulate, subjects.BIND: BindPod}


class Allocator:
    """Answers with what the test laid down, and remembers what it was asked."""

    def __init__(self) -> None:
        self.answers: dict[type, Struct | Exception] = {}
        self.asked: list[Any] = []

    async def answer(self, question: Any) -> Struct:
        self.asked.append(question)
        answer = self.answers[type(question)]
        if isinstance(answer, Exception):
            raise answer
        return answer


class Scheduler:
    """Posts what kube-scheduler posts, and reads what came back."""

    def __init__(self, http: httpx.AsyncClient, bus: MemoryBus, metrics: Metrics) -> None:
        self.http = http
        self.bus = bus
        self._metrics = metrics
        self.allocator = Allocator()

    async def post(self, path: str, body: bytes) -> Json:
        """Post bytes; the HTTP status is 200 whatever they are."""
        answer = await self.http.post(path, content=body)
        assert (200, "application/json") == (answer.status_code, answer.headers["content-type"])
        result: Json = answer.json()
        return result

    async def filter(self, **args: Any) -> Json:
        """Post filter arguments."""
        return await self.post("/filter", json.dumps(args).encode())

    async def bind(self, **args: Any) -> str:
        """Post binding arguments and return the error."""
        result = await self.post("/bind", json.dumps(args).encode())
        assert {"Error"} == set(result)
        error: str = result["Error"]
        return error

    def counted(self, verb: str, outcome: str) -> float:
        """Return how many calls the extender counts as answered so."""
        labels = {"verb": verb, "outcome": outcome}
        return self._metrics.get_sample_value("hami_extender_answers_total", labels) or 0

    async def serve(self, **answers: Struct | Exception) -> Allocator:
        """Let an allocator answer ``filter``, ``simulate`` and ``bind`` so."""
        for name, answer in answers.items():
            subject = getattr(subjects, name.upper())
            self.allocator.answers[QUESTIONS[subject]] = answer
            endpoint = Endpoint(name, subject, QUESTIONS[subject], self.allocator.answer)
            await self.bus.serve("allocator", [endpoint])
        return self.allocator


@pytest.fixture
async def scheduler() -> AsyncIterator[Scheduler]:
    """Lend a scheduler that talks to an extender on a bus where nobody serves anything yet."""
    bus = MemoryBus()
    catalog = vendors.build(config.DEFAULTS, ascend=True, iluvatar=True)
    telemetry = Telemetry()
    extender = Extender(bus=bus, catalog=catalog, bind_timeout=28.0, telemetry=telemetry)
    transport = httpx.ASGITransport(app=Starlette(routes=routes(extender)))
    async with httpx.AsyncClient(transport=transport, base_url="http://extender") as http:
        yield Scheduler(http, bus, telemetry.metrics)


def _pod(limits: Json | None = None) -> Json:
    container: Json = {"name": "main", "image": "i"}
    if limits is not None:
        container["resources"] = {"limits": limits}
    return {"metadata": {"name": "p", "namespace": "team-a", "uid": "u-1"}, "spec": {"containers": [container]}}


@pytest.fixture
def a_pod() -> Callable[..., Json]:
    """Return what makes a pod of one container, as JSON."""
    return _pod
