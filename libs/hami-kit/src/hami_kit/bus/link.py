"""The connection to NATS: made, kept and remade for ever.

One rule: whoever wants to listen says so once, with or without a connection; each new connection starts all of them.
It also knows when NATS was last heard of, which a half-open connection would otherwise hide.
"""

import asyncio
import logging
import re
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from nats.aio.client import Client
from nats.errors import Error as NatsError

from hami_kit.bus.seam import BusSettings, without_secrets
from hami_kit.clock import Clock
from hami_kit.errors import BusUnavailable, SettingsError

log = logging.getLogger(__name__)

SCHEMES = ("nats", "tls", "ws", "wss")
CONNECT_TIMEOUT = 2
FLUSH_TIMEOUT = 2
OUTSTANDING_PINGS = 4
HUNG_UP = (ConnectionResetError, BrokenPipeError)
"""A server that refuses a client hangs up at once; what it said before tells more, and may be lost with that."""
REPEAT_LOG = 30.0
"""Seconds before the same trouble with NATS is logged again."""


class Wanted(Protocol):
    """Something that listens: started on each new connection."""

    async def start(self, client: Client) -> None:
        """Subscribe on this connection."""
        ...


class _Client(Client):
    """A client that tells when it hears a pong, and pings in its turn."""

    def __init__(self, heard: Callable[[], None]) -> None:
        super().__init__()
        self._heard = heard

    async def _send_ping(self, future: "asyncio.Future[Any] | None" = None) -> None:
        # nats-py lets a ping overtake what waits to be written: its pong would not tell that the server has read that
        if self.is_connected and self._pending and self._transport is not None:
            self._transport.writelines(self._pending)
            self._pending, self._pending_data_size = [], 0
        await super()._send_ping(future)

    async def _process_pong(self) -> None:
        # nats-py's read loop dies on the late pong of a flush that gave up: its future is cancelled already
        if self._pongs and self._pongs[0].done():
            self._pongs[0] = asyncio.get_running_loop().create_future()
        await super()._process_pong()
        self._heard()


