"""What the API serves, told to clients that ask first: kubectl and client libraries.

One rule: everything here follows from the table of resources.
"""

from __future__ import annotations

from hami_testkit.cluster import openapi, reviews
from hami_testkit.cluster.resources import RESOURCES, SUBRESOURCES, Resource
from hami_testkit.cluster.status import Json

_VERBS = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]
_VERSION = {
    "major": "1", "minor": "34", "gitVersion": "v1.34.2", "gitCommit": "", "gitTreeState": "clean",
    "buildDate": "2025-11-11T00:00:00Z", "goVersion": "", "compiler": "", "platform": "linux/amd64",
}  # fmt: skip


_REVIEWS = "authorization.k8s.io"


def pages() -> dict[str, Json]:
    """Return every discovery page by its path."""
    roots = {resource.root: resource for resource in RESOURCES}
    groups = {resource.group: resource for resource in RESOURCES if resource.group}
    groups[_REVIEWS] = Resource("", "", group=_REVIEWS)
    return {
        "/version": _VERSION,
        "/api": {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []},
        "/apis": {"kind": "APIGroupList", "apiVersion": "v1", "groups": [_group(r) for r in groups.values()]},
        **openapi.pages(_VERSION),
        **{root: _resource_list(resource) for root, resource in roots.items()},
        reviews.ROOT: _review_list(),
        **{f"/apis/{name}": {"kind": "APIGroup", "apiVersion": "v1", **_group(r)} for name, r in groups.items()},
    }


def _group(resource: Resource) -> Json:
    version = {"groupVersion": resource.api_version, "version": resource.version}
    return {"name": resource.group, "versions": [version], "preferredVersion": version}


def _review_list() -> Json:
    rows = [
        {"name": name, "singularName": kind.lower(), "namespaced": False, "kind": kind, "verbs": ["create"]}
        for name, kind in reviews.KINDS.items()
    ]
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": f"{_REVIEWS}/v1", "resources": rows}


def _resource_list(first: Resource) -> Json:
    rows: list[Json] = []
    for resource in RESOURCES:
        if resource.root != first.root:
            continue
        row = {"name": resource.name, "singularName": resource.kind.lower(), "namespaced": resource.namespaced,
               "kind": resource.kind, "verbs": _VERBS}  # fmt: skip
        words = {"shortNames": list(resource.short), "categories": list(resource.categories)}
        rows.append(row | {field: listed for field, listed in words.items() if listed})
        for sub in resource.subresources:
            kind = "Binding" if sub == "binding" else resource.kind
            named = {"name": f"{resource.name}/{sub}", "singularName": "", "kind": kind}
            rows.append({**named, "namespaced": resource.namespaced, "verbs": sorted(SUBRESOURCES[sub].values())})
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": first.api_version, "resources": rows}
