"""What the API serves, told to clients that ask first: kubectl and client libraries.

One rule: everything here follows from the table of resources.
"""

from __future__ import annotations

from hami_testkit.cluster.resources import RESOURCES, Resource
from hami_testkit.cluster.status import Json

_VERBS = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]
_SUBRESOURCE_KINDS = {"binding": "Binding", "eviction": "Eviction"}
_VERSION = {"major": "1", "minor": "34", "gitVersion": "v1.34.2", "platform": "linux/amd64"}


def answer(path: str) -> Json | None:
    """Return the page of a discovery path, None where the path is no such thing."""
    path = path.rstrip("/")
    roots = {resource.root: resource for resource in RESOURCES}
    groups = {resource.group: resource for resource in RESOURCES if resource.group}
    if path in roots:
        return _resource_list(roots[path])
    if path in ("/healthz", "/livez", "/readyz"):
        return {"status": "ok"}
    pages: dict[str, Json] = {
        "/version": _VERSION,
        "/api": {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []},
        "/apis": {"kind": "APIGroupList", "apiVersion": "v1", "groups": [_group(r) for r in groups.values()]},
        "/openapi/v3": {"paths": {}},
    }
    pages |= {f"/apis/{group}": {"kind": "APIGroup", "apiVersion": "v1", **_group(r)} for group, r in groups.items()}
    return pages.get(path)


def _group(resource: Resource) -> Json:
    version = {"groupVersion": resource.api_version, "version": resource.version}
    return {"name": resource.group, "versions": [version], "preferredVersion": version}


def _resource_list(first: Resource) -> Json:
    rows: list[Json] = []
    for resource in RESOURCES:
        if resource.root != first.root:
            continue
        row = {"name": resource.name, "singularName": resource.kind.lower(), "namespaced": resource.namespaced,
               "kind": resource.kind, "verbs": _VERBS}  # fmt: skip
        rows.append(row | ({"shortNames": list(resource.short)} if resource.short else {}))
        for sub in resource.subresources:
            kind = _SUBRESOURCE_KINDS.get(sub, resource.kind)
            verbs = ["create"] if sub in _SUBRESOURCE_KINDS else ["get", "patch", "update"]
            named = {"name": f"{resource.name}/{sub}", "singularName": "", "kind": kind, "verbs": verbs}
            rows.append({**named, "namespaced": resource.namespaced})
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": first.api_version, "resources": rows}
