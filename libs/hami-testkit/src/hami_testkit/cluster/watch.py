"""Watches: one change is encoded once and handed to every open watch that selects it.

One rule: a watch tells every change after its revision in order, or ends; it never skips one silently (unless a
fault switch says so). Nothing here writes objects.
"""

from __future__ import annotations

import asyncio
from collections import deque

import msgspec

from hami_testkit.cluster.objects import Stored, freeze, thaw
from hami_testkit.cluster.resources import Resource
from hami_testkit.cluster.selectors import Selection
from hami_testkit.cluster.status import ApiError, Json, expired

MOST_WAITING = 50_000
"""Lines that one slow reader may leave waiting before its watch is ended."""


def line(kind: str, head: bytes, body: bytes) -> bytes:
    """Return one event of a watch, as sent."""
    return b'{"type":"%s","object":%s%s}\n' % (kind.encode(), head, body)


def error_line(refusal: ApiError) -> bytes:
    """Return the event that ends a watch with a refusal."""
    return line("ERROR", b"", msgspec.json.encode(refusal.status()))


def bookmark(resource: Resource, revision: int, *, initial_end: bool = False) -> bytes:
    """Return the event that only says how far the watch has come."""
    meta: Json = {"resourceVersion": str(revision), "creationTimestamp": None}
    if initial_end:
        meta["annotations"] = {"k8s.io/initial-events-end": "true"}
    return line("BOOKMARK", resource.head, msgspec.json.encode({"metadata": meta})[1:])


class Change:
    """One change of one object; its lines are encoded on first use and shared by all watches."""

    __slots__ = ("_lines", "_resource", "gone", "new", "old", "revision")

    def __init__(self, resource: Resource, old: Stored | None, new: Stored, *, gone: bool) -> None:
        self.old = old
        self.new = new
        self.gone = gone
        self.revision = new.revision
        self._resource = resource
        self._lines: dict[str, bytes] = {}

    def seen_by(self, selection: Selection) -> bytes | None:
        """Return the line for who watches ``selection``: an object that leaves it counts as deleted there."""
        was = self.old is not None and selection.holds(self.old.object)
        holds = not self.gone and selection.holds(self.new.object)
        if holds:
            return self._line("MODIFIED" if was else "ADDED")
        return self._line("DELETED") if was else None

    def _line(self, kind: str) -> bytes:
        if kind not in self._lines:
            shown = self.new
            if kind == "DELETED" and not self.gone and self.old:  # it left a selection: shown as it was inside
                shown = freeze(thaw(self.old), self.revision)
            self._lines[kind] = line(kind, self._resource.head, shown.body)
        return self._lines[kind]


class Watch:
    """One open watch: what it still has to say, and a way to wait for it."""

    def __init__(self, selection: Selection) -> None:
        self.selection = selection
        self.is_silent = False
        self.is_held = False
        self._lines: deque[bytes] = deque()
        self._ready = asyncio.Event()
        self._over = False

    @property
    def is_quiet(self) -> bool:
        """Say whether a fault switch keeps this watch from speaking, bookmarks included."""
        return self.is_held or self.is_silent

    def say(self, text: bytes) -> None:
        """Add one line for the reader."""
        self._lines.append(text)
        self._ready.set()
        if len(self._lines) > MOST_WAITING:
            self.end()

    def end(self, last: bytes = b"") -> None:
        """End the watch after what it has to say, with a last line if there is one."""
        if last:
            self._lines.append(last)
        self._over = True
        self._ready.set()

    def release(self) -> None:
        """Tell what was held back, and go on."""
        self.is_held = False
        self._ready.set()

    async def chunk(self, patience: float) -> bytes | None:
        """Return all waiting lines, ``b""`` when none came within ``patience`` seconds, None when the watch is over."""
        try:
            async with asyncio.timeout(patience):
                await self._wait_ready()
        except TimeoutError:
            return b""
        said = b"".join(self._lines)
        self._lines.clear()
        return said or (None if self._over else b"")

    async def _wait_ready(self) -> None:
        while (not self._lines and not self._over) or self.is_held or self.is_silent:
            self._ready.clear()
            await self._ready.wait()


class Hub:
    """All open watches of one resource."""

    def __init__(self) -> None:
        self.watches: list[Watch] = []
        self._held = False

    def open(self, selection: Selection) -> Watch:
        """Start a watch that hears every change from now on."""
        watch = Watch(selection)
        watch.is_held = self._held
        self.watches.append(watch)
        return watch

    def close(self, watch: Watch) -> None:
        """Forget a watch whose reader is gone."""
        self.watches.remove(watch)

    def publish(self, change: Change) -> None:
        """Tell one change to every watch that selects the object, before or after it."""
        for watch in self.watches:
            if text := change.seen_by(watch.selection):
                watch.say(text)

    def hold(self) -> None:
        """Keep back what the watches have to say, also of those opened later: they fall behind."""
        self._held = True
        for watch in self.watches:
            watch.is_held = True

    def release(self) -> None:
        """Let all watches catch up."""
        self._held = False
        for watch in self.watches:
            watch.release()

    def silence(self) -> None:
        """Make every watch open now say nothing any more, for ever, as a half-open connection does."""
        for watch in self.watches:
            watch.is_silent = True

    def expire(self, revision: int) -> None:
        """End every watch with 410."""
        for watch in self.watches:
            watch.end(error_line(expired(f"too old resource version: {revision} ({revision + 1})")))

    def end(self) -> None:
        """End every watch, silent ones too."""
        for watch in self.watches:
            watch.is_silent = False
            watch.release()
            watch.end()
