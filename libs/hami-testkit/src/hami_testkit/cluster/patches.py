"""The patches of the API: JSON patch, merge patch, strategic merge patch.

One rule: a patch is a pure function from one object to another; it says nothing about who may apply it.
"""

from __future__ import annotations

from collections.abc import Callable
from types import MappingProxyType
from typing import Any, cast

import jsonpatch

from hami_testkit.cluster.status import ApiError, Json, bad_request

MERGE_KEYS = {
    "conditions": "type", "containers": "name", "initContainers": "name", "ephemeralContainers": "name",
    "env": "name", "volumes": "name", "volumeMounts": "mountPath", "volumeDevices": "devicePath",
    "ports": "containerPort", "addresses": "type", "ownerReferences": "uid", "imagePullSecrets": "name",
    "podIPs": "ip", "hostIPs": "ip", "schedulingGates": "name", "hostAliases": "ip", "resourceClaims": "name",
    "webhooks": "name", "secrets": "name", "topologySpreadConstraints": "topologyKey",
}  # fmt: skip
"""Lists that a strategic merge patch joins by a key; every other list is replaced."""

MERGED_SETS = ("finalizers",)


class _Replace(jsonpatch.ReplaceOperation):
    """Kubernetes' library adds a member that is not there to be replaced; RFC 6902 refuses it."""

    def apply(self, obj: Any) -> Any:
        try:
            return super().apply(obj)
        except jsonpatch.JsonPatchPathNotFound:
            return jsonpatch.AddOperation(self.operation).apply(obj)


class _JsonPatch(jsonpatch.JsonPatch):
    operations = MappingProxyType({**jsonpatch.JsonPatch.operations, "replace": _Replace})


def apply_json_patch(target: Json, operations: Any) -> Json:
    """Apply a JSON patch (RFC 6902); one that does not apply raises ``ValueError``."""
    try:
        return cast("Json", _JsonPatch(operations).apply(target))
    except (jsonpatch.JsonPatchException, jsonpatch.JsonPointerException, LookupError, TypeError) as error:
        raise ValueError(str(error)) from error


def json_patch(target: Json, operations: Any) -> Json:
    """Apply a JSON patch; one that does not apply is refused as the API server does."""
    if not isinstance(operations, list):
        raise bad_request("error decoding patch: a JSON patch is a list of operations")
    try:
        return apply_json_patch(target, operations)
    except ValueError as error:
        text = "the server rejected our request due to an error in our request"
        raise ApiError(422, text, details={"causes": [{"message": str(error)}]}) from error


def merge(target: Json, patch: Any) -> Json:
    """Apply a JSON merge patch (RFC 7396)."""
    return _merge_object(target, patch, joins=False)


def strategic(target: Json, patch: Any) -> Json:
    """Apply a strategic merge patch: like a merge patch, but known lists are joined by their key."""
    return _merge_object(target, patch, joins=True)


def _merge_object(target: Json, patch: Any, *, joins: bool) -> Json:
    if not isinstance(patch, dict):
        raise bad_request("error decoding patch: a merge patch is an object")
    return cast("Json", _merge(target, patch, joins=joins))


def _merge(target: Any, patch: Any, *, joins: bool) -> Any:
    if not isinstance(patch, dict):
        return patch
    if joins and patch.get("$patch") == "replace":
        return {key: value for key, value in patch.items() if key != "$patch"}
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if joins and key.startswith("$"):
            _obey(result, key, value)
        elif value is None or (joins and isinstance(value, dict) and value.get("$patch") == "delete"):
            result.pop(key, None)
        elif joins and isinstance(value, list):
            result[key] = _join(key, result.get(key) or [], value)
        else:
            result[key] = _merge(result.get(key), value, joins=joins)
    return result


def _obey(result: Json, directive: str, value: Any) -> None:
    kind, _, field = directive.partition("/")
    if kind == "$deleteFromPrimitiveList":
        result[field] = [item for item in result.get(field) or [] if item not in value]


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
            joined[name] = _merge(joined.get(name), item, joins=True)
    return list(joined.values())


APPLY = "application/apply-patch+yaml"
KINDS: dict[str, Callable[[Json, Any], Json]] = {
    "application/json-patch+json": json_patch,
    "application/merge-patch+json": merge,
    "application/strategic-merge-patch+json": strategic,
    APPLY: strategic,  # nobody owns fields here: what an apply no longer names stays
}
"""What each media type of a patch means."""
