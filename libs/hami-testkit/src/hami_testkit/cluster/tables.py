"""Lists as the table that kubectl prints.

One rule: only what a person reads at a glance; every other output of kubectl takes the objects themselves.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from hami_testkit.cluster.objects import Stored
from hami_testkit.cluster.resources import EVENTS, NODES, PODS, Resource
from hami_testkit.cluster.status import Json

Cell = Callable[[Json], object]


def _name(obj: Json) -> object:
    return obj["metadata"]["name"]


def _age(obj: Json) -> object:
    made = datetime.fromisoformat(obj["metadata"]["creationTimestamp"])
    seconds = int((datetime.now(UTC) - made).total_seconds())
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= 2 * size:
            return f"{seconds // size}{unit}"
    return f"{max(0, seconds)}s"


def _statuses(obj: Json) -> list[Json]:
    return obj["status"].get("containerStatuses") or []


def _ready(obj: Json) -> object:
    ready = sum(bool(status.get("ready")) for status in _statuses(obj))
    return f"{ready}/{len(obj['spec']['containers'])}"


def _pod_status(obj: Json) -> object:
    if obj["metadata"].get("deletionTimestamp"):
        return "Terminating"
    waiting = [s["state"]["waiting"].get("reason") for s in _statuses(obj) if s.get("state", {}).get("waiting")]
    return next(filter(None, waiting), None) or obj["status"].get("reason") or obj["status"].get("phase", "")


def _restarts(obj: Json) -> object:
    return sum(status.get("restartCount", 0) for status in _statuses(obj))


def _node_status(obj: Json) -> object:
    conditions = {c["type"]: c["status"] for c in obj["status"].get("conditions") or []}
    ready = "Ready" if conditions.get("Ready", "True") == "True" else "NotReady"
    return f"{ready},SchedulingDisabled" if obj["spec"].get("unschedulable") else ready


def _about(obj: Json) -> object:
    return f"{obj['involvedObject'].get('kind', '').lower()}/{obj['involvedObject'].get('name', '')}"


_COLUMNS: dict[Resource, dict[str, Cell]] = {
    PODS: {
        "Name": _name, "Ready": _ready, "Status": _pod_status, "Restarts": _restarts, "Age": _age,
        "Node": lambda obj: obj["spec"].get("nodeName", "<none>"),
    },
    NODES: {
        "Name": _name, "Status": _node_status, "Roles": lambda _: "<none>", "Age": _age,
        "Version": lambda obj: (obj["status"].get("nodeInfo") or {}).get("kubeletVersion", ""),
    },
    EVENTS: {
        "Last Seen": _age, "Type": lambda obj: obj.get("type", ""), "Reason": lambda obj: obj.get("reason", ""),
        "Object": _about, "Message": lambda obj: obj.get("message", ""),
    },
}  # fmt: skip
_ANY: dict[str, Cell] = {"Name": _name, "Age": _age}


def table(resource: Resource, items: list[Stored], *, revision: int, token: str = "") -> Json:
    """Return the objects as one table."""
    columns = _COLUMNS.get(resource, _ANY)
    meta: Json = {"resourceVersion": str(revision)} | ({"continue": token} if token else {})
    heads = [{"name": name, "type": "string", "format": "name" if name == "Name" else "", "description": name,
              "priority": 0} for name in columns]  # fmt: skip
    rows = [_row(resource, columns, item.object) for item in items]
    return {"kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": meta, "columnDefinitions": heads, "rows": rows}


def _row(resource: Resource, columns: dict[str, Cell], obj: Json) -> Json:
    known = {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": obj["metadata"]}
    return {"cells": [cell(obj) for cell in columns.values()], "object": known}
