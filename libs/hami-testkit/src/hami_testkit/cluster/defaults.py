"""What the API server fills in: defaults at creation, quantities in one spelling, a first status.

One rule: filling twice changes nothing; what may not be is the business of ``rules``.
"""

from __future__ import annotations

from hami_testkit.cluster import quantities
from hami_testkit.cluster.resources import NAMESPACES, NODES, PODS, QUOTAS, SECRETS, Resource
from hami_testkit.cluster.status import Json

_POD_DEFAULTS = {
    "restartPolicy": "Always", "terminationGracePeriodSeconds": 30, "dnsPolicy": "ClusterFirst",
    "schedulerName": "default-scheduler", "enableServiceLinks": True, "preemptionPolicy": "PreemptLowerPriority",
    "priority": 0,
}  # fmt: skip


def fill(resource: Resource, obj: Json) -> None:
    """Give the object what the API server fills in: defaults, and every quantity in its canonical spelling."""
    if resource == PODS:
        _fill_pod(obj)
    elif resource == NODES:
        status = _part(obj, "status")
        _spell(status, "capacity", "allocatable")
        if "capacity" in status:
            status.setdefault("allocatable", dict(status["capacity"]))
        _part(obj, "spec")
    elif resource == QUOTAS:
        _spell(_part(obj, "spec"), "hard")
        _spell(_part(obj, "status"), "hard", "used")
    elif resource == SECRETS:
        obj["type"] = obj.get("type") or "Opaque"
    elif resource == NAMESPACES:
        _part(obj["metadata"], "labels")["kubernetes.io/metadata.name"] = obj["metadata"]["name"]
        _part(obj, "spec").setdefault("finalizers", ["kubernetes"])


def _fill_pod(obj: Json) -> None:
    spec = _part(obj, "spec")
    for key, value in _POD_DEFAULTS.items():
        if spec.get(key) is None:
            spec[key] = value
    _part(spec, "securityContext")
    for container in containers(obj):
        container.setdefault("imagePullPolicy", "IfNotPresent")
        container.setdefault("terminationMessagePath", "/dev/termination-log")
        container.setdefault("terminationMessagePolicy", "File")
        resources = _part(container, "resources")
        _spell(resources, "limits", "requests")
        if resources.get("limits"):
            resources["requests"] = {**resources["limits"], **(resources.get("requests") or {})}


def _part(holder: Json, field: str) -> Json:
    """Return an object inside another, made where it is absent or null."""
    holder[field] = holder.get(field) or {}
    part: Json = holder[field]
    return part


def _spell(holder: Json, *fields: str) -> None:
    for field in fields:
        if holder.get(field):
            holder[field] = {name: quantities.canonical(amount) for name, amount in holder[field].items()}


def containers(pod: Json) -> list[Json]:
    """Return the init containers and the containers of a pod."""
    spec = pod.get("spec") or {}
    return [*(spec.get("initContainers") or []), *(spec.get("containers") or [])]


def names_resource(pod: Json, names: frozenset[str]) -> bool:
    """Say whether a container or init container of the pod asks for one of the resources, in requests or limits."""
    parts = [part for c in containers(pod) for part in (c.get("resources") or {}).values() if isinstance(part, dict)]
    return any(not names.isdisjoint(part) for part in parts)


def first_status(resource: Resource, obj: Json) -> None:
    """Set the status that a new object starts with; whatever the creator wrote there is dropped for pods."""
    if resource == PODS:
        obj["status"] = {"phase": "Pending", "qosClass": _quality(obj)}
    elif resource == NAMESPACES:
        obj["status"] = {"phase": "Active"}


def next_status(resource: Resource, old: Json, status: Json) -> Json:
    """Return the status as a writer means it: a pod's class of service stays."""
    return {"qosClass": old["status"]["qosClass"], **status} if resource == PODS else status


def _quality(pod: Json) -> str:
    main = frozenset({"cpu", "memory"})
    if not names_resource(pod, main):
        return "BestEffort"
    asked = [c["resources"] for c in containers(pod)]
    full = all(main <= set(r.get("limits") or {}) for r in asked)
    return (
        "Guaranteed" if full and all(r["requests"][n] == r["limits"][n] for r in asked for n in main) else "Burstable"
    )
