"""Changes to a pod as RFC 6902 JSON patch.

One rule: only what changes is named, so whatever else the pod holds, known to us or not, survives untouched.
"""

from collections.abc import Iterable, Iterator
from copy import deepcopy
from typing import Any

from hami_model.units import canonical, rounded_up
from hami_model.vendor import Change

Json = dict[str, Any]
Operation = dict[str, Any]


def json_patch(raw_pod: Json, changes: Iterable[Change]) -> list[Operation]:
    """Return the operations that turn the pod, as it was sent, into the changed one; none when nothing differs."""
    return list(_differences(raw_pod, changed(raw_pod, changes), ""))


def changed(raw_pod: Json, changes: Iterable[Change]) -> Json:
    """Return a copy of the pod with the changes made."""
    pod = deepcopy(raw_pod)
    spec = _child(pod, "spec")
    for change in changes:
        if change.scheduler is not None:
            spec["schedulerName"] = change.scheduler
        if change.runtime_class is not None and not spec.get("runtimeClassName"):
            spec["runtimeClassName"] = change.runtime_class
        if change.annotation is not None:
            key, value = change.annotation
            _child(_child(pod, "metadata"), "annotations")[key] = value
        if change.container is not None:
            for container in _named(spec, change.container):
                _change_container(container, change)
    return pod


def _named(spec: Json, name: str) -> Iterator[Json]:
    containers = [*(spec.get("initContainers") or []), *(spec.get("containers") or [])]
    yield from (c for c in containers if (c.get("name") or "") == name)


def _change_container(container: Json, change: Change) -> None:
    for section, pair in (("limits", change.limit), ("requests", change.request)):
        if pair is not None:
            _set_quantity(container, section, *pair)
    if change.env is not None:
        _set_env(container, *change.env)


def _set_quantity(container: Json, section: str, name: str, value: str) -> None:
    """Set a quantity, unless it is there as the API server would write it: ``5k`` stays where 5000 is wanted."""
    present = ((container.get("resources") or {}).get(section) or {}).get(name)
    wanted = rounded_up(value)
    if present != value and (wanted is None or present != canonical(wanted)):
        _child(_child(container, "resources"), section)[name] = value


def _set_env(container: Json, name: str, value: str) -> None:
    """Set a variable where it stands, else at the end; the last of several namesakes is the one that counts."""
    entries = container.get("env")
    if not entries:
        entries = container["env"] = []
    wanted = {"name": name, "value": value} if value else {"name": name}
    for at in reversed(range(len(entries))):
        if entries[at].get("name") == name:
            if (entries[at].get("value") or "") != value or entries[at].get("valueFrom"):
                entries[at] = wanted
            return
    entries.append(wanted)


def _child(parent: Json, key: str) -> Json:
    """Return a nested object, made when it is absent or null."""
    if not parent.get(key):
        parent[key] = {}
    child: Json = parent[key]
    return child


def _differences(before: Any, after: Any, path: str) -> Iterator[Operation]:
    if isinstance(before, dict) and isinstance(after, dict):
        for key in [*before, *(key for key in after if key not in before)]:
            where = f"{path}/{key.replace('~', '~0').replace('/', '~1')}"
            if key not in after:
                yield {"op": "remove", "path": where}
            elif key in before:
                yield from _differences(before[key], after[key], where)
            else:
                yield {"op": "add", "path": where, "value": after[key]}
    elif isinstance(before, list) and isinstance(after, list):
        for at, (old, new) in enumerate(zip(before, after, strict=False)):
            yield from _differences(old, new, f"{path}/{at}")
        for new in after[len(before) :]:
            yield {"op": "add", "path": f"{path}/-", "value": new}
    elif before != after:
        yield {"op": "replace", "path": path, "value": after}
