"""Writing objects as the API server does: create, replace, patch, delete, bind.

One rule: between reading the present state and writing the next one nothing else runs, so each write is one step.
Only webhooks are waited for, and before that step.
"""

from __future__ import annotations

import secrets
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from hami_testkit.cluster import defaults, rules, shapes
from hami_testkit.cluster.admission import Webhooks
from hami_testkit.cluster.objects import Key, Stored, freeze, thaw
from hami_testkit.cluster.resources import BINDINGS, NAMESPACES, PODS, RESOURCES, Resource
from hami_testkit.cluster.status import (
    ApiError,
    Json,
    already_exists,
    bad_request,
    conflict,
    invalid,
    not_found,
    qualified,
)
from hami_testkit.cluster.store import Store

MODIFIED = "the object has been modified; please apply your changes to the latest version and try again"
TIME_FORMAT = "%Y-%m-%dT%H:%M:%SZ"
_FIXED = (
    "name", "namespace", "uid", "resourceVersion", "creationTimestamp", "generateName", "deletionTimestamp",
    "deletionGracePeriodSeconds",
)  # fmt: skip


def now(*, ahead: float = 0) -> str:
    """Return the present moment as Kubernetes writes it."""
    return (datetime.now(UTC) + timedelta(seconds=ahead)).strftime(TIME_FORMAT)