class Link:
    """One connection to NATS at a time, and those who listen on it."""

    def __init__(self, settings: BusSettings, *, name: str, clock: Clock) -> None:
        self._settings = settings
        self._name = name
        self._clock = clock
        self._client: Client | None = None
        self._wanted: list[Wanted] = []
        self._up = asyncio.Event()
        self._heard_at = clock.monotonic()
        self._logged: tuple[str, float] = ("", 0.0)
        self.trouble = ""
        """What was in the way last, empty where nothing ever was."""
        self._servers = _servers(settings.url)
        self._tls = _trust(settings.ca)
        _check_creds(settings.creds)
        self.reconnects = 0

    @property
    def is_connected(self) -> bool:
        """Say whether there is a connection now."""
        return self._client is not None and self._client.is_connected

    def client(self) -> Client:
        """Return the connection; raise BusUnavailable where there is none."""
        if self._client is None or not self._client.is_connected:
            raise BusUnavailable(f"there is no connection to NATS at {self._settings.shown}; it is being tried again")
        return self._client

    async def hold(self, wanted: Wanted) -> None:
        """Start ``wanted`` now and on every later connection; return when NATS knows of it, if there is one."""
        self._wanted.append(wanted)
        if self._client is None:
            return
        try:
            await wanted.start(self._client)
        except (NatsError, OSError, TimeoutError) as e:
            await self._tell(e)  # the connection has just gone: the next one starts it
        else:
            await self._flush()

    def drop(self, wanted: Wanted) -> None:
        """Start ``wanted`` no more."""
        if wanted in self._wanted:
            self._wanted.remove(wanted)

    async def wait_connected(self) -> None:
        """Return when there is a connection."""
        await self._up.wait()

    async def wait_disconnected(self, seconds: float) -> None:
        """Return when NATS has not been heard of for so long."""
        while (left := self._heard_at + seconds - self._clock.monotonic()) > 0:  # noqa: ASYNC110 - silence is no event
            await asyncio.sleep(left)

    async def run(self) -> None:
        """Connect, and again whenever the connection is closed for good; until cancelled."""
        while True:
            closed = asyncio.Event()
            client = _Client(self._hear)
            try:
                await client.connect(**self._options(closed))
                self._client = client
                await self._begin(client)
                await closed.wait()
            except (NatsError, OSError, TimeoutError, ValueError) as e:
                await self._tell(e)
            finally:
                self._up.clear()
                self._client = None
                await leave(client)
            await asyncio.sleep(self._settings.reconnect_wait)

    async def _begin(self, client: Client) -> None:
        for wanted in tuple(self._wanted):
            await wanted.start(client)
        await self._flush()
        self._hear()
        self._up.set()
        server = client.connected_url.geturl() if client.connected_url else ""
        log.info("connected to NATS at %s as %s", without_secrets(server), self._name)

    async def _flush(self) -> None:
        """Wait until the server has read what we wrote; a connection that breaks meanwhile subscribes again."""
        if self.is_connected and self._client is not None:
            try:
                await self._client.flush(timeout=FLUSH_TIMEOUT)
            except (NatsError, OSError, TimeoutError) as e:
                await self._tell(e)

    def _options(self, closed: asyncio.Event) -> dict[str, Any]:
        async def on_closed() -> None:
            closed.set()

        settings = self._settings
        options: dict[str, Any] = {
            "servers": self._servers,
            "name": self._name,
            "connect_timeout": CONNECT_TIMEOUT,
            "max_reconnect_attempts": -1,
            "reconnect_time_wait": settings.reconnect_wait,
            "ping_interval": settings.ping_interval,
            "max_outstanding_pings": OUTSTANDING_PINGS,
            "error_cb": self._tell,
            "disconnected_cb": self._lose,
            "reconnected_cb": self._regain,
            "closed_cb": on_closed,
        }
        if settings.creds is not None:
            options["user_credentials"] = str(settings.creds)
        if self._tls is not None:
            options["tls"] = self._tls
        return options

    def _hear(self) -> None:
        self._heard_at = self._clock.monotonic()

    async def _lose(self) -> None:
        if self._up.is_set():
            log.warning("lost the connection to NATS; trying again")
        self._up.clear()

    async def _regain(self) -> None:
        self.reconnects += 1
        self._hear()
        self._up.set()
        log.info("connected to NATS again")

    async def _tell(self, error: Exception) -> None:
        text, now = ": ".join(filter(None, [type(error).__name__, str(error)])), self._clock.monotonic()
        if not (self.trouble and isinstance(error, HUNG_UP)):
            self.trouble = text
        if text != self._logged[0] or now - self._logged[1] > REPEAT_LOG:
            self._logged = (text, now)
            log.warning("NATS at %s: %s%s", self._settings.shown, text, "" if self._up.is_set() else "; trying again")


async def leave(client: Client) -> None:
    """Close a connection; one that broke under the last writes has nothing left to close."""
    try:
        await client.close()
    except (NatsError, OSError) as e:
        log.debug("closing the connection to NATS: %s", e)


def _servers(url: str) -> list[str]:
    servers = [part.strip() for part in url.split(",") if part.strip()]
    for server in servers or [url]:
        try:
            parts = urlsplit(server if "://" in server else f"nats://{server}")
            named = re.fullmatch(r"[\w.:%-]+", parts.hostname or "") is not None
            usable = parts.scheme in SCHEMES and named and (parts.port or 1) > 0
        except ValueError:
            usable = False
        if not usable:
            raise SettingsError(
                "HAMI_NATS_URL", f'"{without_secrets(server)}" is no NATS server; write one such as nats://nats:4222'
            )
    return servers


def _trust(ca: Path | None) -> ssl.SSLContext | None:
    if ca is None:
        return None
    try:
        return ssl.create_default_context(cafile=str(ca))
    except (OSError, ssl.SSLError) as e:
        raise SettingsError("HAMI_NATS_CA", f'"{ca}" cannot be used ({e}); name a PEM certificate') from e


def _check_creds(creds: Path | None) -> None:
    """Refuse credentials that are not there; they are read again for each connection."""
    if creds is None:
        return
    try:
        problem = "" if "BEGIN NATS USER JWT" in creds.read_text() else "holds no NATS user JWT"
    except OSError as e:
        problem = f"cannot be read ({e.strerror})"
    except ValueError:
        problem = "is no text"
    if problem:
        raise SettingsError("HAMI_NATS_CREDS", f'"{creds}" {problem}; name a .creds file')
