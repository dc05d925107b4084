"""What a stand-in wrote, so that the next one knows it after a crash, as etcd would.

One rule: a write is in the file before anybody hears of it. The file only grows, and lives as long as one demo or test.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec

from hami_testkit.cluster.objects import Stored
from hami_testkit.cluster.resources import RESOURCES, Resource
from hami_testkit.cluster.status import Json


class Line(msgspec.Struct, frozen=True):
    """One write: an object as it then was, or as it was in the end."""

    resource: str
    revision: int
    gone: bool
    object: Json


class Journal:
    """The file of one stand-in."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known = list(_lines(path)) if path.exists() else []
        self._file = path.open("ab", buffering=0)

    def read(self) -> Iterator[tuple[Resource, Line]]:
        """Return what earlier stand-ins wrote, in order."""
        resources = {resource.name: resource for resource in RESOURCES}
        return ((resources[line.resource], line) for line in self._known)

    def write(self, resource: Resource, stored: Stored, *, gone: bool) -> None:
        """Add one write."""
        head = b'{"resource":"%s","revision":%d,"gone":%s,"object":{'
        gone_text = b"true" if gone else b"false"
        self._file.write(head % (resource.name.encode(), stored.revision, gone_text) + stored.body + b"}\n")

    def close(self) -> None:
        """Write no more."""
        self._file.close()


def _lines(path: Path) -> Iterator[Line]:
    """Yield every whole line; the last one may have been cut by the end of its writer."""
    for line in path.read_bytes().split(b"\n")[:-1]:
        yield msgspec.json.decode(line, type=Line)
