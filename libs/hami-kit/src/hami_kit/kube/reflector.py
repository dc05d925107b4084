"""A view of one resource that follows the API server: list, watch, and list again when the watch cannot go on.

One rule: a list replaces what was known, and a watch continues it; whoever listens is told both in order. Whatever goes
wrong on the way (a dropped connection, 410, an answer that never comes, a line that cannot be read, an etcd that was
restored and counts from an earlier version) is mended here, for ever.
"""

import asyncio
import logging
import random
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from typing import Generic, TypeVar

import msgspec

from hami_kit.errors import KubeError, KubeGone
from hami_kit.kube.client import Kube
from hami_kit.kube.wire import Identity, identity_of, is_before, read_line

T = TypeVar("T")

WATCH_SECONDS = (300, 600)
"""The server ends a watch after a while between these; the next one goes on where it ended."""

SILENCE = 120.0
"""Seconds without a line, bookmarks among them, after which a watch is taken for dead."""

SLICE = 50
"""Objects of a page decoded at a stretch, a quarter of a millisecond's work: then others have their turn."""

PATIENCE = 1.0
"""Seconds without a line after which a watch that should bring more is not waited for: a list tells as much."""

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 10.0
"""Seconds before the next attempt after one in vain; doubled each time, and jittered."""

log = logging.getLogger(__name__)


class ChangeKind(StrEnum):
    """What a watch says happened to an object."""

    ADDED = "ADDED"
    MODIFIED = "MODIFIED"
    DELETED = "DELETED"


