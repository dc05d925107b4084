"""What a kind of object must look like: defaults at creation, quantities in one spelling, what may not be.

One rule: these are the API server's own checks that a device pod can meet; everything else is let through.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from hami_testkit.cluster import conditions, quantities
from hami_testkit.cluster.resources import EVENTS, NAMESPACES, NODES, PODS, QUOTAS, WEBHOOKS, Resource
from hami_testkit.cluster.status import Json, invalid

MOST_ANNOTATIONS = 256 * 1024
MOST_MILLI = 2**63 - 1
_LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_NAME = re.compile(rf"{_LABEL}(\.{_LABEL})*")
_KEY = re.compile(r"(?:[a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
_POD_DEFAULTS = {
    "restartPolicy": "Always", "terminationGracePeriodSeconds": 30, "dnsPolicy": "ClusterFirst",
    "schedulerName": "default-scheduler", "enableServiceLinks": True, "preemptionPolicy": "PreemptLowerPriority",
    "priority": 0,
}  # fmt: skip
_MAY_CHANGE = ("tolerations", "activeDeadlineSeconds", "terminationGracePeriodSeconds", "schedulingGates")


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


def check(resource: Resource, obj: Json) -> None:
    """Refuse an object that the API server would not store, naming every fault."""
    faults = list(_metadata_faults(obj["metadata"]))
    if resource == PODS:
        faults += _pod_faults(obj["spec"])
    elif resource == EVENTS:
        faults += _event_faults(obj)
    elif resource == WEBHOOKS:
        faults += _webhook_faults(obj)
    if faults:
        raise invalid(resource, obj["metadata"]["name"], faults)


def check_change(resource: Resource, old: Json, new: Json) -> None:
    """Refuse a change of what may not change once the object exists."""
    if resource == PODS and _fixed(old) != _fixed(new):
        text = "spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`,"
        text += "`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to "
        text += "existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was "
        text += "previously negative)"
        raise invalid(PODS, new["metadata"]["name"], [text])


def _fixed(pod: Json) -> tuple[Json, list[Json]]:
    fixed = {key: value for key, value in pod["spec"].items() if key not in (*_MAY_CHANGE, *_CONTAINERS)}
    return fixed, [{key: value for key, value in c.items() if key != "image"} for c in containers(pod)]


_CONTAINERS = ("initContainers", "containers")


def _metadata_faults(meta: Json) -> Iterator[str]:
    if not _NAME.fullmatch(meta["name"]) or len(meta["name"]) > 253:
        text = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.'"
        yield f'metadata.name: Invalid value: "{meta["name"]}": {text}'
    annotations, labels = meta.get("annotations") or {}, meta.get("labels") or {}
    for key in annotations:
        if not _KEY.fullmatch(key.lower()):
            yield f'metadata.annotations: Invalid value: "{key}": name part must consist of alphanumeric characters'
    for key, value in labels.items():
        if not _KEY.fullmatch(key):
            yield f'metadata.labels: Invalid value: "{key}": name part must consist of alphanumeric characters'
        if not _VALUE.fullmatch(value):
            text = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.'"
            yield f'metadata.labels: Invalid value: "{value}": {text}'
    if sum(len(key) + len(value) for key, value in annotations.items()) > MOST_ANNOTATIONS:
        yield f"metadata.annotations: Too long: may not be more than {MOST_ANNOTATIONS} bytes"


def _pod_faults(spec: Json) -> Iterator[str]:
    if not spec.get("containers"):
        yield "spec.containers: Required value"
    taken: set[str] = set()
    for field in _CONTAINERS:
        for index, container in enumerate(spec.get(field) or []):
            path = f"spec.{field}[{index}]"
            yield from _name_faults(f"{path}.name", container.get("name"), taken)
            yield from _resource_faults(f"{path}.resources", container["resources"])


def _name_faults(path: str, name: str | None, taken: set[str]) -> Iterator[str]:
    if not name:
        yield f"{path}: Required value"
    elif not re.fullmatch(_LABEL, name) or len(name) > 63:
        text = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-'"
        yield f'{path}: Invalid value: "{name}": {text}'
    elif name in taken:
        yield f'{path}: Duplicate value: "{name}"'
    taken.add(name or "")


def _resource_faults(path: str, resources: Json) -> Iterator[str]:
    limits, requests = resources.get("limits") or {}, resources.get("requests") or {}
    for field, amounts in (("limits", limits), ("requests", requests)):
        for name, amount in amounts.items():
            parsed = quantities.parse(amount)
            if parsed < 0:
                yield f'{path}.{field}[{name}]: Invalid value: "{amount}": must be greater than or equal to 0'
            elif is_extended(name) and (parsed.denominator != 1 or parsed * 1000 > MOST_MILLI):
                yield f'{path}.{field}[{name}]: Invalid value: "{amount}": must be an integer'
    for name, amount in requests.items():
        yield from _request_faults(path, name, amount, limits.get(name))


def _request_faults(path: str, name: str, amount: Any, limit: Any) -> Iterator[str]:
    if limit is None:
        if is_extended(name):
            yield f"{path}.limits: Required value: Limit must be set for non overcommitable resources"
    elif is_extended(name) and quantities.parse(amount) != quantities.parse(limit):
        yield f'{path}.requests: Invalid value: "{amount}": must be equal to {name} limit of {limit}'
    elif quantities.parse(amount) > quantities.parse(limit):
        yield f'{path}.requests: Invalid value: "{amount}": must be less than or equal to {name} limit of {limit}'


def is_extended(name: str) -> bool:
    """Say whether this is a vendor's resource, which Kubernetes counts in whole numbers and never overcommits."""
    return "/" in name and not name.partition("/")[0].endswith("kubernetes.io") and not name.startswith("requests.")


def _event_faults(event: Json) -> Iterator[str]:
    named = (event.get("involvedObject") or {}).get("namespace") or ""
    if event["metadata"]["namespace"] not in ((named,) if named else ("default",)):
        yield f'involvedObject.namespace: Invalid value: "{named}": does not match event.namespace'


def _webhook_faults(configuration: Json) -> Iterator[str]:
    for index, webhook in enumerate(configuration.get("webhooks") or []):
        path = f"webhooks[{index}]"
        config = webhook.get("clientConfig") or {}
        if bool(config.get("url")) == bool(config.get("service")):
            yield f"{path}.clientConfig: Required value: exactly one of url or service is required"
        for number, condition in enumerate(webhook.get("matchConditions") or []):
            yield from conditions.faults(f"{path}.matchConditions[{number}].expression", condition)
