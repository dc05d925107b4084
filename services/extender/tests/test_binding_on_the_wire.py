"""``/bind``: an empty error means bound; everything else is one sentence."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from hami_extender.app import BIND_GRACE, Extender, routes
from hami_kit.bus import Endpoint
from hami_kit.telemetry import Telemetry
from hami_model.bus import subjects
from hami_model.bus.messages import BindPod, Done, Refused
from hami_model.catalog import Catalog
from hami_model.objects import PodRef
from hami_testkit.bus import MemoryBus
from starlette.applications import Starlette

ARGS = {"PodName": "p", "PodNamespace": "team-a", "PodUID": "u-1", "Node": "b"}


async def test_a_binding_that_the_api_server_took_has_no_error(scheduler: Any) -> None:
    """The allocator is told which pod by name, namespace and uid, and which node."""
    allocator = await scheduler.serve(bind=Done())

    assert "" == await scheduler.bind(**ARGS)
    assert [BindPod(pod=PodRef("team-a", "p", "u-1"), node="b")] == allocator.asked


async def test_names_are_read_in_any_case(scheduler: Any) -> None:
    """Go folds the case of field names, and so do we."""
    await scheduler.serve(bind=Done())

    assert "" == await scheduler.bind(**{name.lower(): value for name, value in ARGS.items()})


async def test_an_allocator_that_refuses_says_why(scheduler: Any) -> None:
    """Its sentence is the whole error."""
    await scheduler.serve(bind=Refused(error="pod team-a/p has no devices reserved on b: it is filtered again"))

    assert "pod team-a/p has no devices reserved on b: it is filtered again" == await scheduler.bind(**ARGS)


async def test_nobody_to_ask_is_an_error_that_the_scheduler_retries(scheduler: Any) -> None:
    """Whether nobody serves or there is no connection, the pod goes back into the queue."""
    unserved = await scheduler.bind(**ARGS)
    scheduler.bus.cut()

    for error in (unserved, await scheduler.bind(**ARGS)):
        assert error.startswith("the allocator did not answer: ")


@pytest.mark.parametrize("name", ARGS)
@pytest.mark.parametrize("value", [None, "", 7], ids=["null", "empty", "a number"])
async def test_a_field_that_is_missing_is_named(scheduler: Any, name: str, value: Any) -> None:
    """Nothing is bound by halves."""
    allocator = await scheduler.serve(bind=Done())

    absent = await scheduler.bind(**{key: text for key, text in ARGS.items() if key != name})
    wrong = await scheduler.bind(**{**ARGS, name: value})

    assert absent.startswith(f"the extender binding args lack {name}: ")
    assert wrong.startswith(f"the extender binding args {'have an empty' if value == '' else 'lack'} {name}")
    assert [] == allocator.asked


@pytest.mark.parametrize("body", [b"", b"[]", b'{"PodName": ', b'{"PodName": "\xff"}', b'{"x": ' + b"[" * 100_000])
async def test_a_malformed_body_is_an_error_of_200(scheduler: Any, body: bytes) -> None:
    """One sentence, and the next pod is bound as ever."""
    await scheduler.serve(bind=Done())

    answer = await scheduler.post("/bind", body)

    assert answer["Error"].startswith(("the request body is no JSON object: ", "the extender binding args lack"))
    assert "" == await scheduler.bind(**ARGS)


async def test_an_allocator_that_hangs_is_an_error_in_time() -> None:
    """Our patience ends shortly after the allocator's own bind timeout."""
    async with _hanging(bind_timeout=0.05 - BIND_GRACE) as http:
        answer = await http.post("/bind", json=ARGS)

    assert 200 == answer.status_code
    expected = f"the allocator did not answer: {subjects.BIND}: no answer within 0.05 s"
    assert {"Error": expected} == answer.json()


@contextlib.asynccontextmanager
async def _hanging(*, bind_timeout: float) -> AsyncIterator[httpx.AsyncClient]:
    """Run an extender whose allocator never comes back from a bind."""

    async def hang(_question: BindPod) -> Done:
        await asyncio.Event().wait()
        return Done()

    bus = MemoryBus()
    await bus.serve("allocator", [Endpoint("bind", subjects.BIND, BindPod, hang)])
    extender = Extender(bus=bus, catalog=Catalog(vendors=()), bind_timeout=bind_timeout, telemetry=Telemetry())
    transport = httpx.ASGITransport(app=Starlette(routes=routes(extender)))
    async with httpx.AsyncClient(transport=transport, base_url="http://extender") as http:
        yield http
