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


def _age(obj: Json) -> str:
    made = datetime.fromisoformat(obj["metadata"]["creationTimestamp"])
    seconds = int((datetime.now(UTC) - made).total_seconds())
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= 2 * size:
            return f"{seconds // size}{unit}"
    return f"{max(0, seconds)}s"


def _containers(pod: Json) -> list[Json]:
    return pod["status"].get("containerStatuses") or []


def _pod_status(pod: Json) -> object:
    if pod["metadata"].get("deletionTimestamp"):
        return "Terminating"
    waiting = [((c.get("state") or {}).get("waiting") or {}).get("reason") for c in _containers(pod)]
    return next(filter(None, waiting), None) or pod["status"].get("reason") or pod["status"].get("phase", "")


def _node_status(node: Json) -> str:
    conditions = {c.get("type"): c.get("status") for c in node["status"].get("conditions") or []}
    ready = "Ready" if conditions.get("Ready", "True") == "True" else "NotReady"
    return f"{ready},SchedulingDisabled" if node["spec"].get("unschedulable") else ready


def _about(event: Json) -> str:
    named = event.get("involvedObject") or {}
    return f"{(named.get('kind') or '').lower()}/{named.get('name')}"


_NAME: dict[str, Cell] = {"Name": lambda obj: obj["metadata"]["name"]}
_AGE: dict[str, Cell] = {"Age": _age}
_COLUMNS: dict[Resource, dict[str, Cell]] = {
    PODS: _NAME | {
        "Ready": lambda pod: f"{sum(bool(c.get('ready')) for c in _containers(pod))}/{len(pod['spec']['containers'])}",
        "Status": _pod_status, "Restarts": lambda pod: sum(c.get("restartCount") or 0 for c in _containers(pod)),
    } | _AGE | {"Node": lambda pod: pod["spec"].get("nodeName") or "<none>"},
    NODES: _NAME | {"Status": _node_status, "Roles": lambda _: "<none>"} | _AGE | {
        "Version": lambda node: (node["status"].get("nodeInfo") or {}).get("kubeletVersion") or "",
    },
    EVENTS: {
        "Last Seen": _age, "Type": lambda event: event.get("type"), "Reason": lambda event: event.get("reason"),
        "Object": _about, "Message": lambda event: event.get("message"),
    },
}  # fmt: skip


def table(resource: Resource, items: list[Stored], *, revision: int, token: str = "") -> Json:
    """Return the objects as one table."""
    columns = _COLUMNS.get(resource, _NAME | _AGE)
    meta: Json = {"resourceVersion": str(revision)} | ({"continue": token} if token else {})
    heads = [{"name": name, "type": "string", "format": "name" if name == "Name" else "", "description": name,
              "priority": 0} for name in columns]  # fmt: skip
    rows = [_row(resource, columns, item.object) for item in items]
    return {"kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": meta, "columnDefinitions": heads, "rows": rows}


def _row(resource: Resource, columns: dict[str, Cell], obj: Json) -> Json:
    known = {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": obj["metadata"]}
    return {"cells": [cell(obj) for cell in columns.values()], "object": known}
