"""The OpenAPI documents, told to clients that ask before they write: kubectl checks, merges and explains by them.

One rule: paths follow from the table of resources, schemas from what was recorded; nothing is described by hand.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import msgspec

from hami_testkit.cluster import patches, schemas
from hami_testkit.cluster.resources import BINDINGS, COLLECTION, OBJECT, RESOURCES, SUBRESOURCES, Resource
from hami_testkit.cluster.status import Json

INDEX = "/openapi/v3"
_WRITES = {"POST": ("application/json",), "PUT": ("application/json",), "PATCH": tuple(patches.KINDS)}
_OPTIONS = ("dryRun", "fieldManager", "fieldValidation")


def pages(version: Json) -> dict[str, Json]:
    """Return the index and one document for each group and version, by path."""
    documents = {root: _document(root, version["gitVersion"]) for root in sorted({r.root for r in RESOURCES})}
    listed = {root.removeprefix("/"): {"serverRelativeURL": _address(root, d)} for root, d in documents.items()}
    return {INDEX: {"paths": listed}, **{f"{INDEX}{root}": document for root, document in documents.items()}}


def _address(root: str, document: Json) -> str:
    """Return where a document is; its hash lets clients keep it."""
    return f"{INDEX}{root}?hash={hashlib.sha256(msgspec.json.encode(document)).hexdigest().upper()}"


def _document(root: str, version: str) -> Json:
    served = [resource for resource in RESOURCES if resource.root == root]
    return {
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": version},
        "paths": {path: item for resource in served for path, item in _paths(resource)},
        "components": {"schemas": schemas.needed(map(schemas.name_of, served))},
    }


def _paths(resource: Resource) -> Iterator[tuple[str, Json]]:
    inside = f"{resource.root}/{resource.name}"
    if resource.namespaced:
        inside = f"{resource.root}/namespaces/{{namespace}}/{resource.name}"
    if resource == BINDINGS:
        yield inside, _item(resource, {"POST": "create"})
        return
    yield inside, _item(resource, COLLECTION)
    yield f"{inside}/{{name}}", _item(resource, OBJECT)
    for sub in resource.subresources:
        yield f"{inside}/{{name}}/{sub}", _item(BINDINGS if sub == "binding" else resource, SUBRESOURCES[sub])


def _item(resource: Resource, verbs: dict[str, str]) -> Json:
    return {method.lower(): _operation(resource, method, verb) for method, verb in verbs.items()}


def _operation(resource: Resource, method: str, verb: str) -> Json:
    action = {"create": "post", "update": "put"}.get(verb, verb)
    operation: Json = {"x-kubernetes-action": action, schemas.KINDS: schemas.kind_of(resource)}
    schema = {"$ref": f"#/components/schemas/{schemas.name_of(resource)}"}
    operation["responses"] = {"200": {"description": "OK", "content": {"application/json": {"schema": schema}}}}
    if method in _WRITES:
        operation["parameters"] = [{"name": name, "in": "query", "schema": {"type": "string"}} for name in _OPTIONS]
        body = {"type": "object"} if method == "PATCH" else schema
        operation["requestBody"] = {"required": True, "content": {kind: {"schema": body} for kind in _WRITES[method]}}
    return operation
