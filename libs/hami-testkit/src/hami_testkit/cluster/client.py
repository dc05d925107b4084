"""A client of the API server, real or stand-in, for the scheduler and for tests.

One rule: objects stay plain JSON; a refusal is raised as the ``ApiError`` that the server sent. ``Informer`` keeps a
copy of one list up to date and tells each change once, in order.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import msgspec

from hami_testkit.cluster.status import ApiError, Json

JSON = "application/json"
MERGE = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
JSON_PATCH = "application/json-patch+json"
Query = Mapping[str, str | int]
RETRY_PAUSE = 0.2
"""Seconds before a list or watch that failed is tried again."""


class Answer(msgspec.Struct, frozen=True):
    """An accepted request: its code, headers and object."""

    code: int
    headers: Mapping[str, str]
    object: Json


class ApiClient:
    """Calls to one API server."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session
        self.written: dict[str, int] = {}
        """The newest resourceVersion that an answer to a write has shown, by kind."""

    @classmethod
    @asynccontextmanager
    async def connect(cls, url: str, *, tls: ssl.SSLContext | None = None, token: str = "") -> AsyncIterator[ApiClient]:
        """Open a client until the block is left."""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        connector = aiohttp.TCPConnector(limit=0, ssl=tls or True)
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=10)
        async with aiohttp.ClientSession(url, connector=connector, timeout=timeout, headers=headers) as session:
            yield cls(session)

    async def send(
        self, method: str, path: str, body: Any = None, *, content: str = JSON, accept: str = JSON,
        query: Query | None = None,
    ) -> Answer:  # fmt: skip
        """Make one call and return the whole answer; a refusal is raised."""
        data = None if body is None else msgspec.json.encode(body)
        headers = {"Content-Type": content, "Accept": accept}
        async with self._session.request(method, path, data=data, headers=headers, params=dict(query or {})) as answer:
            text = await answer.read()
            found = _decoded(text)
            if answer.status >= 400:
                reason, details = found.get("reason", ""), found.get("details")
                raise ApiError(answer.status, found.get("message", ""), reason=reason, details=details)
            if method != "GET":
                self._note(found)
            return Answer(answer.status, dict(answer.headers), found)

    def _note(self, stored: Json) -> None:
        version = (stored.get("metadata") or {}).get("resourceVersion", "")
        if version.isdigit():
            kind = stored.get("kind", "")
            self.written[kind] = max(self.written.get(kind, 0), int(version))

    async def get(self, path: str, query: Query | None = None) -> Json:
        """Read an object or a list."""
        return (await self.send("GET", path, query=query)).object

    async def create(self, path: str, body: Json, query: Query | None = None) -> Json:
        """Create an object under the path of its list."""
        return (await self.send("POST", path, body, query=query)).object

    async def replace(self, path: str, body: Json, query: Query | None = None) -> Json:
        """Replace an object."""
        return (await self.send("PUT", path, body, query=query)).object

    async def patch(self, path: str, body: Any, *, content: str = MERGE, query: Query | None = None) -> Json:
        """Patch an object."""
        return (await self.send("PATCH", path, body, content=content, query=query)).object

    async def delete(self, path: str, body: Json | None = None, query: Query | None = None) -> Json:
        """Delete an object."""
        return (await self.send("DELETE", path, body, query=query)).object

    async def watch(self, path: str, *, accept: str = JSON, **query: str | int) -> AsyncIterator[Json]:
        """Yield the events of a watch until the server ends it."""
        headers = {"Accept": accept}
        async with self._session.get(path, params={**query, "watch": "true"}, headers=headers) as answer:
            if answer.status >= 400:
                found = _decoded(await answer.read())
                raise ApiError(answer.status, found.get("message", ""), reason=found.get("reason", ""))
            rest = b""
            async for block in answer.content.iter_any():
                *lines, rest = (rest + block).split(b"\n")
                for line in lines:
                    yield msgspec.json.decode(line)


def _decoded(text: bytes) -> Json:
    try:
        found = msgspec.json.decode(text)
    except msgspec.DecodeError:
        return {"message": text.decode(errors="replace")}
    return found if isinstance(found, dict) else {"message": str(found)}


class Informer:
    """Everything that one path lists, kept up to date; ``told(old, new)`` hears each change, None for absence."""

    def __init__(self, client: ApiClient, path: str, told: Callable[[Json | None, Json | None], None]) -> None:
        self.objects: dict[str, Json] = {}
        self.synced = asyncio.Event()
        self._client = client
        self._path = path
        self._told = told

    async def run(self) -> None:
        """Follow the list until cancelled; whatever breaks is tried again from a fresh list."""
        while True:
            try:
                revision = await self._relist()
                self.synced.set()
                while revision:
                    revision = await self._follow(revision)
            except (aiohttp.ClientError, ApiError, TimeoutError, OSError):
                await asyncio.sleep(RETRY_PAUSE)

    async def _relist(self) -> str:
        query: dict[str, str | int] = {"limit": 500}
        found: dict[str, Json] = {}
        while True:
            page = await self._client.get(self._path, query=query)
            found |= {item["metadata"]["uid"]: item for item in page["items"]}
            query["continue"] = page["metadata"].get("continue", "")
            if not query["continue"]:
                break
        for uid in [uid for uid in self.objects if uid not in found]:
            self._put(uid, None)
        for uid, item in found.items():
            known = self.objects.get(uid)
            if known is None or known["metadata"]["resourceVersion"] != item["metadata"]["resourceVersion"]:
                self._put(uid, item)
        return str(page["metadata"]["resourceVersion"])

    async def _follow(self, revision: str) -> str:
        """Watch from a revision to the end of the watch; return where it ended, empty to list again."""
        seen = self._client.watch(self._path, resourceVersion=revision, allowWatchBookmarks="true", timeoutSeconds=300)
        async for event in seen:
            if event["type"] == "ERROR":
                return ""
            item = event["object"]
            revision = item["metadata"]["resourceVersion"]
            if event["type"] != "BOOKMARK":
                self._put(item["metadata"]["uid"], None if event["type"] == "DELETED" else item)
        return revision

    def _put(self, uid: str, item: Json | None) -> None:
        old = self.objects.pop(uid, None)
        if item is not None:
            self.objects[uid] = item
        if old is not None or item is not None:
            self._told(old, item)
