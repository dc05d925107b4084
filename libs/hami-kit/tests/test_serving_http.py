"""Serving: a real port, TLS that follows its files, health that says why."""

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from hami_kit import tls as tls_files
from hami_kit import web
from hami_kit.errors import SettingsError
from hami_kit.pages import Packed, Packer
from hami_kit.setting_values import Address
from hami_kit.settings import ServerSettings
from hami_kit.telemetry import Telemetry
from hami_kit.tls import TlsFiles
from hami_kit.web import Health
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from .certificates import Chain, a_certificate, an_authority
from .conftest import DEADLINE, until

ANYWHERE = Address("127.0.0.1", 0)


async def hello(_request: Request) -> Response:
    return Response("hello")


APP = Starlette(routes=[Route("/", hello)])


@asynccontextmanager
async def a_client(trusted: Path | None = None, mine: Chain | None = None) -> AsyncIterator[httpx.AsyncClient]:
    context: ssl.SSLContext | bool = False
    if trusted is not None:
        context = ssl.create_default_context(cafile=str(trusted))
        if mine is not None:
            context.load_cert_chain(mine.cert, mine.key)
    async with httpx.AsyncClient(verify=context, trust_env=False, timeout=10) as client:
        yield client


async def is_greeted(url: str, trusted: Path | None = None, mine: Chain | None = None) -> bool:
    """Say whether a new connection is served."""
    async with a_client(trusted, mine) as client:
        try:
            return "hello" == (await client.get(url)).text
        except (httpx.TransportError, ssl.SSLError):
            return False


async def test_a_port_is_taken_for_the_block_only() -> None:
    """Port 0 takes a free one and says which; afterwards nobody listens there."""
    async with web.serve(APP, ANYWHERE) as address:
        assert address.port > 0
        assert await is_greeted(f"http://{address}")

    assert not await is_greeted(f"http://{address}")


async def test_a_taken_port_is_a_sentence() -> None:
    """It names the variable, the address and the way out."""
    async with web.serve(APP, ANYWHERE) as address:
        with pytest.raises(SettingsError, match=rf'HAMI_LISTEN: "{address}" cannot be listened on \(Address already'):
            async with web.serve(APP, address):
                pass


async def an_echo(request: Request) -> Response:
    return Response(await web.read_body(request, most=10))


ECHO = Starlette(routes=[Route("/", an_echo, methods=["POST"])])


@pytest.mark.parametrize("chunked", [False, True], ids=["with its length", "in chunks"])
async def test_of_a_long_body_no_more_is_kept_than_shows_that_it_is_too_long(chunked: bool) -> None:
    """Nobody fills our memory: one byte beyond the limit is all that the service gets to see."""

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(1000):
            yield b"x" * 1000

    async with web.serve(ECHO, ANYWHERE) as address, a_client() as client:
        short = await client.post(f"http://{address}", content=b"x" * 10)
        long = await client.post(f"http://{address}", content=pieces() if chunked else b"x" * 1_000_000)

    assert (b"x" * 10, b"x" * 11) == (short.content, long.content)


