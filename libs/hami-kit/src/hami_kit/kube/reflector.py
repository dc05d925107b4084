"""A view of one resource that follows the API server: list, watch, and list again when the watch cannot go on.

One rule: a list replaces what was known, and a watch continues it; whoever listens is told both in order. Whatever goes
wrong on the way (a dropped connection, 410, an answer that never comes) is mended here, for ever.
"""

import asyncio
import logging
import random
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from typing import Generic, TypeVar

import msgspec
from hami_model.objects import Meta
from msgspec import Struct, field

from hami_kit.errors import KubeError, KubeGone, KubeUnavailable
from hami_kit.kube.client import Kube
from hami_kit.kube.wire import WatchLine, refusal_of

T = TypeVar("T")

WATCH_SECONDS = (300, 600)
"""The server ends a watch after a while between these; the next one goes on where it ended."""

SILENCE = 120.0
"""Seconds without a line, bookmarks among them, after which a watch is taken for dead."""

SLICE = 50
"""Objects of a page decoded at a stretch, a quarter of a millisecond's work: then others have their turn."""

PATIENCE = 1.0
"""Seconds in which any change of the resource shows that a watch has passed a version; without one it lists again."""

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 10.0
"""Seconds before the next attempt after one in vain; doubled each time, and jittered."""

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
    What a list shows is told only where ``keep(object)``: the rest is forgotten as it is read.
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
        keep: Callable[[T], bool] = lambda _object: True,
        on_malformed: Callable[[str, str], None] = lambda _name, _error: None,
        silence: float = SILENCE,
    ) -> None:
        self._kube = kube
        self._path = path
        self._decoder = msgspec.json.Decoder(type_)
        self._query = dict(query or {})
        self._on_list = on_list
        self._on_change = on_change
        self._keep = keep
        self._on_malformed = on_malformed
        self._silence = silence
        self._moved = asyncio.Event()
        self._patience: asyncio.Timeout | None = None
        self._relist = True
        self._heard = False
        self.resource_version = ""
        self.synced = False
        """Whether a first list has been told."""

    async def run(self) -> None:
        """Follow until cancelled."""
        in_vain = 0
        while True:
            self._heard, asked = False, 0.0
            try:
                await self._follow()
            except KubeGone:
                self._relist = True
            except KubeError as e:
                log.warning("the watch of %s is interrupted: %s", self._path, e)
                asked = e.retry_after or 0.0
            in_vain = 0 if self._heard else in_vain + 1
            if in_vain and not (self._relist and in_vain == 1):
                await asyncio.sleep(max(asked, pause(in_vain - 1)))

    def relist(self) -> None:
        """Ask for a new list instead of going on with the watch."""
        self._relist = True
        if self._patience is not None and not self._patience.expired():
            self._patience.reschedule(asyncio.get_running_loop().time())

    async def wait_synced(self) -> None:
        """Return once a first list has been told."""
        await self._wait_for(lambda: self.synced)

    async def wait_passed(self, version: str) -> None:
        """Return once everything up to this resourceVersion has been told; a quiet watch is made to list again."""
        wanted = int(version)
        try:
            async with asyncio.timeout(PATIENCE):
                await self._wait_for(lambda: self._has_passed(wanted))
        except TimeoutError:
            self.relist()
            await self._wait_for(lambda: self._has_passed(wanted))

    def _has_passed(self, wanted: int) -> bool:
        return self.synced and self.resource_version.isdigit() and int(self.resource_version) >= wanted

    async def _wait_for(self, is_so: Callable[[], bool]) -> None:
        while not is_so():
            self._moved.clear()
            await self._moved.wait()

    async def _follow(self) -> None:
        """List where that is due, then follow one watch to its end; the deadline moves on with each sign of life."""
        try:
            async with asyncio.timeout(self._silence) as self._patience:
                if self._relist:
                    await self._list_anew()
                await self._watch()
        except TimeoutError:
            if not self._relist:
                # no warning: a resource that never changed gets no bookmarks either
                log.info("the watch of %s was silent for %g s: opening another", self._path, self._silence)
        finally:
            self._patience = None

    async def _list_anew(self) -> None:
        """List; one that fails, or is asked for again meanwhile, is still due."""
        self._relist, done = False, False
        try:
            await self._list()
            done = True
        finally:
            self._relist = self._relist or not done

    async def _list(self) -> None:
        """Tell a whole list; each page is decoded as it comes, in slices, so that a big one holds up nobody."""
        objects: list[T] = []
        version = ""
        async for page in self._kube.pages(self._path, self._query):
            self._be_patient()
            for start in range(0, len(page.items), SLICE):
                found = map(self._read, page.items[start : start + SLICE])
                objects += [each for each in found if each is not None and self._keep(each)]
                await asyncio.sleep(0)
            version = page.resource_version
        self._on_list(objects, version)
        self.synced = True
        self._move_to(version)

    async def _watch(self) -> None:
        query = {
            **self._query,
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": self.resource_version,
            "timeoutSeconds": str(random.randint(*WATCH_SECONDS)),  # noqa: S311 - spreads watches, keeps no secret
        }
        async with self._kube.transport.lines(self._path, query=query) as lines:
            async for line in lines:
                self._be_patient()
                self._take(line)
                self._heard = True

    def _be_patient(self) -> None:
        if self._patience is not None and not self._relist:
            self._patience.reschedule(asyncio.get_running_loop().time() + self._silence)

    def _take(self, line: bytes) -> None:
        try:
            change = _LINE.decode(line)
        except msgspec.DecodeError as e:
            raise KubeUnavailable(f"a line of the watch cannot be read: {e}") from e
        if change.type == "ERROR":
            raise refusal_of(change.object)
        if change.type != "BOOKMARK":
            found = self._read(change.object)
            if found is not None:
                self._on_change(ChangeKind(change.type), found)
        if version := _meta(change.object).resource_version:
            self._move_to(version)

    def _read(self, raw: msgspec.Raw) -> T | None:
        try:
            return self._decoder.decode(raw)
        except msgspec.DecodeError as e:
            self._on_malformed(_name(raw), f"{_name(raw)} at {self._path} cannot be read: {e}")
            return None

    def _move_to(self, version: str) -> None:
        self.resource_version = version
        self._moved.set()


def _meta(raw: msgspec.Raw) -> Meta:
    try:
        return _META.decode(raw).metadata
    except msgspec.DecodeError:
        return Meta()


def _name(raw: msgspec.Raw) -> str:
    meta = _meta(raw)
    return f"{meta.namespace}/{meta.name}" if meta.namespace else meta.name or "an object"


def pause(failures: int) -> float:
    """Return the seconds before the next attempt: doubled with each failure, jittered, at most ``LONGEST_PAUSE``."""
    longest: float = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(failures, 10))
    return longest * random.uniform(0.5, 1.0)  # noqa: S311 - spreads attempts, keeps no secret
