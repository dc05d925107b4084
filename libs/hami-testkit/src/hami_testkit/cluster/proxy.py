"""A way to an API server, real or stand-in, that can be bad: requests are held, lost or refused, watches lag or break.

One rule: it changes when and whether something arrives, never what; the other side cannot tell it from the network. It
speaks plain HTTP to whoever comes, and to the server with the credentials of a kubeconfig.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from fnmatch import fnmatchcase
from pathlib import Path

import aiohttp
import msgspec
from aiohttp import web
from multidict import CIMultiDict
from yarl import URL

from hami_testkit.cluster.access import Access, read
from hami_testkit.cluster.faults import Call, Fault, Switches
from hami_testkit.cluster.simulated import kubeconfig
from hami_testkit.cluster.status import ApiError
from hami_testkit.cluster.watch import error_line

LARGEST_REQUEST = 3 * 1024 * 1024
KEPT = ("Content-Type", "Accept")
VERBS = {"GET": "get", "POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}


class Passage(msgspec.Struct, kw_only=True):
    """One request that is no watch: when it came, when it was sent on, how it was answered; by the monotonic clock."""

    call: Call
    body: bytes
    came: float
    sent: float = 0.0
    answered: float = 0.0
    code: int = 0
    is_lost: bool = False
    """Whether the answer was lost on the way back."""


class _Stream:
    """One open watch."""

    def __init__(self, resource: str) -> None:
        self.resource = resource
        self.flowing = asyncio.Event()
        self.flowing.set()
        self.ended = asyncio.Event()
        self.last = b""
        self.is_silent = False

    def end(self, last: bytes = b"") -> None:
        self.last = last
        self.ended.set()


class ProxyFaults(Switches):
    """The switches of one proxy: as the stand-in's, for those who come this way."""

    def __init__(self) -> None:
        super().__init__()
        self.streams: set[_Stream] = set()
        self._held: set[str] = set()

    def opened(self, stream: _Stream) -> None:
        """Let a new watch meet what holds for all."""
        self.streams.add(stream)
        if any(fnmatchcase(stream.resource, pattern) for pattern in self._held):
            stream.flowing.clear()

    def turn_watches(self, fault: Fault) -> None:
        """Turn a switch of the watches of the resources that the pattern meets."""
        if fault.kind == "hold":
            self._held.add(fault.resource)
        if fault.kind == "release":
            self._held.discard(fault.resource)
        for stream in [s for s in self.streams if fnmatchcase(s.resource, fault.resource)]:
            match fault.kind:
                case "hold":
                    stream.flowing.clear()
                case "release" if not stream.is_silent:
                    stream.flowing.set()
                case "silence":
                    stream.is_silent = True
                    stream.flowing.clear()
                case "gone":
                    stream.end(error_line(ApiError(410, "too old resource version", reason="Expired")))
                case "end":
                    stream.end()
                case _:
                    pass

    def release_watches(self) -> None:
        """Let all watches catch up, but for those that are silent for ever."""
        self._held.clear()
        for stream in self.streams:
            if not stream.is_silent:
                stream.flowing.set()


