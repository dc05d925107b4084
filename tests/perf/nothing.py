"""An extender that does nothing, as a program: names the offered nodes in turn, and binds as plainly as one can.

One rule: nothing that a scheduler extender has to do is left out, and nothing else is done.
"""

import argparse
import asyncio
import signal
from itertools import count

import msgspec
from aiohttp import web
from hami_testkit.cluster.client import ApiClient


def main() -> None:
    """Serve until a signal ends it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--api", required=True, metavar="URL")
    asyncio.run(_serve(parser.parse_args()))


async def _serve(options: argparse.Namespace) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with ApiClient.connect(options.api) as api:
        app = web.Application()
        app.add_routes(_routes(api))
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", options.port).start()
        await stop.wait()
        await runner.cleanup()


def _routes(api: ApiClient) -> list[web.RouteDef]:
    turns = count()

    async def answer_filter(request: web.Request) -> web.Response:
        names = msgspec.json.decode(await request.read())["NodeNames"]
        return _json({"NodeNames": [names[next(turns) % len(names)]], "FailedNodes": {}, "Error": ""})

    async def answer_bind(request: web.Request) -> web.Response:
        asked = msgspec.json.decode(await request.read())
        meta = {"name": asked["PodName"], "namespace": asked["PodNamespace"], "uid": asked["PodUID"]}
        binding = {"metadata": meta, "target": {"kind": "Node", "name": asked["Node"]}}
        await api.create(f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}/binding", binding)
        return _json({"Error": ""})

    async def ready(_request: web.Request) -> web.Response:
        return web.Response()

    return [web.post("/filter", answer_filter), web.post("/bind", answer_bind), web.get("/readyz", ready)]


def _json(answer: object) -> web.Response:
    return web.Response(body=msgspec.json.encode(answer), content_type="application/json")


if __name__ == "__main__":
    main()
