"""The three patches of the API: JSON patch, merge patch, strategic merge patch.

One rule: a patch is a pure function from one object to another; it says nothing about who may apply it.
"""

from __future__ import annotations

import copy
from typing import Any, cast

from hami_testkit.cluster.status import ApiError, Json

MERGE_KEYS = {
    "conditions": "type", "containers": "name", "initContainers": "name", "ephemeralContainers": "name",
    "env": "name", "volumes": "name", "volumeMounts": "mountPath", "volumeDevices": "devicePath",
    "ports": "containerPort", "addresses": "type", "ownerReferences": "uid", "imagePullSecrets": "name",
    "podIPs": "ip", "hostIPs": "ip", "schedulingGates": "name", "hostAliases": "ip", "resourceClaims": "name",
    "webhooks": "name", "secrets": "name", "topologySpreadConstraints": "topologyKey",
}  # fmt: skip
"""Lists that a strategic merge patch joins by a key; every other list is replaced."""

MERGED_SETS = ("finalizers",)


def merge(target: Any, patch: Any) -> Any:
    """Apply a JSON merge patch (RFC 7396)."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merge(result.get(key), value)
    return result


def strategic(target: Any, patch: Any) -> Any:
    """Apply a strategic merge patch: like a merge patch, but known lists are joined by their key."""
    if not isinstance(patch, dict):
        return patch
    if patch.get("$patch") == "replace":
        return {key: value for key, value in patch.items() if key != "$patch"}
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if key.startswith("$deleteFromPrimitiveList/"):
            field = key.partition("/")[2]
            result[field] = [item for item in result.get(field) or [] if item not in value]
        elif key.startswith("$"):
            continue
        elif value is None or (isinstance(value, dict) and value.get("$patch") == "delete"):
            result.pop(key, None)
        elif isinstance(value, list):
            result[key] = _join(key, result.get(key) or [], value)
        else:
            result[key] = strategic(result.get(key), value)
    return result


def _join(field: str, old: list[Any], new: list[Any]) -> list[Any]:
    if field in MERGED_SETS:
        return [*old, *(item for item in new if item not in old)]
    key = MERGE_KEYS.get(field)
    if key is None or not all(isinstance(item, dict) for item in new):
        return new
    if any(item.get("$patch") == "replace" for item in new):
        return [item for item in new if item.get("$patch") != "replace"]
    joined = {item.get(key): item for item in old}
    for item in new:
        name = item.get(key)
        if item.get("$patch") == "delete":
            joined.pop(name, None)
        else:
            joined[name] = strategic(joined.get(name), item)
    return list(joined.values())


def apply_json_patch(target: Json, operations: list[Json]) -> Json:
    """Apply a JSON patch (RFC 6902); an operation that does not apply raises ``LookupError`` or ``ValueError``."""
    document: Any = {"": copy.deepcopy(target)}
    for operation in operations:
        _apply(document, operation)
    return cast("Json", document[""])


def json_patch(target: Json, operations: Any) -> Json:
    """Apply a JSON patch; one that does not apply is refused as the API server does."""
    try:
        return apply_json_patch(target, operations)
    except (LookupError, ValueError, TypeError) as error:
        text = "the server rejected our request due to an error in our request"
        raise ApiError(422, text, details={"causes": [{"message": str(error)}]}) from error


def _apply(document: Json, operation: Json) -> None:
    kind, path = operation["op"], operation["path"]
    parent, step = _walk(document, path)
    match kind:
        case "add":
            _add(parent, step, copy.deepcopy(operation["value"]))
        case "remove":
            _remove(parent, step)
        case "replace":
            at = _at(parent, step) if isinstance(parent, list) else step  # a missing last key is added, as evanphx does
            parent[at] = copy.deepcopy(operation["value"])
        case "test":
            if parent[_at(parent, step)] != operation.get("value"):
                raise ValueError(f"testing value {path} failed")
        case "move" | "copy":
            origin, name = _walk(document, operation["from"])
            value = copy.deepcopy(origin[_at(origin, name)])
            if kind == "move":
                _remove(origin, name)
            _add(*_walk(document, path), value)
        case _:
            raise ValueError(f"unexpected kind {kind!r}")


def _walk(document: Json, path: str) -> tuple[Any, str]:
    if path and not path.startswith("/"):
        raise ValueError(f"bad JSON pointer {path!r}")
    steps = [step.replace("~1", "/").replace("~0", "~") for step in path.split("/")]
    parent: Any = document
    for step in steps[:-1]:
        parent = parent[_at(parent, step)]
    return parent, steps[-1]


def _at(parent: Any, step: str) -> Any:
    if isinstance(parent, list):
        parent[int(step)]  # an index that is no number, or beyond the end, does not apply
        return int(step)
    if step not in parent:
        raise LookupError(f"path not found: {step!r}")
    return step


def _add(parent: Any, step: str, value: Any) -> None:
    if not isinstance(parent, list):
        parent[step] = value
        return
    index = len(parent) if step == "-" else int(step)
    if index > len(parent):
        raise LookupError(f"index {index} is beyond the end")
    parent.insert(index, value)


def _remove(parent: Any, step: str) -> None:
    del parent[_at(parent, step)]
