"""Several API servers over one store: the way there and back, watch caches that lag, and watches that break.

One rule: a quorum read and every write meet the store itself; a watch, and a list that allows any revision, meet the
cache of one server, which follows the store in order and behind time.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from random import Random
from typing import Any

import msgspec
from hami_kit.errors import KubeUnavailable
from hami_kit.kube.transport import CALL_TIMEOUT
from hami_kit.kube.wire import JSON, refusal

from tests.simulation.servers import WATCHED, Server, Watch
from tests.simulation.store import Change, Key, Refusal, Store
from tests.simulation.virtual_time import VirtualLoop
from tests.simulation.weather import Weather


class Api:
    """The API servers, and what happens on the way."""

    def __init__(self, loop: VirtualLoop, rng: Random, weather: Weather) -> None:
        self.loop = loop
        self.rng = rng
        self.weather = weather
        self.store = Store()
        self.servers = [Server(loop, self.store, name) for name in ("api-1", "api-2")]
        self.pages = rng.choice((2, 5, 500))
        """Objects on one page of a list at most, whatever limit is asked for."""
        self.is_down = False
        self.epoch = 0
        """Counts restarts: what was on its way to an earlier process of the server is lost."""
        self._tokens: dict[str, tuple[list[bytes], int]] = {}
        self.tokens_made = 0
        self.sent: list[Callable[[str, str, str, Any], Any]] = []
        """Who looks at each request as it leaves its sender: (sender, method, path, body)."""
        self.landed: list[Callable[[Any, str, str, Any], None]] = []

    def _spread(self, change: Change) -> None:
        if change.kind in WATCHED.values():
            for server in self.servers:
                server.hear(change, self.rng.uniform(0.001, 0.03))

    def settle(self) -> None:
        """Fill every cache with what is there: the cluster is older than the story."""
        for server in self.servers:
            for kind in WATCHED.values():
                server.position[kind] = len(self.store.log[kind])
                server.cache[kind] = dict(self.store.bodies[kind])
                server.seen[kind] = self.store.revision
        self.store.on_change.append(self._spread)

    @property
    def watches(self) -> list[Watch]:
        """Return all open watches."""
        return [watch for server in self.servers for watch in server.watches]

    def bookmarks(self) -> None:
        """Tell every watch how far its server is."""
        for watch in self.watches:
            if watch.position == watch.server.position[watch.kind]:
                watch.bookmark(watch.server.revision(watch.kind))

    def restart(self, seconds: float) -> None:
        """Stop all servers for a while: every connection breaks, and continue tokens are forgotten."""
        self.is_down = True
        self.epoch += 1
        self._tokens.clear()
        for watch in self.watches:
            watch.end()
        self.loop.after(seconds, self._up)

    def _up(self) -> None:
        self.is_down = False

    def expire(self) -> None:
        """Forget the past: watches that start earlier get 410, and so do those open now."""
        self.store.compacted = self.store.revision
        self._tokens.clear()
        gone = Refusal(410, "Expired", f"too old resource version: ({self.store.revision})")
        for watch in self.watches:
            watch.end(b'{"type":"ERROR","object":%s}' % gone.body)


class SimTransport:
    """The ``Transport`` of one client."""

    def __init__(self, api: Api, name: str, guard: Callable[[], None] = lambda: None) -> None:
        self._api = api
        self._guard = guard
        self.name = name

    def guarded(self, guard: Callable[[], None]) -> "SimTransport":
        """Return the same way to the same server, with a guard before its writes."""
        return SimTransport(self._api, self.name, guard)

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
        """Make one call, whatever becomes of it on the way."""
        if method != "GET":
            self._guard()
        api, loop = self._api, self._api.loop
        answer: asyncio.Future[bytes] = loop.create_future()
        fate = api.weather.fate(method, path)
        ticket = None
        for look in api.sent:
            ticket = look(self.name, method, path, body) or ticket
        if api.is_down or (not fate.answered and fate.breaks):
            loop.after(0.001 if api.is_down else api.rng.uniform(0.001, 0.05), _break, answer)
        if fate.arrives and not api.is_down:
            request = (method, path, dict(query or {}), msgspec.json.decode(msgspec.json.encode(body)), ticket)
            loop.after(
                fate.way, self._arrive, request, fate.refused, fate.back if fate.answered else -1.0, answer, api.epoch
            )
        try:
            async with asyncio.timeout(timeout):
                return await answer
        except TimeoutError:
            raise KubeUnavailable("the API server did not answer in time") from None

    def _arrive(
        self, request: tuple[str, str, dict[str, str], Any, Any], refused: int, back: float,
        answer: "asyncio.Future[bytes]", epoch: int,
    ) -> None:  # fmt: skip
        api = self._api
        if epoch != api.epoch and request[0] == "GET":
            _break(answer)
            return
        try:
            result: bytes | Refusal = self._serve(*request) if not refused else _trouble(refused)
        except Refusal as error:
            result = error
        if back >= 0:
            api.loop.after(back, _answer, answer, result)

    def _serve(self, method: str, path: str, query: dict[str, str], body: Any, ticket: Any) -> bytes:
        store, steps = self._api.store, path.split("/")
        if path in WATCHED:
            return self._list(WATCHED[path], query)
        if steps[-1] == "events":
            return b"{}"
        if steps[-1] == "leases":
            return msgspec.json.encode(store.create("leases", body, sender=self.name))
        if steps[-1] == "binding":
            for look in self._api.landed:
                look(ticket, self.name, path, body)
            store.bind((steps[4], steps[6]), body["metadata"], body["target"]["name"], sender=self.name)
            return b"{}"
        kind, key = _named(steps)
        if method == "GET":
            store.get(kind, key)
            return store.bodies[kind][key]
        if method == "PUT":
            store.replace(kind, key, body, sender=self.name)
        else:
            store.patch_meta(kind, key, body["metadata"], sender=self.name)
        return store.bodies[kind][key]

    def _list(self, kind: str, query: dict[str, str]) -> bytes:
        api = self._api
        if token := query.get("continue"):
            if token not in api._tokens:
                raise Refusal(410, "Expired", "The provided continue parameter is too old")
            rest, revision = api._tokens.pop(token)
        elif query.get("resourceVersion") == "0":
            server = api.rng.choice(api.servers)
            return _page(_selected(list(server.cache[kind].values()), query), server.seen[kind], "")
        else:
            rest, revision = _selected(list(api.store.bodies[kind].values()), query), api.store.revision
        page, rest = rest[: api.pages], rest[api.pages :]
        token = ""
        if rest:
            api.tokens_made += 1
            token = f"{revision}-{api.tokens_made}"
            api._tokens[token] = (rest, revision)
        return _page(page, revision, token)

    @asynccontextmanager
    async def lines(self, path: str, *, query: Mapping[str, str]) -> AsyncIterator[AsyncIterator[bytes]]:
        """Open a watch on one of the servers."""
        api, kind = self._api, WATCHED[path]
        await asyncio.sleep(api.rng.uniform(0.002, 0.03))
        if api.is_down:
            raise KubeUnavailable("the API server cannot be reached")
        server = api.rng.choice(api.servers)
        try:
            position = api.store.changes_since(kind, int(query["resourceVersion"]))
        except Refusal as error:
            raise refusal(error.status, error.body) from None
        watch = Watch(server, kind, position)
        server.watches.append(watch)
        try:
            yield watch.lines(api.store.log[kind])
        finally:
            if watch in server.watches:
                server.watches.remove(watch)


def _named(steps: list[str]) -> tuple[str, Key]:
    """Return the kind and the key of the object that a path names."""
    if "namespaces" not in steps:
        return "nodes", ("", steps[-1])
    at = steps.index("namespaces")
    return steps[at + 2], (steps[at + 1], steps[-1])


def _selected(bodies: list[bytes], query: dict[str, str]) -> list[bytes]:
    if query.get("fieldSelector") != "spec.nodeName=":
        return bodies
    return [body for body in bodies if not msgspec.json.decode(body)["spec"].get("nodeName")]


def _page(bodies: list[bytes], revision: int, token: str) -> bytes:
    head = b'{"metadata":{"resourceVersion":"%d","continue":"%s"},"items":[' % (revision, token.encode())
    return head + b",".join(bodies) + b"]}"


def _trouble(status: int) -> Refusal:
    return Refusal(status, "Trouble", f"the server answers {status}")


def _answer(answer: "asyncio.Future[bytes]", result: bytes | Refusal) -> None:
    if answer.done():
        return
    if isinstance(result, Refusal):
        answer.set_exception(refusal(result.status, result.body))
    else:
        answer.set_result(result)


def _break(answer: "asyncio.Future[bytes]") -> None:
    if not answer.done():
        answer.set_exception(KubeUnavailable("the connection to the API server broke"))
