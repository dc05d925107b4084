"""Every object of the stand-in cluster, one revision counter, and what changed since.

One rule: a stored object is never changed in place, and its bytes are made once, however many readers it has.
Nothing here knows HTTP, or what a pod is.
"""

from __future__ import annotations

import time
from bisect import bisect_right
from collections import deque
from collections.abc import Iterable

import msgspec

from hami_testkit.cluster.journal import Journal
from hami_testkit.cluster.objects import Key, Stored, freeze, thaw
from hami_testkit.cluster.resources import Resource
from hami_testkit.cluster.selectors import Selection
from hami_testkit.cluster.status import Json, expired
from hami_testkit.cluster.watch import Change, Hub


def first_revision() -> int:
    """Return where the counter starts: beyond any earlier run, so that its watchers get 410 and list again."""
    return time.time_ns() // 1_000_000


class Page(msgspec.Struct, frozen=True):
    """One page of a list; ``rest`` is what later pages of the same snapshot hold."""

    items: list[Stored]
    rest: list[Stored]
    revision: int


class Collection:
    """All objects of one resource, its recent changes and the watches open on it."""

    def __init__(self, resource: Resource, *, revision: int, history: int) -> None:
        self.resource = resource
        self.objects: dict[Key, Stored] = {}
        self.compacted = self.revision = revision
        self.hub = Hub()
        self._changes: deque[Change] = deque()
        self._history = history
        self._sorted: list[Key] | None = None

    def record(self, old: Stored | None, new: Stored | None, *, last: Stored) -> None:
        """Put one change in place and tell everybody who watches; ``last`` is the object as the change left it."""
        if new is None:
            del self.objects[last.key]
        else:
            self.objects[last.key] = new
        if old is None or new is None:
            self._sorted = None
        self.revision = last.revision
        change = Change(self.resource, old, last, gone=new is None)
        self._changes.append(change)
        if len(self._changes) > self._history:
            self.compacted = self._changes.popleft().revision
        self.hub.publish(change)

    def select(self, selection: Selection) -> list[Stored]:
        """Return what the selection holds, ordered by namespace and name."""
        if self._sorted is None:
            self._sorted = sorted(self.objects)
        return [stored for key in self._sorted if selection.holds((stored := self.objects[key]).object)]

    def changes_since(self, revision: int) -> Iterable[Change]:
        """Return the changes after ``revision``; too old a revision is refused with 410."""
        if revision < self.compacted:
            raise expired(f"too old resource version: {revision} ({self.compacted})")
        changes = list(self._changes)
        return changes[bisect_right(changes, revision, key=lambda change: change.revision) :]

    def compact(self, revision: int) -> None:
        """Forget the changes up to ``revision``: a watch that starts earlier gets 410."""
        self.compacted = max(self.compacted, revision)
        while self._changes and self._changes[0].revision <= revision:
            self._changes.popleft()


class Store:
    """All collections behind one revision counter."""

    def __init__(self, *, history: int = 100_000, journal: Journal | None = None) -> None:
        self.revision = self._first = first_revision()
        self._history = history
        self._journal = journal
        self._collections: dict[Resource, Collection] = {}
        self._pages: dict[str, Page] = {}
        self._tokens = 0
        if journal is not None:
            self._restore(journal)

    def _restore(self, journal: Journal) -> None:
        """Take up everything as it was; who watched an earlier revision gets 410, as from a restarted server."""
        known = list(journal.read())
        if known:
            self.revision = self._first = known[-1][1].revision
        for resource, line in known:
            stored = freeze(line.object, line.revision)
            objects = self.of(resource).objects
            objects.pop(stored.key, None)
            if not line.gone:
                objects[stored.key] = stored

    def of(self, resource: Resource) -> Collection:
        """Return the collection of a resource, empty where nothing was ever written."""
        if resource not in self._collections:
            self._collections[resource] = Collection(resource, revision=self._first, history=self._history)
        return self._collections[resource]

    @property
    def collections(self) -> tuple[Collection, ...]:
        """Return all collections that were ever touched."""
        return tuple(self._collections.values())

    def get(self, resource: Resource, key: Key) -> Stored | None:
        """Return one object, or None."""
        return self.of(resource).objects.get(key)

    def put(self, resource: Resource, obj: Json) -> Stored:
        """Write an object, new or changed, as the next revision."""
        self.revision += 1
        stored = freeze(obj, self.revision)
        self._note(resource, stored)
        collection = self.of(resource)
        collection.record(collection.objects.get(stored.key), stored, last=stored)
        return stored

    def remove(self, resource: Resource, key: Key) -> Stored:
        """Take an object away; its last state carries the revision of its end."""
        self.revision += 1
        collection = self.of(resource)
        old = collection.objects[key]
        last = freeze(thaw(old), self.revision)
        self._note(resource, last, gone=True)
        collection.record(old, None, last=last)
        return last

    def _note(self, resource: Resource, stored: Stored, *, gone: bool = False) -> None:
        if self._journal is not None:
            self._journal.write(resource, stored, gone=gone)

    def page(self, resource: Resource, selection: Selection, *, limit: int, token: str) -> tuple[Page, str]:
        """Return one page and the token of the next; all pages of one list show the same revision."""
        if token and token not in self._pages:
            raise expired("The provided continue parameter is too old to display a consistent list result.")
        before = self._pages[token] if token else Page([], self.of(resource).select(selection), self.revision)
        if not limit or limit >= len(before.rest):
            return Page(before.rest, [], before.revision), ""
        page = Page(before.rest[:limit], before.rest[limit:], before.revision)
        return page, self._keep(page)

    def _keep(self, page: Page) -> str:
        self._tokens += 1
        token = f"{page.revision}-{self._tokens}"
        self._pages[token] = page
        while len(self._pages) > 128:
            del self._pages[next(iter(self._pages))]
        return token

    def forget_pages(self) -> None:
        """Make every continue token too old."""
        self._pages.clear()
