"""Serving HTTP: an ASGI application on an address, with TLS that follows its files, and the health routes.

One rule: a server belongs to its block; it takes no signals, and when the block ends its port is free.
"""

import asyncio
import contextlib
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from itertools import chain
from typing import Protocol

import msgspec
import uvicorn
from msgspec import Struct
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp

from hami_kit.errors import SettingsError
from hami_kit.pages import Packed
from hami_kit.setting_values import Address
from hami_kit.tls import TlsFiles, TlsSettings, certificates

log = logging.getLogger(__name__)

KEEP_ALIVE = 75
"""Seconds that an idle connection is kept: kube-scheduler keeps its own longer than uvicorn's default of 5."""


STOP_WITHIN = 5
"""Seconds for answers under way when the block ends."""

BODY_PAUSE = 4.0
"""Seconds that a body may pause: a client that stops half-way must not hold up the end."""


PIECE = 64 * 1024
"""Bytes of a long answer that are sent at a stretch."""


class ServiceSettings(TlsSettings, Protocol):
    """The part of ``ServerSettings`` that ``serve_service`` reads."""

    @property
    def listen(self) -> Address:
        """Return HAMI_LISTEN."""
        ...

    @property
    def health_listen(self) -> Address | None:
        """Return HAMI_HEALTH_LISTEN."""
        ...


class Health(Struct, frozen=True):
    """One part's answer to /readyz, with whatever helps to see why."""

    ok: bool
    detail: dict[str, object] = {}


Check = Callable[[], bool | Health]
"""Says whether one part is ready; quick, and never raises."""


class _Server(uvicorn.Server):
    """uvicorn without signal handlers, that says when it listens."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """Take no more calls."""
        self.should_exit = True
        self._stopping.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listening.set()

    async def main_loop(self) -> None:
        # uvicorn's own wakes up ten times a second, for a date that we do not send
        await self.on_tick(0)
        await self._stopping.wait()


@asynccontextmanager
async def serve(
    app: ASGIApp, listen: Address, *, tls: TlsFiles | None = None, variable: str = "HAMI_LISTEN"
) -> AsyncIterator[Address]:
    """Serve for the length of a block, which gets the address with its real port.

    Raise SettingsError that names ``variable`` for an address that is taken.
    """
    shown = certificates(tls)
    with _bind(listen, variable) as bound:
        config = uvicorn.Config(
            app,
            log_config=None,  # its lines are lines of our log
            log_level="warning",
            access_log=False,
            proxy_headers=False,
            lifespan="off",
            timeout_keep_alive=KEEP_ALIVE,
            timeout_graceful_shutdown=STOP_WITHIN,
            server_header=False,
            date_header=False,
        )
        config.load()
        config.ssl = shown.front if shown else None
        server = _Server(config)
        async with asyncio.TaskGroup() as tasks:
            serving = tasks.create_task(server.serve([bound]), name=f"http {listen}")
            following = tasks.create_task(shown.follow(), name="certificates") if shown else None
            await server.listening.wait()
            try:
                yield Address(listen.host, bound.getsockname()[1])
            finally:
                server.stop()
                if following is not None:
                    following.cancel()
                await asyncio.wait([serving])


@asynccontextmanager
async def serve_service(
    settings: ServiceSettings, routes: Sequence[Route], health: Sequence[Route]
) -> AsyncIterator[Address]:
    """Serve a service's routes with its TLS; its health beside them, or on HAMI_HEALTH_LISTEN in plain HTTP."""
    tls = TlsFiles.of(settings)
    if settings.health_listen is None:
        async with serve(Starlette(routes=[*routes, *health]), settings.listen, tls=tls) as address:
            yield address
        return
    async with (
        serve(Starlette(routes=health), settings.health_listen, variable="HAMI_HEALTH_LISTEN"),
        serve(Starlette(routes=routes), settings.listen, tls=tls) as address,
    ):
        yield address


def _bind(listen: Address, variable: str) -> socket.socket:
    family = socket.AF_INET6 if ":" in listen.host else socket.AF_INET
    # the protocol is named because asyncio turns Nagle's algorithm off only for sockets that name it: 40 ms a call
    bound = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((listen.host, listen.port))
    except OSError as e:
        bound.close()
        raise SettingsError(variable, f'"{listen}" cannot be listened on ({e.strerror}); name a free one') from e
    return bound


async def read_body(request: Request, *, most: int) -> bytes:
    """Return the posted body: of a longer one its first ``most`` + 1 bytes, of one that does not come whole nothing."""
    body, loop = bytearray(), asyncio.get_running_loop()
    try:
        async with asyncio.timeout(BODY_PAUSE) as pause:
            async for piece in request.stream():
                pause.reschedule(loop.time() + BODY_PAUSE)
                body += piece
                if len(body) > most:
                    break
    except (ClientDisconnect, TimeoutError):
        return b""
    return bytes(body[: most + 1])


def health_routes(
    checks: Mapping[str, Check], metrics: CollectorRegistry, *, page: Callable[[], Awaitable[Packed]] | None = None
) -> list[Route]:
    """Return /healthz (it runs), /readyz (every check is content) and /metrics (``page`` before the process's own)."""

    async def healthz(_request: Request) -> Response:
        return Response()

    async def readyz(_request: Request) -> Response:
        answers = {name: _health(check()) for name, check in checks.items()}
        ready = all(answer.ok for answer in answers.values())
        told = {name: {"ok": answer.ok, **answer.detail} for name, answer in answers.items()}
        body = msgspec.json.encode({"ready": ready, "checks": told})
        return Response(body, status_code=200 if ready else 503, media_type="application/json")

    async def show(request: Request) -> Response:
        more = await page() if page else Packed()
        own = await asyncio.to_thread(generate_latest, metrics)
        if "gzip" in request.headers.get("accept-encoding", ""):
            packed = await asyncio.to_thread(more.gzip, own)
            headers = {"content-encoding": "gzip", "content-length": str(len(packed))}
            return StreamingResponse(_pieces(packed), media_type=CONTENT_TYPE_LATEST, headers=headers)
        return StreamingResponse(chain(more.texts(), [own]), media_type=CONTENT_TYPE_LATEST)

    return [Route("/healthz", healthz), Route("/readyz", readyz), Route("/metrics", show)]


async def _pieces(body: bytes) -> AsyncIterator[bytes]:
    """Yield a body in pieces, between which others have their turn."""
    for start in range(0, len(body), PIECE):
        yield body[start : start + PIECE]
        await asyncio.sleep(0)


def _health(answer: bool | Health) -> Health:  # noqa: FBT001 - a check's whole answer
    return answer if isinstance(answer, Health) else Health(answer)
