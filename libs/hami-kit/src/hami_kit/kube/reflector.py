"""A view of one resource that follows the API server: list, watch, and list again when the watch cannot go on.

One rule: a list replaces what was known, and a watch continues it; whoever listens is told both in order. Whatever goes
wrong on the way (a dropped connection, 410, an answer that never comes) is mended here, for ever.
"""

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from enum import StrEnum
from typing import Any, Generic, TypeVar

import msgspec
from hami_model.objects import Meta
from msgspec import Struct, field

from hami_kit.errors import KubeError, KubeGone
from hami_kit.kube.client import Kube
from hami_kit.kube.wire import WatchLine

T = TypeVar("T")

WATCH_SECONDS = (300, 600)
"""The server ends a watch after a while between these; the next one goes on where it ended."""

SILENCE = 120.0
"""Seconds without a line, bookmarks among them, after which a watch is taken for dead."""

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 10.0
"""Seconds before the next attempt; doubled each time, and jittered."""

log = logging.getLogger(__name__)


class ChangeKind(StrEnum):
    """What a watch says happened to an object."""

    ADDED = "ADDED"
    MODIFIED = "MODIFIED"
    DELETED = "DELETED"


class _MetaOnly(Struct, frozen=True):
    metadata: Meta = field(default_factory=Meta)


_LINE = msgspec.json.Decoder(WatchLine)
_META = msgspec.json.Decoder(_MetaOnly)


class Reflector(Generic[T]):
    """Follows the objects at ``path``, such as ``/api/v1/pods``, decoded as ``type_``.

    ``on_list(objects, version)`` hears each list, ``on_change(kind, object)`` each change after it; both are quick and
    never raise. ``on_malformed(name, sentence)`` hears of an object that cannot be read; nothing else is affected.
    """

    def __init__(  # noqa: PLR0913 - named options
        self,
        kube: Kube,
        path: str,
        type_: type[T],
        *,
        on_list: Callable[[Sequence[T], str], None],
        on_change: Callable[[ChangeKind, T], None],
        query: Mapping[str, str] | None = None,
        on_malformed: Callable[[str, str], None] = lambda _name, _error: None,
        silence: float = SILENCE,
    ) -> None:
        self._kube = kube
        self._path = path
        self._decoder = msgspec.json.Decoder(type_)
        self._query = dict(query or {})
        self._on_list = on_list
        self._on_change = on_change
        self._on_malformed = on_malformed
        self._silence = silence
        self._moved = asyncio.Condition()
        self._relist = asyncio.Event()
        self.resource_version = ""
        self.synced = False
        """Whether a first list has been told."""

    async def run(self) -> None:
        """Follow until cancelled."""
        failures = 0
        while True:
            try:
                if not self.resource_version or self._relist.is_set():
                    self._relist.clear()
                    await self._list()
                    failures = 0
                await self._watch()
                failures = 0
            except KubeGone:
                self.resource_version = ""
            except KubeError as e:
                log.warning("the watch of %s is interrupted: %s", self._path, e)
                await asyncio.sleep(pause(failures))
                failures += 1

    def relist(self) -> None:
        """Ask for a new list instead of going on with the watch."""
        self._relist.set()

    async def wait_synced(self) -> None:
        """Return once a first list has been told."""
        async with self._moved:
            await self._moved.wait_for(lambda: self.synced)

    async def wait_passed(self, version: str) -> None:
        """Return once everything up to this resourceVersion has been told; a quiet watch is made to list again."""
        wanted = int(version)
        if self._has_passed(wanted):
            return
        self.relist()
        async with self._moved:
            await self._moved.wait_for(lambda: self._has_passed(wanted))

    def _has_passed(self, wanted: int) -> bool:
        return self.synced and self.resource_version.isdigit() and int(self.resource_version) >= wanted

    async def _list(self) -> None:
        listed = await self._kube.list_raw(self._path, self._query)
        objects = [found for raw in listed.items if (found := self._read(raw)) is not None]
        self._on_list(objects, listed.resource_version)
        self.synced = True
        await self._move_to(listed.resource_version)

    async def _watch(self) -> None:
        """Follow one watch to its end; return when another one, or a list, is due."""
        query = {
            **self._query,
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": self.resource_version,
            "timeoutSeconds": str(random.randint(*WATCH_SECONDS)),  # noqa: S311 - spreads watches, keeps no secret
        }
        async with self._kube.transport.lines(self._path, query=query) as lines:
            asked = asyncio.ensure_future(self._relist.wait())
            try:
                while True:
                    line = await self._next_line(lines, asked)
                    if line is None:
                        return
                    await self._take(line)
            finally:
                asked.cancel()

    async def _next_line(self, lines: AsyncIterator[bytes], asked: asyncio.Future[Any]) -> bytes | None:
        reading = asyncio.ensure_future(_next(lines))
        both: set[asyncio.Future[Any]] = {reading, asked}
        try:
            done, _ = await asyncio.wait(both, timeout=self._silence, return_when=asyncio.FIRST_COMPLETED)
            if reading in done:
                return reading.result() or None
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
        if not done:
            log.warning("the watch of %s was silent for %g s: opening another", self._path, self._silence)
        return None

    async def _take(self, line: bytes) -> None:
        change = _LINE.decode(line)
        if change.type == "ERROR":
            raise KubeGone("the watch cannot go on from here", status=410)
        if change.type != "BOOKMARK":
            found = self._read(change.object)
            if found is not None:
                self._on_change(ChangeKind(change.type), found)
        await self._move_to(_META.decode(change.object).metadata.resource_version)

    def _read(self, raw: msgspec.Raw) -> T | None:
        try:
            return self._decoder.decode(raw)
        except msgspec.DecodeError as e:
            self._on_malformed(_name(raw), f"{_name(raw)} at {self._path} cannot be read: {e}")
            return None

    async def _move_to(self, version: str) -> None:
        self.resource_version = version
        async with self._moved:
            self._moved.notify_all()


async def _next(lines: AsyncIterator[bytes]) -> bytes | None:
    return await anext(lines, None)


def _name(raw: msgspec.Raw) -> str:
    try:
        meta = _META.decode(raw).metadata
    except msgspec.DecodeError:
        return "an object"
    return f"{meta.namespace}/{meta.name}" if meta.namespace else meta.name


def pause(failures: int) -> float:
    """Return the seconds before the next attempt: doubled with each failure, jittered, at most ``LONGEST_PAUSE``."""
    longest: float = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(failures, 10))
    return longest * random.uniform(0.5, 1.0)  # noqa: S311 - spreads attempts, keeps no secret