class ApiProxy:
    """A running proxy: where it listens, its switches, and what passed."""

    def __init__(self, to: Path, session: aiohttp.ClientSession, listen: Callable[[Passage], None]) -> None:
        self.url = ""
        self.faults = ProxyFaults()
        self._to = to
        self._session = session
        self._listen = listen
        self._access: Access | None = None

    def kubeconfig(self, path: Path) -> Path:
        """Write a kubeconfig that leads here, and return its path."""
        path.write_text(kubeconfig(self.url))
        return path

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Pass a request on and its answer back, as far as the switches let them."""
        call = call_of(request.method, request.path, watches=request.query.get("watch") in ("true", "1"))
        body = await request.read()
        passage = Passage(call=call, body=body, came=time.monotonic())
        if call.verb != "watch":
            self._listen(passage)
        try:
            await self.faults.before(call)
            passage.sent = time.monotonic()
            async with self._send(request, body) as upstream:
                passage.code = upstream.status
                if call.verb == "watch" and upstream.status == 200:
                    return await self._watch(request, call, upstream)
                text = await upstream.read()
        except ApiError as refusal:
            passage.code = refusal.code
            return web.Response(
                status=refusal.code, body=msgspec.json.encode(refusal.status()), content_type="application/json"
            )
        except (aiohttp.ClientError, OSError):
            return _cut(request)
        finally:
            passage.answered = time.monotonic()
        if self.faults.drops(call):
            passage.is_lost = True
            return _cut(request)
        await self.faults.running()
        headers = CIMultiDict({"Content-Type": upstream.content_type})
        for warning in upstream.headers.getall("Warning", ()):
            headers.add("Warning", warning)
        return web.Response(status=upstream.status, body=text, headers=headers)

    def _send(self, request: web.Request, body: bytes) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        where = self._where()
        headers = {name: request.headers[name] for name in KEPT if name in request.headers}
        if where.token:
            headers["Authorization"] = f"Bearer {where.token}"
        url = URL(where.url + request.raw_path, encoded=True)
        return self._session.request(request.method, url, data=body or None, headers=headers, ssl=where.tls or True)

    def _where(self) -> Access:
        if self._access is None:  # read late: the proxy may stand before the server does
            self._access = read(self._to.read_text())
        return self._access

    async def _watch(self, request: web.Request, call: Call, upstream: aiohttp.ClientResponse) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        stream = _Stream(call.resource)
        self.faults.opened(stream)
        pump = asyncio.create_task(_pump(stream, upstream, response))
        ended = asyncio.create_task(stream.ended.wait())
        try:
            await asyncio.wait({pump, ended}, return_when=asyncio.FIRST_COMPLETED)
            if stream.last:
                await response.write(stream.last)
        except ConnectionResetError:
            pass  # the reader left
        finally:
            self.faults.streams.discard(stream)
            for task in (pump, ended):
                task.cancel()
            await asyncio.gather(pump, ended, return_exceptions=True)
        return response


async def _pump(stream: _Stream, upstream: aiohttp.ClientResponse, response: web.StreamResponse) -> None:
    """Pass whole lines on, so that a watch that is ended does not end in the middle of one."""
    rest = b""
    try:
        async for block in upstream.content.iter_any():
            lines, newline, rest = (rest + block).rpartition(b"\n")
            await stream.flowing.wait()
            if newline:
                await response.write(lines + newline)
    except (aiohttp.ClientError, OSError):
        return  # either side is gone: the watch ends


def _cut(request: web.Request) -> web.Response:
    """End the connection without an answer."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response(status=502)


def call_of(method: str, path: str, *, watches: bool = False) -> Call:
    """Say what a request is about, as the switches see it: verb, ``pods`` or ``pods/binding``, name."""
    parts = path.strip("/").split("/")[2 if path.startswith("/api/") else 3 :]
    if len(parts) > 2 and parts[0] == "namespaces":
        parts = parts[2:]
    resource, name, sub = (*parts, "", "", "")[:3]
    verb = VERBS.get(method, method.lower())
    if verb == "get" and not name:
        verb = "list"
    return Call("watch" if watches else verb, f"{resource}/{sub}" if sub else resource, name)


@asynccontextmanager
async def api_proxy(to: Path, *, listen: Callable[[Passage], None] = lambda _: None) -> AsyncIterator[ApiProxy]:
    """Run a proxy to the server of a kubeconfig, which may be written later; ``listen`` hears of each request."""
    connector = aiohttp.TCPConnector(limit=0)
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=10)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
        proxy = ApiProxy(to, session, listen)
        app = web.Application(client_max_size=LARGEST_REQUEST)
        app.router.add_route("*", "/{path:.*}", proxy.answer)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0, backlog=1024).start()
            proxy.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
            yield proxy
        finally:
            proxy.faults.clear()
            for stream in list(proxy.faults.streams):
                stream.end()
            await asyncio.sleep(0)
            await runner.cleanup()
