"""The truth of the simulated cluster: objects, one revision counter, and what changed since.

One rule: a write is one step with the API server's own preconditions (measured on a real one; the same stories run
against the stand-in cluster). Knows no time and loses nothing: lateness and loss happen on the way here.
"""

from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from msgspec import Struct

Json = dict[str, Any]
Key = tuple[str, str]
"""Namespace and name; nodes have no namespace."""

Versions = tuple[Json | None, Json | None]
"""An object before and after a write; None = not there."""

KINDS = ("nodes", "pods", "resourcequotas", "leases")


class Refusal(Exception):
    """The API server's no."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason

    @property
    def body(self) -> bytes:
        """Write it as a Status object."""
        return msgspec.json.encode({"kind": "Status", "code": self.status, "reason": self.reason, "message": str(self)})


class Change(Struct, frozen=True):
    """One write: what was there, what is there now, and the line that a watch shows. ``new`` None = deleted."""

    revision: int
    kind: str
    key: Key
    old: Json | None
    new: Json | None
    line: bytes
    body: bytes
    sender: str


class Store:
    """All objects; ``on_change`` hears of each write in the same step."""

    def __init__(self) -> None:
        self.revision = 100
        self.compacted = 0
        self.objects: dict[str, dict[Key, Json]] = {kind: {} for kind in KINDS}
        self.bodies: dict[str, dict[Key, bytes]] = {kind: {} for kind in KINDS}
        self.log: dict[str, list[Change]] = {kind: [] for kind in KINDS}
        self.on_change: list[Callable[[Change], None]] = []

    def find(self, kind: str, key: Key) -> Json | None:
        """Return an object, or None."""
        return self.objects[kind].get(key)

    def get(self, kind: str, key: Key) -> Json:
        """Return an object, or refuse with 404."""
        found = self.objects[kind].get(key)
        if found is None:
            raise Refusal(404, "NotFound", f'{kind} "{key[1]}" not found')
        return found

    def create(self, kind: str, obj: Json, *, sender: str) -> Json:
        """Create an object; one that is there is refused with 409."""
        key = _key(obj)
        if key in self.objects[kind]:
            raise Refusal(409, "AlreadyExists", f'{kind} "{key[1]}" already exists')
        return self._put(kind, key, None, obj, sender)

    def replace(self, kind: str, key: Key, obj: Json, *, sender: str) -> Json:
        """Replace an object as it was read."""
        old = self.get(kind, key)
        _check_version(old, obj["metadata"], key)
        return self._put(kind, key, old, {**obj, "metadata": {**old["metadata"], **obj["metadata"]}}, sender)

    def patch_meta(self, kind: str, key: Key, meta: Json, *, sender: str) -> Json:
        """Merge-patch annotations and labels; a patch that changes nothing writes nothing."""
        old = self.get(kind, key)
        uid = meta.get("uid")
        if uid is not None and uid != old["metadata"]["uid"]:
            raise Refusal(422, "Invalid", f'metadata.uid: Invalid value: "{uid}": field is immutable')
        _check_version(old, meta, key)
        changed = dict(old["metadata"])
        for field in ("annotations", "labels"):
            if field in meta:
                changed[field] = _merged(changed.get(field) or {}, meta[field])
        return old if changed == old["metadata"] else self._put(kind, key, old, {**old, "metadata": changed}, sender)

    def set_status(self, kind: str, key: Key, status: Json, *, sender: str) -> Json:
        """Write status fields, as a kubelet does."""
        old = self.get(kind, key)
        new = {**old, "status": {**old.get("status", {}), **status}}
        return old if new == old else self._put(kind, key, old, new, sender)

    def bind(self, key: Key, meta: Json, node: str, *, sender: str) -> None:
        """Put a pod on a node, and the Binding's annotations with it in the same write."""
        old = self.get("pods", key)
        if meta.get("uid") and meta["uid"] != old["metadata"]["uid"]:
            text = f"Precondition failed: UID in precondition: {meta['uid']}, UID in object meta: "
            raise Refusal(409, "Conflict", text + old["metadata"]["uid"])
        _check_version(old, meta, key)
        if old["metadata"].get("deletionTimestamp"):
            raise Refusal(409, "Conflict", f"pod {key[1]} is being deleted, cannot be assigned to a host")
        bound = old["spec"].get("nodeName")
        if bound:
            raise Refusal(409, "Conflict", f'pod {key[1]} is already assigned to node "{bound}"')
        annotations = _merged(old["metadata"].get("annotations") or {}, meta.get("annotations") or {})
        new = {
            **old,
            "metadata": {**old["metadata"], "annotations": annotations},
            "spec": {**old["spec"], "nodeName": node},
        }
        self._put("pods", key, old, new, sender)

    def mark_deleted(self, key: Key, at: str, *, sender: str) -> None:
        """Begin a pod's graceful end."""
        old = self.get("pods", key)
        new = {**old, "metadata": {**old["metadata"], "deletionTimestamp": at}}
        self._put("pods", key, old, new, sender)

    def remove(self, kind: str, key: Key, *, sender: str) -> None:
        """Take an object away; its last state carries the revision of its end."""
        old = self.get(kind, key)
        self.revision += 1
        last = {**old, "metadata": {**old["metadata"], "resourceVersion": str(self.revision)}}
        del self.objects[kind][key], self.bodies[kind][key]
        self._tell(kind, key, (old, None), msgspec.json.encode(last), sender)

    def changes_since(self, kind: str, revision: int) -> int:
        """Return the position in the log after ``revision``; 410 where that is too old."""
        if revision < self.compacted:
            raise Refusal(410, "Expired", f"too old resource version: {revision} ({self.compacted})")
        log = self.log[kind]
        at = len(log)
        while at and log[at - 1].revision > revision:
            at -= 1
        return at

    def _put(self, kind: str, key: Key, old: Json | None, new: Json, sender: str) -> Json:
        self.revision += 1
        new = {**new, "metadata": {**new["metadata"], "resourceVersion": str(self.revision)}}
        body = msgspec.json.encode(new)
        self.objects[kind][key] = new
        self.bodies[kind][key] = body
        self._tell(kind, key, (old, new), body, sender)
        return new

    def _tell(self, kind: str, key: Key, versions: Versions, body: bytes, sender: str) -> None:
        old, new = versions
        verb = "DELETED" if new is None else "MODIFIED" if old else "ADDED"
        line = b'{"type":"%s","object":%s}' % (verb.encode(), body)
        change = Change(self.revision, kind, key, old, new, line, body, sender)
        self.log[kind].append(change)
        for hear in self.on_change:
            hear(change)


def _key(obj: Json) -> Key:
    return obj["metadata"].get("namespace", ""), obj["metadata"]["name"]


def _check_version(old: Json, meta: Json, key: Key) -> None:
    wanted, found = meta.get("resourceVersion"), old["metadata"]["resourceVersion"]
    if wanted and wanted != found:
        text = f"Precondition failed: ResourceVersion in precondition: {wanted}, in object meta of {key[1]}: {found}"
        raise Refusal(409, "Conflict", text)


def _merged(old: Mapping[str, str], patch: Mapping[str, str | None]) -> dict[str, str]:
    merged = {**old, **patch}
    return {name: value for name, value in merged.items() if value is not None}
