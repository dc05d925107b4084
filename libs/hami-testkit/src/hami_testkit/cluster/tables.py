"""Objects as the table that kubectl prints.

One rule: columns and cells are those of kube-apiserver; which of them a person sees decides kubectl (``-o wide``).
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from hami_testkit.cluster import pod_cells
from hami_testkit.cluster.ages import since
from hami_testkit.cluster.resources import (
    ACCOUNTS,
    CONFIGS,
    EVENTS,
    LEASES,
    NAMESPACES,
    NODES,
    PODS,
    QUOTAS,
    SECRETS,
    WEBHOOKS,
    Resource,
)
from hami_testkit.cluster.status import Json, bad_request

Cell = Callable[[Json], object]
INCLUDES = ("Metadata", "Object", "None")
"""How much of each object a reader may ask for beside its cells (``includeObject``)."""
_ROLE = "node-role.kubernetes.io/"


class Column:
    """One column; a wide one is shown on request only."""

    def __init__(self, name: str, cell: Cell, *, wide: bool = False) -> None:
        self.cell = cell
        self.head: Json = {"name": name, "type": "string", "format": "name" if name == "Name" else "",
                           "description": name, "priority": int(wide)}  # fmt: skip


def _wide(name: str, cell: Cell) -> Column:
    return Column(name, cell, wide=True)


def _part(obj: Json, *path: str) -> Json:
    for field in path:
        obj = obj.get(field) or {}
    return obj


def _node_status(node: Json) -> str:
    ready = next((c.get("status") for c in _part(node, "status").get("conditions") or [] if c["type"] == "Ready"), None)
    said = {None: "Unknown", "True": "Ready"}.get(ready, "NotReady")
    return f"{said},SchedulingDisabled" if _part(node, "spec").get("unschedulable") else said


def _roles(node: Json) -> str:
    labels = _part(node, "metadata", "labels")
    roles = {key.removeprefix(_ROLE) for key in labels if key.startswith(_ROLE)} | {labels.get("kubernetes.io/role")}
    return ",".join(sorted(filter(None, roles))) or "<none>"


def _address(kind: str) -> Cell:
    def cell(node: Json) -> str:
        addresses = _part(node, "status").get("addresses") or []
        return next((each["address"] for each in addresses if each.get("type") == kind), "<none>")

    return cell


def _told_by_node(field: str, otherwise: str) -> Cell:
    return lambda node: _part(node, "status", "nodeInfo").get(field) or otherwise


def _about(event: Json) -> str:
    named = event.get("involvedObject") or {}
    return "/".join(filter(None, ((named.get("kind") or "").lower(), named.get("name"))))


def _first_seen(event: Json) -> str:
    return since(event.get("firstTimestamp") or event.get("eventTime"))


def _last_seen(event: Json) -> str:
    last = _part(event, "series").get("lastObservedTime") or event.get("lastTimestamp")
    return since(last) if last else _first_seen(event)


def _source(event: Json) -> str:
    source = event.get("source") or {}
    who = source.get("component") or event.get("reportingComponent")
    return ", ".join(filter(None, (who, source.get("host") or event.get("reportingInstance"))))


def _used(quota: Json, *, limits: bool) -> str:
    hard, used = _part(quota, "status", "hard"), _part(quota, "status", "used")
    names = [name for name in sorted(hard) if name.startswith("limits.") == limits]
    return ", ".join(f"{name}: {used.get(name, 0)}/{hard[name]}" for name in names)


def _count(*fields: str) -> Cell:
    return lambda obj: sum(len(obj.get(field) or ()) for field in fields)


_NAME = Column("Name", lambda obj: obj["metadata"]["name"])
_AGE = Column("Age", lambda obj: since(obj["metadata"]["creationTimestamp"]))
_COLUMNS: dict[Resource, tuple[Column, ...]] = {
    PODS: (
        _NAME, Column("Ready", pod_cells.ready), Column("Status", pod_cells.status),
        Column("Restarts", pod_cells.restarts), _AGE, _wide("IP", pod_cells.address),
        _wide("Node", lambda pod: _part(pod, "spec").get("nodeName") or "<none>"),
        _wide("Nominated Node", lambda pod: _part(pod, "status").get("nominatedNodeName") or "<none>"),
        _wide("Readiness Gates", pod_cells.gates),
    ),
    NODES: (
        _NAME, Column("Status", _node_status), Column("Roles", _roles), _AGE,
        Column("Version", _told_by_node("kubeletVersion", "")), _wide("Internal-IP", _address("InternalIP")),
        _wide("External-IP", _address("ExternalIP")), _wide("OS-Image", _told_by_node("osImage", "<unknown>")),
        _wide("Kernel-Version", _told_by_node("kernelVersion", "<unknown>")),
        _wide("Container-Runtime", _told_by_node("containerRuntimeVersion", "<unknown>")),
    ),
    EVENTS: (
        Column("Last Seen", _last_seen), Column("Type", lambda event: event.get("type") or ""),
        Column("Reason", lambda event: event.get("reason") or ""), Column("Object", _about),
        _wide("Subobject", lambda event: _part(event, "involvedObject").get("fieldPath") or ""),
        _wide("Source", _source), Column("Message", lambda event: (event.get("message") or "").strip()),
        _wide("First Seen", _first_seen),
        _wide("Count", lambda event: _part(event, "series").get("count") or event.get("count") or 1),
        _wide("Name", lambda event: event["metadata"]["name"]),
    ),
    NAMESPACES: (_NAME, Column("Status", lambda found: _part(found, "status").get("phase") or ""), _AGE),
    QUOTAS: (
        _NAME, Column("Request", lambda quota: _used(quota, limits=False)),
        Column("Limit", lambda quota: _used(quota, limits=True)), _AGE,
    ),
    LEASES: (_NAME, Column("Holder", lambda lease: _part(lease, "spec").get("holderIdentity") or ""), _AGE),
    WEBHOOKS: (_NAME, Column("Webhooks", _count("webhooks")), _AGE),
    CONFIGS: (_NAME, Column("Data", _count("data", "binaryData")), _AGE),
    SECRETS: (_NAME, Column("Type", lambda secret: secret.get("type") or ""), Column("Data", _count("data")), _AGE),
    ACCOUNTS: (_NAME, Column("Secrets", _count("secrets")), _AGE),
}  # fmt: skip


def table(resource: Resource, objects: list[Json], meta: Json, *, include: str = "", heads: bool = True) -> Json:
    """Return objects as one table, with what a reader wants of each beside its cells."""
    if include not in ("", *INCLUDES):
        text = f"includeObject: Invalid value: \"{include}\": must be 'Metadata', 'Object', 'None', or empty"
        raise bad_request(f"Unable to convert to Table as requested: {text}")
    columns = _COLUMNS.get(resource, (_NAME, _AGE))
    rows = [{"cells": [c.cell(obj) for c in columns], "object": _shown(resource, obj, include)} for obj in objects]
    head = {"kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": meta}
    return {**head, "columnDefinitions": [column.head for column in columns] if heads else None, "rows": rows}


def _shown(resource: Resource, obj: Json, include: str) -> Json | None:
    if include == "None":
        return None
    if include == "Object":
        return {"kind": resource.kind, "apiVersion": resource.api_version, **obj}
    return {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": obj["metadata"]}


class TableWatch:
    """The lines of one watch as tables; the first of them says what the columns are."""

    def __init__(self, resource: Resource, include: str) -> None:
        self._resource = resource
        self._include = include
        self._heads = True

    def lines(self, chunk: bytes) -> bytes:
        """Return the same events with a table of one row for each object."""
        return b"".join(self._line(msgspec.json.decode(line)) for line in chunk.splitlines())

    def _line(self, event: Json) -> bytes:
        if event["type"] in ("ADDED", "MODIFIED", "DELETED"):
            obj = event["object"]
            meta = {"resourceVersion": obj["metadata"]["resourceVersion"]}
            event["object"] = table(self._resource, [obj], meta, include=self._include, heads=self._heads)
            self._heads = False
        return msgspec.json.encode(event) + b"\n"
