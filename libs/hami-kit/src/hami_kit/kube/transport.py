"""Bytes to and from the API server: configuration, authentication and TLS are kubernetes_asyncio's, bodies stay raw.

One rule: every failure leaves here as a ``KubeError``.
"""

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypedDict, Unpack
from urllib.parse import urlsplit

import aiohttp
import msgspec
from aiohttp.http_exceptions import LineTooLong

from hami_kit.errors import KubeGone, KubeUnavailable, SettingsError
from hami_kit.kube.library import Configuration, RestClient
from hami_kit.kube.library import config as kube_config
from hami_kit.kube.wire import JSON, Answer, refusal

CALL_TIMEOUT = 15.0
"""Seconds for one call, where the caller gives none."""

CONNECT_TIMEOUT = 5.0

RENEW_EVERY = 60
"""Seconds between two looks at credentials that expire."""

LONGEST_LINE = 2**24
"""Bytes of one line of a watch: etcd stores 1.5 MiB an object by default, and JSON writes some bytes as six."""

log = logging.getLogger(__name__)


def _anybody() -> None:
    return None


class Options(TypedDict, total=False):
    """What a call may have; ``timeout`` in seconds, for all of it."""

    query: Mapping[str, str] | None
    body: Any
    content: str
    timeout: float


class Transport:
    """Calls to one API server. ``guard`` is asked in the loop step in which a write is sent, and raises to stop it."""

    def __init__(self, settings: Any, session: aiohttp.ClientSession, *, guard: Callable[[], None] = _anybody) -> None:
        self._settings = settings
        self._session = session
        self._guard = guard
        self._base: str = (settings.host or "").rstrip("/")
        options = {"proxy": settings.proxy, "server_hostname": settings.tls_server_name}
        self._options = {name: value for name, value in options.items() if value}

    def guarded(self, guard: Callable[[], None]) -> "Transport":
        """Return the same way to the same server, with a guard before its writes."""
        return Transport(self._settings, self._session, guard=guard)

    async def call(self, method: str, path: str, **options: Unpack[Options]) -> bytes:
        """Make one call and return the body; raise the ``KubeError`` that a refusal or a failure is."""
        return (await self.ask(method, path, **options)).body

    async def ask(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Any = None,
        content: str = JSON,
        timeout: float = CALL_TIMEOUT,
    ) -> Answer:
        """Make one call as ``call`` does, and return what it was answered with its date."""
        data = None if body is None else msgspec.json.encode(body)
        limit = aiohttp.ClientTimeout(total=timeout, sock_connect=CONNECT_TIMEOUT)
        headers = await self._headers(content)
        if method != "GET":
            self._guard()
        try:
            async with self._session.request(
                method,
                self._base + path,
                params=query,
                data=data,
                headers=headers,
                timeout=limit,
                **self._options,
            ) as answer:
                text = await answer.read()
                if answer.status < 300:
                    return Answer(text, answer.headers.get("date", ""))
                raise refusal(answer.status, text, retry_after=answer.headers.get("retry-after"))
        except (aiohttp.ClientError, TimeoutError, OSError) as e:
            raise KubeUnavailable(_sentence(self._base, e)) from e

    @asynccontextmanager
    async def lines(self, path: str, *, query: Mapping[str, str]) -> AsyncIterator[AsyncIterator[bytes]]:
        """Open a watch; its lines come without a deadline of ours. One that is too long raises ``KubeGone``."""
        limit = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT)
        try:
            answer = await self._session.get(
                self._base + path,
                params=query,
                headers=await self._headers(JSON),
                timeout=limit,
                read_bufsize=LONGEST_LINE // 2,  # a line may be twice what is read ahead
                **self._options,
            )
            refused = await answer.read() if answer.status >= 300 else b""
        except (aiohttp.ClientError, OSError) as e:
            raise KubeUnavailable(_sentence(self._base, e)) from e
        async with answer:
            if answer.status >= 300:
                raise refusal(answer.status, refused, retry_after=answer.headers.get("retry-after"))
            yield self._read_lines(answer.content)

    async def _read_lines(self, content: aiohttp.StreamReader) -> AsyncIterator[bytes]:
        try:
            async for line in content:
                yield line
        except (ValueError, LineTooLong) as e:
            raise KubeGone(f"a line of the watch has more than {LONGEST_LINE} bytes: the same would come again") from e
        except (aiohttp.ClientError, OSError) as e:
            raise KubeUnavailable(_sentence(self._base, e)) from e

    async def _headers(self, content: str) -> dict[str, str]:
        headers = {"content-type": content, "accept": JSON}
        for setting in (await self._settings.auth_settings()).values():
            headers[setting["key"]] = setting["value"]
        return headers


