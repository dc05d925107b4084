"""The few calls that a kubelet and a device plugin make to the API server, as plain JSON over HTTP."""

import asyncio
import json
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Any, Self

import aiohttp

Json = dict[str, Any]
MERGE = "application/merge-patch+json"
RETRY_PAUSE = 0.2
"""Seconds between two attempts to watch; a kubelet never gives up."""


class ApiError(Exception):
    """The API server said no; ``status`` is the HTTP status."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class ApiClient:
    """Calls to one API server, given as ``http://host:port``."""

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None, sock_connect=5))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.session.close()

    @property
    def session(self) -> aiohttp.ClientSession:
        """Return the open session."""
        if self._session is None:
            raise RuntimeError("the client is used outside its block")
        return self._session

    async def call(
        self, method: str, path: str, body: Json | None = None, *, content: str = "application/json"
    ) -> Json:
        """Make one call; raise ``ApiError`` for an answer that is no success."""
        headers = {"content-type": content}
        data = None if body is None else json.dumps(body)
        async with self.session.request(method, self._url + path, data=data, headers=headers) as answer:
            text = await answer.text()
            if answer.status >= 400:
                raise ApiError(answer.status, text)
            return json.loads(text) if text else {}

    async def get(self, path: str) -> Json:
        """Read an object."""
        return await self.call("GET", path)

    async def merge(self, path: str, body: Json) -> Json:
        """Apply a merge patch."""
        return await self.call("PATCH", path, body, content=MERGE)

    async def pods_of(self, node: str) -> AsyncIterator[tuple[str, Json]]:
        """Yield each pod of the node as ADDED, ``("LISTED", {uids})`` after each list, and each change."""
        query = f"fieldSelector=spec.nodeName%3D{node}"
        while True:
            try:
                listed = await self.get(f"/api/v1/pods?{query}")
                for pod in listed["items"]:
                    yield "ADDED", pod
                yield "LISTED", {"uids": [p["metadata"]["uid"] for p in listed["items"]]}
                async for change in self._watch(f"/api/v1/pods?{query}", listed["metadata"]["resourceVersion"]):
                    yield change
            except (aiohttp.ClientError, ApiError, TimeoutError, ConnectionError):
                await asyncio.sleep(RETRY_PAUSE)

    async def _watch(self, path: str, version: str) -> AsyncIterator[tuple[str, Json]]:
        address = f"{self._url}{path}&watch=true&resourceVersion={version}"
        async with self.session.get(address) as answer:
            async for line in answer.content:
                change = json.loads(line)
                if change["type"] == "ERROR":
                    return
                if change["type"] != "BOOKMARK":
                    yield change["type"], change["object"]
