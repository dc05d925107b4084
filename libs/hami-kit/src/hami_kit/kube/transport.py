"""Bytes to and from the API server: configuration, authentication and TLS are kubernetes_asyncio's, bodies stay raw.

One rule: every failure leaves here as a ``KubeError``.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import msgspec
from kubernetes_asyncio import config as kube_config
from kubernetes_asyncio.client import ApiClient, Configuration

from hami_kit.errors import KubeUnavailable, SettingsError
from hami_kit.kube.wire import JSON, refusal

CALL_TIMEOUT = 15.0
"""Seconds for one call, where the caller gives none."""

CONNECT_TIMEOUT = 5.0


class Transport:
    """Calls to one API server."""

    def __init__(self, client: ApiClient) -> None:
        self._client = client
        self._base = (client.configuration.host or "").rstrip("/")
        self._session: aiohttp.ClientSession = client.rest_client.pool_manager

    async def call(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Any = None,
        content: str = JSON,
        timeout: float = CALL_TIMEOUT,
    ) -> bytes:
        """Make one call and return the body; raise the ``KubeError`` that a refusal or a failure is."""
        data = None if body is None else msgspec.json.encode(body)
        limit = aiohttp.ClientTimeout(total=timeout, sock_connect=CONNECT_TIMEOUT)
        try:
            async with self._session.request(
                method, self._base + path, params=query, data=data, headers=await self._headers(content), timeout=limit
            ) as answer:
                text = await answer.read()
                if answer.status < 300:
                    return text
                raise refusal(answer.status, text, retry_after=answer.headers.get("retry-after"))
        except (aiohttp.ClientError, TimeoutError, OSError) as e:
            raise KubeUnavailable(_sentence(self._base, e)) from e

    @asynccontextmanager
    async def lines(self, path: str, *, query: Mapping[str, str]) -> AsyncIterator[AsyncIterator[bytes]]:
        """Open a watch; its lines come without a deadline of ours."""
        limit = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT)
        headers = await self._headers(JSON)
        try:
            answer = await self._session.get(self._base + path, params=query, headers=headers, timeout=limit)
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
        except (aiohttp.ClientError, OSError, ValueError) as e:  # ValueError: a line longer than any object
            raise KubeUnavailable(_sentence(self._base, e)) from e

    async def _headers(self, content: str) -> dict[str, str]:
        headers = {"content-type": content, "accept": JSON}
        await self._client.update_params_for_auth(headers, [], ["BearerToken"])
        return headers


def _sentence(base: str, error: BaseException) -> str:
    what = "did not answer in time" if isinstance(error, TimeoutError) else f"cannot be reached ({error})"
    return f"the API server at {base} {what}"


@asynccontextmanager
async def connect(kubeconfig: str | None) -> AsyncIterator[Transport]:
    """Open a transport by kubeconfig, or in-cluster without one; raise ``SettingsError`` for one that leads nowhere."""
    settings = await _configuration(kubeconfig)
    settings.connection_pool_maxsize = 0  # watches hold connections for minutes: no limit
    async with ApiClient(configuration=settings) as client:
        yield Transport(client)


async def _configuration(kubeconfig: str | None) -> Configuration:
    settings = Configuration()
    try:
        if kubeconfig:
            await kube_config.load_kube_config(config_file=kubeconfig, client_configuration=settings)
        else:
            await asyncio.to_thread(kube_config.load_incluster_config, client_configuration=settings)
    except (kube_config.ConfigException, OSError, KeyError, TypeError, ValueError) as e:
        where = f'"{kubeconfig}" cannot be used' if kubeconfig else "is not set and this is no pod"
        raise SettingsError("KUBECONFIG", f"{where} ({e}); name a readable kubeconfig file") from e
    return settings
