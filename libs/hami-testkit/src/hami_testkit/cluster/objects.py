"""One object as the stand-in keeps it.

One rule: it is never changed in place; a writer thaws a copy and freezes the result as the next revision.
"""

from __future__ import annotations

from typing import cast

import msgspec

from hami_testkit.cluster.status import Json

Key = tuple[str, str]


class Stored(msgspec.Struct, frozen=True):
    """An object as it stands at one revision; ``body`` is its JSON without kind, apiVersion and opening brace."""

    object: Json
    body: bytes
    revision: int

    @property
    def key(self) -> Key:
        """Return namespace and name."""
        meta = self.object["metadata"]
        return meta.get("namespace") or "", meta["name"]


def freeze(obj: Json, revision: int) -> Stored:
    """Return the object as of ``revision``, encoded."""
    obj["metadata"]["resourceVersion"] = str(revision)
    rest = {key: value for key, value in obj.items() if key not in ("kind", "apiVersion")}
    return Stored(rest, msgspec.json.encode(rest)[1:], revision)


def thaw(stored: Stored) -> Json:
    """Return a copy of the object that may be changed."""
    return cast("Json", msgspec.json.decode(b"{" + stored.body))