async def test_a_client_that_hangs_up_within_its_body_is_nobodys_error(caplog: pytest.LogCaptureFixture) -> None:
    """Half a body is answered to nobody, and what is no HTTP at all is one line of the log."""
    with caplog.at_level(logging.WARNING):
        async with web.serve(ECHO, ANYWHERE) as address:
            for sent in (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 500\r\n\r\n{", b"\x16\x03\x01\r\n\r\n"):
                _, writer = await asyncio.open_connection(address.host, address.port)
                writer.write(sent)
                await writer.drain()
                writer.close()
                await writer.wait_closed()
            await until(lambda: bool(caplog.records))

    assert ["Invalid HTTP request received."] == [record.getMessage() for record in caplog.records]
    assert logging.getLogger("uvicorn").handlers == []


async def test_a_body_that_does_not_go_on_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody holds a connection, or our end, by half a body."""
    monkeypatch.setattr(web, "BODY_PAUSE", 0.05)
    async with web.serve(ECHO, ANYWHERE) as address:
        reader, writer = await asyncio.open_connection(address.host, address.port)
        writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhalf")
        async with asyncio.timeout(DEADLINE):
            assert b"HTTP/1.1 200 OK\r\ncontent-length: 0" in await reader.readuntil(b"\r\n\r\n")
        writer.close()
        await writer.wait_closed()


async def test_answers_under_way_are_finished() -> None:
    """A clean stop does not cut off a bind that waits for the API server."""
    began, go_on = asyncio.Event(), asyncio.Event()

    async def slow(_request: Request) -> Response:
        began.set()
        await go_on.wait()
        return Response("done")

    async with a_client() as client:
        async with web.serve(Starlette(routes=[Route("/", slow)]), ANYWHERE) as address:
            asked = asyncio.create_task(client.get(f"http://{address}"))
            await began.wait()
            asyncio.get_running_loop().call_later(0.2, go_on.set)
        assert "done" == (await asked).text


async def test_a_new_certificate_is_shown_without_a_restart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The files are replaced, as cert-manager does: new connections see the new pair."""
    monkeypatch.setattr(tls_files, "CERTIFICATES_EVERY", 0.05)
    old, new = a_certificate(tmp_path, "old"), a_certificate(tmp_path, "new")
    tls = TlsFiles(cert=old.cert, key=old.key)
    async with web.serve(APP, ANYWHERE, tls=tls) as address:
        url = f"https://{address}"
        assert await is_greeted(url, old.ca)
        assert not await is_greeted(url, new.ca)

        new.cert.replace(old.cert)
        assert await is_greeted(url, old.ca)  # half a change: the old pair stays
        new.key.replace(old.key)
        await until(lambda: is_greeted(url, new.ca))
        assert not await is_greeted(url, old.ca)


async def test_only_clients_of_the_ca_are_served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """HAMI_TLS_CLIENT_CA: nobody else gets an answer; a new CA replaces the old one."""
    monkeypatch.setattr(tls_files, "CERTIFICATES_EVERY", 0.05)
    server = a_certificate(tmp_path, "server")
    old, new = an_authority(tmp_path, "old"), an_authority(tmp_path, "new")
    known = a_certificate(tmp_path, "known", authority=old)
    later = a_certificate(tmp_path, "later", authority=new)
    clients = tmp_path / "clients.crt"
    clients.write_bytes(old[0].read_bytes())
    async with web.serve(APP, ANYWHERE, tls=TlsFiles(cert=server.cert, key=server.key, client_ca=clients)) as address:
        url = f"https://{address}"
        assert await is_greeted(url, server.ca, known)
        assert not await is_greeted(url, server.ca)
        assert not await is_greeted(url, server.ca, later)

        clients.write_bytes(new[0].read_bytes())
        await until(lambda: is_greeted(url, server.ca, later))
        assert not await is_greeted(url, server.ca, known)


async def test_tls_files_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    """Absent, not PEM, or a key that does not fit: one sentence at start."""
    one, other = a_certificate(tmp_path, "one"), a_certificate(tmp_path, "other")
    (tmp_path / "text").write_text("text")
    for tls, sentence in (
        (TlsFiles(cert=tmp_path / "absent", key=one.key), 'HAMI_TLS_CERT: ".*absent" cannot be read'),
        (TlsFiles(cert=tmp_path / "text", key=one.key), "HAMI_TLS_CERT: .* cannot be used"),
        (TlsFiles(cert=one.cert, key=other.key), "HAMI_TLS_CERT: .* cannot be used"),
        (TlsFiles(cert=one.cert, key=one.key, client_ca=tmp_path / "text"), "HAMI_TLS_CLIENT_CA: .* is no PEM"),
    ):
        with pytest.raises(SettingsError, match=sentence):
            async with web.serve(APP, ANYWHERE, tls=tls):
                pass


async def test_ready_only_when_every_part_is() -> None:
    """/readyz says which part is not, and what each part knows; /healthz says that the process runs."""
    state = {"nats": True}
    checks: dict[str, web.Check] = {
        "nats": lambda: state["nats"],
        "pods": lambda: Health(ok=True, detail={"resourceVersion": "1234"}),
    }
    app = Starlette(routes=web.health_routes(checks, Telemetry().metrics))
    async with web.serve(app, ANYWHERE) as address, a_client() as client:
        ready = await client.get(f"http://{address}/readyz")
        state["nats"] = False
        unready = await client.get(f"http://{address}/readyz")
        alive = await client.get(f"http://{address}/healthz")

    assert (200, 503, 200) == (ready.status_code, unready.status_code, alive.status_code)
    assert {"nats": {"ok": False}, "pods": {"ok": True, "resourceVersion": "1234"}} == unready.json()["checks"]


@pytest.mark.parametrize("accepted", ["gzip", "identity"])
async def test_metrics_are_a_page_and_the_process_own(accepted: str) -> None:
    """The page that the service adds, then prometheus-client's own numbers: as gzip, or as text for who takes none."""

    async def page() -> Packed:
        packer = Packer()
        packer.add("hami_fleet", "hami_fleet 1\n")
        return packer.packed()

    app = Starlette(routes=web.health_routes({}, Telemetry().metrics, page=page))
    async with web.serve(app, ANYWHERE) as address, a_client() as client:
        answer = await client.get(f"http://{address}/metrics", headers={"accept-encoding": accepted})

    assert answer.text.startswith("hami_fleet 1\n")
    assert "process_resident_memory_bytes" in answer.text
    assert answer.headers["content-type"].startswith("text/plain")
    assert (accepted == "gzip") is ("content-encoding" in answer.headers)


async def test_health_stands_apart_where_asked(tmp_path: Path) -> None:
    """With HAMI_HEALTH_LISTEN the kubelet's probe needs no certificate, and the service's own port has no health."""
    server, known = a_certificate(tmp_path, "server"), a_certificate(tmp_path, "known")
    free = await _a_free_address()
    settings = ServerSettings(
        listen=ANYWHERE, health_listen=free, tls_cert=server.cert, tls_key=server.key, tls_client_ca=known.ca
    )
    health = web.health_routes({}, Telemetry().metrics)
    async with web.serve_service(settings, [Route("/", hello)], health) as address, a_client() as client:
        assert 200 == (await client.get(f"http://{free}/readyz")).status_code
        assert await is_greeted(f"https://{address}", server.ca, known)
        async with a_client(server.ca, known) as insider:
            assert 404 == (await insider.get(f"https://{address}/readyz")).status_code
    async with web.serve_service(ServerSettings(listen=ANYWHERE), [Route("/", hello)], health) as address:
        assert await is_greeted(f"http://{address}")
        async with a_client() as client:
            assert 200 == (await client.get(f"http://{address}/readyz")).status_code


async def _a_free_address() -> Address:
    async with web.serve(APP, ANYWHERE) as address:
        return address