class Reflector(Generic[T]):
    """Follows the objects at ``path``, such as ``/api/v1/pods``, decoded as ``type_``.

    ``on_list(objects, version, unread)`` hears each list, ``on_change(kind, object)`` each change after it; both are
    quick and never raise. ``on_malformed(name, sentence)`` hears of an object that cannot be read; nothing else is
    affected. ``unread`` names those of a list: they are there. One that is deleted is told with its metadata alone.
    What a list shows is told only where ``keep(object)``: the rest is forgotten as it is read.
    """

    def __init__(  # noqa: PLR0913 - named options
        self,
        kube: Kube,
        path: str,
        type_: type[T],
        *,
        on_list: Callable[[Sequence[T], str, Sequence[Identity]], None],
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
        self._failing_since: float | None = None
        self._interrupted = False
        self._begun = self._told = 0
        """The number of the list begun last, and of the one told last."""
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
            except KubeGone as e:
                log.info("%s is listed anew: %s", self._path, e)
                self._relist = True
            except KubeError as e:
                log.warning("the watch of %s is interrupted: %s", self._path, e)
                self._interrupted = True
                asked = e.retry_after or 0.0
                if self._failing_since is None:
                    self._failing_since = asyncio.get_running_loop().time()
            in_vain = 0 if self._heard else in_vain + 1
            if in_vain and not (self._relist and in_vain == 1):
                await asyncio.sleep(max(asked, pause(in_vain - 1)))

    @property
    def failing_for(self) -> float:
        """Return for how many seconds every list and watch has failed; 0 while the view can be believed."""
        since = self._failing_since
        return 0.0 if since is None else asyncio.get_running_loop().time() - since

    def relist(self) -> None:
        """Ask for a new list instead of going on with the watch."""
        self._relist = True
        if self._patience is not None and not self._patience.expired():
            self._patience.reschedule(asyncio.get_running_loop().time())

    async def wait_synced(self) -> None:
        """Return once a first list has been told."""
        await self._wait_for(lambda: self.synced)

    async def wait_passed(self, version: str) -> None:
        """Return once everything up to this resourceVersion has been told; a quiet watch is made to list again.

        A list begun after the question has passed it whatever its number: it is a quorum read.
        """
        begun = self._begun

        def has_passed() -> bool:
            return self._has_passed(version) or self._told > begun

        while not has_passed():
            self._moved.clear()
            try:
                async with asyncio.timeout(PATIENCE):
                    await self._moved.wait()
            except TimeoutError:
                self.relist()
                await self._wait_for(has_passed)

    def _has_passed(self, version: str) -> bool:
        ours = self.resource_version
        return self.synced and ours.isdigit() and version.isdigit() and int(ours) >= int(version)

    async def _wait_for(self, is_so: Callable[[], bool]) -> None:
        while not is_so():
            self._moved.clear()
            await self._moved.wait()

    async def _follow(self) -> None:
        """List where that is due, then follow one watch to its end; the deadline moves on with each sign of life."""
        try:
            async with asyncio.timeout(self._silence) as self._patience:
                if self._interrupted and not self._relist:
                    await self._check_history()
                if self._relist:
                    await self._list_anew()
                self._interrupted = False
                await self._watch()
        except TimeoutError:
            self._interrupted = True
            if not self._relist:
                # no warning: a resource that never changed gets no bookmarks either
                log.info("the watch of %s was silent for %g s: opening another", self._path, self._silence)
        finally:
            self._patience = None

    async def _check_history(self) -> None:
        """Have a list made where the API server's newest version is before ours: a watch from ours would be silent."""
        newest = await self._kube.newest_version(self._path)
        if is_before(newest, self.resource_version):
            raise KubeGone(f"version {self.resource_version} was seen, and {newest} is the newest: etcd was restored")

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
        unread: list[Identity] = []
        version = ""
        self._begun += 1
        async for page in self._kube.pages(self._path, self._query):
            self._be_patient()
            for start in range(0, len(page.items), SLICE):
                self._read_slice(page.items[start : start + SLICE], objects, unread)
                await asyncio.sleep(0)
            version = page.resource_version
        self._on_list(objects, version, unread)
        self._told, self.synced, self._failing_since = self._begun, True, None
        self._move_to(version)

    def _read_slice(self, items: Sequence[msgspec.Raw], objects: list[T], unread: list[Identity]) -> None:
        for raw in items:
            found = self._read(raw)
            if found is None:
                unread.append(identity_of(raw))
            elif self._keep(found):
                objects.append(found)

    async def _watch(self) -> None:
        query = {
            **self._query,
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": self.resource_version,
            "timeoutSeconds": str(random.randint(*WATCH_SECONDS)),  # noqa: S311 - spreads watches, keeps no secret
        }
        async with self._kube.transport.lines(self._path, query=query) as lines:
            self._failing_since = None
            async for line in lines:
                self._be_patient()
                self._take(line)
                self._heard = True

    def _be_patient(self) -> None:
        if self._patience is not None and not self._relist:
            self._patience.reschedule(asyncio.get_running_loop().time() + self._silence)

    def _take(self, line: bytes) -> None:
        """Tell one line; one that cannot be read, or comes from an earlier time, makes a list say where we are."""
        change = read_line(line)
        identity = identity_of(change.object)
        version = identity.resource_version
        if is_before(version, self.resource_version):
            raise KubeGone(f"the watch goes back from version {self.resource_version} to {version}")
        if change.type != "BOOKMARK":
            kind = ChangeKind(change.type)
            found = self._read(change.object)
            if found is None and kind is ChangeKind.DELETED:
                found = self._decoder.decode(msgspec.json.encode({"metadata": identity}))
            if found is not None:
                self._on_change(kind, found)
        if version:
            self._move_to(version)

    def _read(self, raw: msgspec.Raw) -> T | None:
        try:
            return self._decoder.decode(raw)
        except msgspec.DecodeError as e:
            name = str(identity_of(raw))
            self._on_malformed(name, f"{name} at {self._path} cannot be read: {e}")
            return None

    def _move_to(self, version: str) -> None:
        self.resource_version = version
        self._moved.set()


def pause(failures: int) -> float:
    """Return the seconds before the next attempt: doubled with each failure, jittered, at most ``LONGEST_PAUSE``."""
    longest: float = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(failures, 10))
    return longest * random.uniform(0.5, 1.0)  # noqa: S311 - spreads attempts, keeps no secret