class Registry:
    """The store with the API server's manners."""

    def __init__(self, store: Store, webhooks: Webhooks) -> None:
        self.store = store
        self._webhooks = webhooks

    def get(self, resource: Resource, key: Key) -> Stored:
        """Return one object; one that is not there is refused with 404."""
        stored = self.store.get(resource, key)
        if stored is None:
            raise not_found(resource, key[1])
        return stored

    async def create(
        self, resource: Resource, obj: Json, *, namespace: str = "", dry_run: bool = False
    ) -> tuple[Stored, list[str]]:
        """Create an object: defaults, webhooks, checks, then the write. Return it with warnings."""
        shapes.check_object(resource, obj)
        _fit_url(resource, obj, namespace)
        defaults.fill(resource, obj)
        obj, warnings = await self._webhooks.admit(resource, obj, dry_run=dry_run)
        shapes.check_object(resource, obj, code=500)
        _begin(obj["metadata"])
        defaults.fill(resource, obj)
        defaults.first_status(resource, obj)
        rules.check(resource, obj)
        name = obj["metadata"]["name"]
        if self.store.get(resource, (namespace, name)):
            raise already_exists(resource, name)
        if not dry_run and resource.namespaced:
            self.ensure_namespace(namespace)
        return self._write(resource, obj, dry_run=dry_run), warnings

    def ensure_namespace(self, name: str) -> None:
        """Make the namespace if it is missing: the stand-in asks nobody to make one first."""
        if self.store.get(NAMESPACES, ("", name)) is None:
            obj: Json = {"metadata": {"name": name}}
            defaults.fill(NAMESPACES, obj)
            defaults.first_status(NAMESPACES, obj)
            _begin(obj["metadata"])
            self.store.put(NAMESPACES, obj)

    def update(self, resource: Resource, key: Key, obj: Json, *, status: bool = False, dry_run: bool = False) -> Stored:
        """Replace an object, or only its status; what did not change gets no new revision."""
        shapes.check_object(resource, obj)
        meta, found = obj.get("metadata") or {}, self.get(resource, key).object["metadata"]
        if resource.needs_revision and not meta.get("resourceVersion"):
            fault = "metadata.resourceVersion: Invalid value: 0: must be specified for an update"
            raise invalid(resource, key[1], [fault])
        if meta.get("uid") not in (None, "", found["uid"]):
            where = f"/registry/{resource.name}/{'/'.join(filter(None, key))}"
            text = f"StorageError: invalid object, Code: 4, Key: {where}, ResourceVersion: 0, AdditionalErrorMsg: "
            raise conflict(qualified(resource), key[1], text + _differs("UID", meta["uid"], found["uid"]))
        return self._change(resource, key, lambda _: obj, status=status, dry_run=dry_run)

    def patch(
        self, resource: Resource, key: Key, change: Callable[[Json], Json], *, status: bool = False, dry_run: bool
    ) -> Stored:
        """Replace an object, or only its status, by what ``change`` makes of a copy."""

        def changed(obj: Json) -> Json:
            obj = change(obj)
            shapes.check_object(resource, obj, code=422)
            return obj

        return self._change(resource, key, changed, status=status, dry_run=dry_run)

    def _change(
        self, resource: Resource, key: Key, change: Callable[[Json], Json], *, status: bool, dry_run: bool
    ) -> Stored:
        stored = self.get(resource, key)
        old = stored.object
        new = {**change(thaw(stored))}
        meta = _keep_identity(resource, old["metadata"], new.get("metadata") or {})
        if status:
            new = {**thaw(stored), "status": defaults.next_status(resource, old, new.get("status") or {})}
        elif "status" in resource.subresources:
            new["status"] = old.get("status", {})
        new = {key: value for key, value in new.items() if key not in ("kind", "apiVersion")} | {"metadata": meta}
        defaults.fill(resource, new)
        rules.check(resource, new, old=old)
        if meta.get("deletionTimestamp") and not meta.get("finalizers") and not meta.get("deletionGracePeriodSeconds"):
            return stored if dry_run else self._remove(resource, key)
        return stored if new == old else self._write(resource, new, dry_run=dry_run)

    def delete(self, resource: Resource, key: Key, options: Json, *, dry_run: bool = False) -> Stored:
        """Delete an object; a pod on a node is only marked, and its kubelet takes it away with grace 0."""
        stored = self.get(resource, key)
        _delete_precondition(resource, stored.object["metadata"], options.get("preconditions") or {})
        if dry_run:
            return stored
        finalizers = stored.object["metadata"].get("finalizers")
        if resource == PODS or finalizers:
            grace = _grace(resource, stored.object, options.get("gracePeriodSeconds"))
            stored = self._mark(resource, stored, grace)
            if grace or finalizers:
                return stored
        return self._remove(resource, key)

    def _mark(self, resource: Resource, stored: Stored, grace: int) -> Stored:
        """Write when the object is to be gone; a later deletion can only bring that moment nearer."""
        obj = thaw(stored)
        meta = obj["metadata"]
        before = meta.get("deletionGracePeriodSeconds")
        if before is None:
            meta["deletionTimestamp"] = now(ahead=grace)
        elif grace < before:
            asked = datetime.fromisoformat(meta["deletionTimestamp"]) - timedelta(seconds=before - grace)
            meta["deletionTimestamp"] = asked.strftime(TIME_FORMAT)
        else:
            return stored
        meta["deletionGracePeriodSeconds"] = grace
        return self.store.put(resource, obj)

    def bind(self, namespace: str, name: str, binding: Json, *, dry_run: bool = False) -> None:
        """Put a pod on a node, and its binding's annotations with it in the same write."""
        shapes.check_object(BINDINGS, binding)
        meta, target = binding.get("metadata") or {}, binding.get("target") or {}
        if meta.get("name") != name:
            raise bad_request("name in URL does not match name in Binding object")
        if target.get("kind") not in (None, "", "Node"):
            text = f'target.kind: Unsupported value: "{target["kind"]}": supported values: "Node", "<empty>"'
            raise ApiError(500, text)
        if not target.get("name"):
            raise ApiError(500, "target.name: Required value")
        stored = self.get(PODS, (namespace, name))
        _refuse_bind(stored.object, name, meta)
        obj = thaw(stored)
        obj["spec"]["nodeName"] = target["name"]
        if meta.get("annotations"):
            obj["metadata"]["annotations"] = {**(obj["metadata"].get("annotations") or {}), **meta["annotations"]}
        scheduled = {"type": "PodScheduled", "status": "True", "lastProbeTime": None, "lastTransitionTime": now()}
        others = [c for c in obj["status"].get("conditions") or [] if c.get("type") != "PodScheduled"]
        obj["status"]["conditions"] = [*others, scheduled]
        if not dry_run:
            self.store.put(PODS, obj)

    def _write(self, resource: Resource, obj: Json, *, dry_run: bool) -> Stored:
        return freeze(obj, self.store.revision) if dry_run else self.store.put(resource, obj)

    def _remove(self, resource: Resource, key: Key) -> Stored:
        if resource == NAMESPACES:
            for kind in RESOURCES:
                for inner in [inner for inner in self.store.of(kind).objects if inner[0] == key[1]]:
                    self.store.remove(kind, inner)
        return self.store.remove(resource, key)