def _sentence(base: str, error: BaseException) -> str:
    what = "did not answer in time" if isinstance(error, TimeoutError) else f"cannot be reached ({error})"
    return f"the API server at {base} {what}"


@asynccontextmanager
async def connect(kubeconfig: str | None) -> AsyncIterator[Transport]:
    """Open a transport as kubectl would, or as the pod that we are; raise ``SettingsError`` where that leads nowhere.

    ``kubeconfig`` may name several files, as KUBECONFIG may; without it ~/.kube/config counts where it is there.
    """
    settings = Configuration()
    loader = await _load(kubeconfig, settings)
    settings.connection_pool_maxsize = 0  # watches hold connections for minutes: no limit
    try:
        client = RestClient(settings)
    except OSError as e:
        raise SettingsError("KUBECONFIG", f"a certificate that it names cannot be used ({e})") from e
    renewing = asyncio.create_task(_renew(loader, settings), name="kube credentials")
    try:
        if _is_loopback(settings.host):
            # the library asks the environment for a proxy even on the way to our own machine; kubectl does not
            async with aiohttp.ClientSession(connector=client.pool_manager.connector, connector_owner=False) as session:
                yield Transport(settings, session)
        else:
            yield Transport(settings, client.pool_manager)
    finally:
        renewing.cancel()
        await client.close()


def _is_loopback(url: str | None) -> bool:
    host = urlsplit(url or "").hostname or ""
    return host in ("localhost", "::1") or host.startswith("127.")


async def _load(kubeconfig: str | None, settings: Any) -> Any:
    """Fill the settings; return what renews their credentials, or None."""
    found = _files(kubeconfig)
    if kubeconfig and not found:
        raise SettingsError("KUBECONFIG", f'"{kubeconfig}" is no file; name a readable kubeconfig file')
    try:
        if found:
            return await kube_config.load_kube_config(config_file=found, client_configuration=settings)
        await asyncio.to_thread(kube_config.load_incluster_config, client_configuration=settings)
    except Exception as e:  # the library's readers raise whatever comes of a broken file
        where = f'"{kubeconfig}" cannot be used' if kubeconfig else "is not set and this is no pod"
        why = " ".join(str(e).split())  # YAML's own errors have several lines
        raise SettingsError("KUBECONFIG", f"{where} ({why}); name a readable kubeconfig file") from e
    return None


def _files(kubeconfig: str | None) -> str:
    """Return the files that are there, as kubectl does: of those named, or the user's own."""
    named = kubeconfig.split(os.pathsep) if kubeconfig else [str(Path.home() / ".kube" / "config")]
    return os.pathsep.join(name for name in named if Path(name).is_file())


async def _renew(loader: Any, settings: Any) -> None:
    """Ask the kubeconfig's credential plugin again before its token expires; in a pod the library reads it again."""
    while loader is not None:
        try:
            await kube_config.refresh_token(loader, settings, interval=RENEW_EVERY)
        except TypeError:
            return  # a kubeconfig without a user
        except Exception as e:
            log.warning("the credentials of the kubeconfig cannot be renewed: %s", e)
        else:
            return  # nothing there that expires
