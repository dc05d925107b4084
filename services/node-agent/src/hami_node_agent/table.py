"""The agent's own table: which device IDs were given to which container.

One rule: an ID leaves the table only when its container is really gone. The kubelet frees it earlier (force deletion),
forgets it (lost checkpoint) and counts it wrongly (a List at the wrong moment); this table does none of that. It knows
no clock and no socket; whoever owns it hears of each change and may write it down.
"""

from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec
from hami_model.allocation import Grant
from hami_model.objects import PodRef
from hami_model.request import Role
from msgspec import Struct

Key = tuple[str, str, str]
"""Pod uid, container, resource."""


class Entry(Struct, frozen=True, kw_only=True):
    """The IDs of one resource that one container has: answered to the kubelet (pending), or served by Allocate."""

    pod: PodRef
    container: str
    position: int
    """The container's place in the pod, init containers first."""
    role: Role
    resource: str
    ids: tuple[str, ...]
    grants: tuple[Grant, ...] = ()
    served: bool = False

    @property
    def key(self) -> Key:
        """Return what there is only one entry of."""
        return (self.pod.uid, self.container, self.resource)


class Table:
    """Entries by pod, container and resource."""

    def __init__(
        self, entries: Iterable[Entry] = (), *, on_change: Callable[[tuple[Entry, ...]], None] | None = None
    ) -> None:
        self._entries: dict[Key, Entry] = {entry.key: entry for entry in entries}
        self._on_change = on_change

    @property
    def entries(self) -> tuple[Entry, ...]:
        """Return every entry, oldest first."""
        return tuple(self._entries.values())

    @property
    def pods(self) -> tuple[PodRef, ...]:
        """Return every pod that holds something, each once."""
        return tuple(dict.fromkeys(entry.pod for entry in self._entries.values()))

    def find(self, uid: str, container: str, resource: str) -> Entry | None:
        """Return the one entry of a container, if it has any."""
        return self._entries.get((uid, container, resource))

    def of_pod(self, uid: str) -> tuple[Entry, ...]:
        """Return what one pod holds, in the order of its containers."""
        mine = [entry for entry in self._entries.values() if entry.pod.uid == uid]
        return tuple(sorted(mine, key=lambda entry: (entry.position, entry.resource)))

    def holders(self, device_id: str) -> tuple[Entry, ...]:
        """Return who holds an ID: an init container and those after it may share it, within one pod."""
        return tuple(entry for entry in self._entries.values() if device_id in entry.ids)

    def pending(self, resource: str, ids: Iterable[str]) -> Entry | None:
        """Return the container to which exactly these IDs were answered."""
        asked = frozenset(ids)
        waiting = (e for e in self._entries.values() if not e.served and e.resource == resource)
        return next((entry for entry in waiting if frozenset(entry.ids) == asked), None)

    def put(self, entry: Entry) -> None:
        """Record an entry in place of the container's older one."""
        self._entries[entry.key] = entry
        self._changed()

    def drop(self, entry: Entry) -> None:
        """Forget one entry, if it still stands as given."""
        if self._entries.get(entry.key) == entry:
            del self._entries[entry.key]
            self._changed()

    def release(self, uid: str) -> tuple[Entry, ...]:
        """Forget a pod whose containers are gone; return what it held."""
        gone = self.of_pod(uid)
        for entry in gone:
            del self._entries[entry.key]
        if gone:
            self._changed()
        return gone

    def _changed(self) -> None:
        if self._on_change is not None:
            self._on_change(self.entries)


class _File(Struct, frozen=True, tag="table.v1"):
    entries: tuple[Entry, ...] = ()


class TableFile:
    """The table on disk: replaced as a whole, so that a crash leaves the old one or the new one."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> tuple[Entry, ...]:
        """Return what was written last; nothing where no file is. Raise ``ValueError`` for one that cannot be read."""
        try:
            text = self._path.read_bytes()
        except FileNotFoundError:
            return ()
        try:
            return msgspec.json.decode(text, type=_File).entries
        except msgspec.DecodeError as e:
            raise ValueError(
                f"{self._path} is no table of ours ({e}); it is rebuilt from the kubelet's checkpoint"
            ) from e

    def write(self, entries: tuple[Entry, ...]) -> None:
        """Replace the file."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        new = self._path.with_suffix(".new")
        new.write_bytes(msgspec.json.encode(_File(entries)))
        new.replace(self._path)