def _fit_url(resource: Resource, obj: Json, namespace: str) -> None:
    meta = obj["metadata"] = obj.get("metadata") or {}
    if resource.namespaced:
        meta["namespace"] = meta.get("namespace") or namespace
        if meta["namespace"] != namespace:
            raise bad_request("the namespace of the provided object does not match the namespace sent on the request")
    else:
        meta.pop("namespace", None)
    if meta.get("resourceVersion"):
        raise bad_request("resourceVersion should not be set on objects to be created")
    if not meta.get("name") and not meta.get("generateName"):
        text = "metadata.name: Required value: name or generateName is required"
        raise invalid(resource, "", [text])


def _begin(meta: Json) -> None:
    if not meta.get("name"):
        meta["name"] = meta["generateName"] + secrets.token_hex(3)[:5]
    meta["uid"] = str(uuid.uuid4())
    meta["creationTimestamp"] = now()
    for field in ("deletionTimestamp", "deletionGracePeriodSeconds", "selfLink"):
        meta.pop(field, None)


def _keep_identity(resource: Resource, old: Json, new: Json) -> Json:
    name = old["name"]
    if not new.get("name"):
        raise bad_request(f"the name of the object ({name} based on URL) was undeterminable: name must be provided")
    if new["name"] != name:
        raise bad_request(f"the name of the object ({new['name']}) does not match the name on the URL ({name})")
    if new.get("uid") not in (None, "", old["uid"]):
        raise invalid(resource, name, [f'metadata.uid: Invalid value: "{new["uid"]}": field is immutable'])
    if new.get("resourceVersion") not in (None, "", old["resourceVersion"]):
        raise conflict(qualified(resource), name, MODIFIED)
    return {key: value for key, value in new.items() if key not in _FIXED} | {k: old[k] for k in _FIXED if k in old}


def _differs(what: str, wanted: str, found: str) -> str:
    return f"Precondition failed: {what} in precondition: {wanted}, {what} in object meta: {found}"


def _delete_precondition(resource: Resource, meta: Json, wanted: Json) -> None:
    for field, what, fate in (
        ("uid", "UID", "might have been deleted and then recreated"),
        ("resourceVersion", "ResourceVersion", "might have been modified"),
    ):
        if wanted.get(field) and wanted[field] != meta[field]:
            why = f"the {what} in the precondition ({wanted[field]}) does not match the {what} in record"
            raise conflict(resource.kind, meta["name"], f"{why} ({meta[field]}). The object {fate}")


def _refuse_bind(pod: Json, name: str, wanted: Json) -> None:
    meta, spec = pod["metadata"], pod["spec"]
    for field, what in (("uid", "UID"), ("resourceVersion", "ResourceVersion")):
        if wanted.get(field) and wanted[field] != meta[field]:
            raise conflict("pods", name, _differs(what, wanted[field], meta[field]))
    if meta.get("deletionTimestamp"):
        raise conflict("pods/binding", name, f"pod {name} is being deleted, cannot be assigned to a host")
    if spec.get("nodeName"):
        raise conflict("pods/binding", name, f'pod {name} is already assigned to node "{spec["nodeName"]}"')
    if spec.get("schedulingGates"):
        raise conflict("pods/binding", name, f"pod {name} has non-empty .spec.schedulingGates")


def _grace(resource: Resource, obj: Json, asked: int | None) -> int:
    if resource != PODS or not obj["spec"].get("nodeName"):
        return 0
    if obj["status"].get("phase") in ("Succeeded", "Failed"):
        return 0
    return int(obj["spec"].get("terminationGracePeriodSeconds", 30) if asked is None else asked)
