"""One API server of several: its watch cache, and the watches open on it.

One rule: the cache follows the store in order and behind time; a watch tells every change in order, or ends, or is
silent for ever.
"""

import asyncio
from collections.abc import AsyncIterator

from tests.simulation.store import Change, Key, Store
from tests.simulation.virtual_time import VirtualLoop

WATCHED = {"/api/v1/nodes": "nodes", "/api/v1/pods": "pods", "/api/v1/resourcequotas": "resourcequotas"}
STEP = 1e-6


class Server:
    """One API server: its watch cache, and the watches open on it."""

    def __init__(self, loop: VirtualLoop, store: Store, name: str) -> None:
        self._loop = loop
        self._store = store
        self.name = name
        self.lag = 0.0
        """Seconds by which its cache is behind now, beside the ordinary few milliseconds."""
        self.position = dict.fromkeys(WATCHED.values(), 0)
        self.cache: dict[str, dict[Key, bytes]] = {kind: {} for kind in WATCHED.values()}
        self.seen = dict.fromkeys(WATCHED.values(), store.revision)
        self._due = dict.fromkeys(WATCHED.values(), 0.0)
        self.watches: list[Watch] = []

    def hear(self, change: Change, jitter: float) -> None:
        """Learn of a change, later and in order."""
        loop = self._loop
        self._due[change.kind] = max(self._due[change.kind] + STEP, loop.now + jitter + self.lag)
        loop.after(self._due[change.kind] - loop.now, self._take, change)

    def _take(self, change: Change) -> None:
        self.position[change.kind] += 1
        self.seen[change.kind] = change.revision
        if change.new is None:
            self.cache[change.kind].pop(change.key, None)
        else:
            self.cache[change.kind][change.key] = change.body
        for watch in self.watches:
            if watch.kind == change.kind:
                watch.wake()

    def revision(self, kind: str) -> int:
        """Return how far the cache is: everything, where nothing is on its way."""
        is_even = self.position[kind] == len(self._store.log[kind])
        return self._store.revision if is_even and not self.lag else self.seen[kind]


class Watch:
    """One open watch."""

    def __init__(self, server: Server, kind: str, position: int) -> None:
        self.server = server
        self.kind = kind
        self.position = position
        self.is_silent = False
        self._last: bytes | None = None
        self._bookmark = 0
        self._is_over = False
        self._waiting: asyncio.Future[None] | None = None

    def wake(self) -> None:
        """Let the reader look again."""
        if self._waiting is not None and not self._waiting.done() and not self.is_silent:
            self._waiting.set_result(None)

    def bookmark(self, revision: int) -> None:
        """Say how far the watch is."""
        self._bookmark = revision
        self.wake()

    def end(self, last: bytes | None = None) -> None:
        """End the watch, with a last line if there is one."""
        self.is_silent = False
        self._last, self._is_over = last, True
        self.wake()

    async def lines(self, log: list[Change]) -> AsyncIterator[bytes]:
        """Tell every change in order."""
        while True:
            while not self.is_silent and self.position < self.server.position[self.kind] and not self._is_over:
                self.position += 1
                yield log[self.position - 1].line
            if self._is_over:
                if self._last is not None:
                    yield self._last
                return
            if self._bookmark and not self.is_silent:
                revision, self._bookmark = self._bookmark, 0
                yield b'{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":"%d"}}}' % revision
                continue
            self._waiting = asyncio.get_running_loop().create_future()
            await self._waiting
