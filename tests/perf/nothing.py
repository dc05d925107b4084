"""An extender that does nothing, as a program: names the offered nodes in turn, and binds as plainly as one can.

With ``--nats`` it is an allocator that does nothing: our extender asks it over the bus, as it asks ours.
One rule: nothing that such a part has to do is left out, and nothing else is done.
"""

import argparse
import asyncio
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from itertools import count
from pathlib import Path

import msgspec
from aiohttp import web
from hami_kit import bus as buses
from hami_kit.bus import BusSettings, Endpoint
from hami_kit.telemetry import Telemetry
from hami_model.bus import subjects
from hami_model.bus.messages import BindPod, Done, FilterPod, Placed
from hami_testkit.cluster.access import connect
from hami_testkit.cluster.client import ApiClient


def main() -> None:
    """Serve until a signal ends it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--kubeconfig", type=Path, required=True)
    parser.add_argument("--nats", metavar="URL")
    asyncio.run(_run(parser.parse_args()))


async def _run(options: argparse.Namespace) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with connect(options.kubeconfig) as api:
        nothing = _Nothing(api)
        async with _answering(nothing, options), _listening(_routes(nothing), options.port):
            await stop.wait()


def _answering(nothing: "_Nothing", options: argparse.Namespace) -> AbstractAsyncContextManager[object]:
    return _serving(nothing, options.nats) if options.nats else _nowhere()


@asynccontextmanager
async def _nowhere() -> AsyncIterator[None]:
    yield


class _Nothing:
    """Both verbs, whoever asks."""

    def __init__(self, api: ApiClient) -> None:
        self._api = api
        self._turns: Iterator[int] = count()

    def choose(self, names: list[str]) -> str:
        """Name one of the nodes."""
        return names[next(self._turns) % len(names)]

    async def bind(self, name: str, namespace: str, uid: str, node: str) -> None:
        """Bind the pod."""
        meta = {"name": name, "namespace": namespace, "uid": uid}
        binding = {"metadata": meta, "target": {"kind": "Node", "name": node}}
        await self._api.create(f"/api/v1/namespaces/{namespace}/pods/{name}/binding", binding)


@asynccontextmanager
async def _serving(nothing: _Nothing, url: str) -> AsyncIterator[None]:
    async def place(question: FilterPod) -> Placed:
        return Placed(node=nothing.choose(list(question.nodes)))

    async def bind(question: BindPod) -> Done:
        pod = question.pod
        await nothing.bind(pod.name, pod.namespace, pod.uid, question.node)
        return Done()

    endpoints = (
        Endpoint("filter", subjects.FILTER, FilterPod, place),
        Endpoint("bind", subjects.BIND, BindPod, bind),
    )
    async with buses.connect(BusSettings(url=url), name="nothing", telemetry=Telemetry()) as bus:
        await bus.wait_connected()
        await bus.serve("nothing", endpoints)
        yield


@asynccontextmanager
async def _listening(routes: list[web.RouteDef], port: int) -> AsyncIterator[None]:
    app = web.Application()
    app.add_routes(routes)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    try:
        yield
    finally:
        await runner.cleanup()


def _routes(nothing: _Nothing) -> list[web.RouteDef]:
    async def answer_filter(request: web.Request) -> web.Response:
        names = msgspec.json.decode(await request.read())["NodeNames"]
        return _json({"NodeNames": [nothing.choose(names)], "FailedNodes": {}, "Error": ""})

    async def answer_bind(request: web.Request) -> web.Response:
        asked = msgspec.json.decode(await request.read())
        await nothing.bind(asked["PodName"], asked["PodNamespace"], asked["PodUID"], asked["Node"])
        return _json({"Error": ""})

    async def ready(_request: web.Request) -> web.Response:
        return web.Response()

    return [web.post("/filter", answer_filter), web.post("/bind", answer_bind), web.get("/readyz", ready)]


def _json(answer: object) -> web.Response:
    return web.Response(body=msgspec.json.encode(answer), content_type="application/json")


if __name__ == "__main__":
    main()
