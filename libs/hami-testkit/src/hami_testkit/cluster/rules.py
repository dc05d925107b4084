"""What a kind of object must look like: defaults at creation, quantities in one spelling, what may not be.

One rule: these are the API server's own checks that a device pod can meet; everything else is let through.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from hami_testkit.cluster import quantities
from hami_testkit.cluster.resources import NAMESPACES, NODES, PODS, QUOTAS, Resource
from hami_testkit.cluster.status import Json, invalid

MOST_ANNOTATIONS = 256 * 1024
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_KEY = re.compile(r"(?:[a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_POD_DEFAULTS = {
    "restartPolicy": "Always", "terminationGracePeriodSeconds": 30, "dnsPolicy": "ClusterFirst",
    "schedulerName": "default-scheduler", "enableServiceLinks": True, "preemptionPolicy": "PreemptLowerPriority",
    "priority": 0,
}  # fmt: skip
_MAY_CHANGE = ("tolerations", "activeDeadlineSeconds", "terminationGracePeriodSeconds", "schedulingGates")


def fill(resource: Resource, obj: Json) -> None:
    """Give the object what the API server fills in: defaults, and every quantity in its canonical spelling."""
    if resource == PODS:
        _fill_pod(obj.setdefault("spec", {}))
    elif resource == NODES:
        status = obj.setdefault("status", {})
        for field in ("capacity", "allocatable"):
            _spell(status, field)
        if "capacity" in status:
            status.setdefault("allocatable", dict(status["capacity"]))
        obj.setdefault("spec", {})
    elif resource == QUOTAS:
        _spell(obj.setdefault("spec", {}), "hard")
    elif resource == NAMESPACES:
        obj["metadata"].setdefault("labels", {})["kubernetes.io/metadata.name"] = obj["metadata"]["name"]
        obj.setdefault("spec", {}).setdefault("finalizers", ["kubernetes"])


def _fill_pod(spec: Json) -> None:
    for key, value in _POD_DEFAULTS.items():
        spec.setdefault(key, value)
    spec.setdefault("securityContext", {})
    for container in _containers(spec):
        container.setdefault("imagePullPolicy", "IfNotPresent")
        container.setdefault("terminationMessagePath", "/dev/termination-log")
        container.setdefault("terminationMessagePolicy", "File")
        resources = container["resources"] = container.get("resources") or {}
        for field in ("limits", "requests"):
            _spell(resources, field)
        if resources.get("limits"):
            resources["requests"] = {**resources["limits"], **(resources.get("requests") or {})}


def _spell(holder: Json, field: str) -> None:
    if holder.get(field):
        holder[field] = {name: quantities.canonical(amount) for name, amount in holder[field].items()}


def _containers(spec: Json) -> Iterator[Json]:
    yield from spec.get("initContainers") or []
    yield from spec.get("containers") or []


def first_status(resource: Resource, obj: Json) -> None:
    """Set the status that a new object starts with; whatever the creator wrote there is dropped for pods."""
    if resource == PODS:
        obj["status"] = {"phase": "Pending", "qosClass": "BestEffort" if _asks_nothing(obj["spec"]) else "Burstable"}
    elif resource == NAMESPACES:
        obj["status"] = {"phase": "Active"}


def _asks_nothing(spec: Json) -> bool:
    asked = {name for c in _containers(spec) for part in c["resources"].values() for name in part or ()}
    return not asked & {"cpu", "memory"}


def check(resource: Resource, obj: Json) -> None:
    """Refuse an object that the API server would not store, naming every fault."""
    faults = list(_metadata_faults(obj["metadata"]))
    if resource == PODS:
        faults += _pod_faults(obj["spec"])
    if faults:
        raise invalid(resource.kind, obj["metadata"]["name"], faults)


def check_change(resource: Resource, old: Json, new: Json) -> None:
    """Refuse a change of what may not change once the object exists."""
    if resource == PODS and _fixed(old["spec"]) != _fixed(new["spec"]):
        text = "spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`,"
        text += "`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to "
        text += "existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was "
        text += "previously negative)"
        raise invalid("Pod", new["metadata"]["name"], [text])


def _fixed(spec: Json) -> Json:
    fixed = {key: value for key, value in spec.items() if key not in _MAY_CHANGE}
    for field in ("containers", "initContainers"):
        fixed[field] = [{k: v for k, v in c.items() if k != "image"} for c in spec.get(field) or []]
    return fixed


def _metadata_faults(meta: Json) -> Iterator[str]:
    if not _NAME.fullmatch(meta["name"]) or len(meta["name"]) > 253:
        text = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.'"
        yield f'metadata.name: Invalid value: "{meta["name"]}": {text}'
    annotations = meta.get("annotations") or {}
    for field, entries in (("annotations", annotations), ("labels", meta.get("labels") or {})):
        for key in entries:
            if not _KEY.fullmatch(key.lower() if field == "annotations" else key):
                yield f'metadata.{field}: Invalid value: "{key}": name part must consist of alphanumeric characters'
    for key, value in annotations.items():
        if not isinstance(value, str):
            yield f"metadata.annotations[{key}]: Invalid value: must be a string"
    if sum(len(key) + len(str(value)) for key, value in annotations.items()) > MOST_ANNOTATIONS:
        yield f"metadata.annotations: Too long: may not be more than {MOST_ANNOTATIONS} bytes"


def _pod_faults(spec: Json) -> Iterator[str]:
    if not spec.get("containers"):
        yield "spec.containers: Required value"
    for field in ("initContainers", "containers"):
        for index, container in enumerate(spec.get(field) or []):
            yield from _container_faults(f"spec.{field}[{index}]", container)


def _container_faults(path: str, container: Json) -> Iterator[str]:
    if not container.get("name"):
        yield f"{path}.name: Required value"
    limits: Json = container["resources"].get("limits") or {}
    requests: Json = container["resources"].get("requests") or {}
    for field, amounts in (("limits", limits), ("requests", requests)):
        for name, amount in amounts.items():
            if quantities.parse(amount) < 0:
                yield f'{path}.resources.{field}[{name}]: Invalid value: "{amount}": must be greater than or equal to 0'
            elif is_extended(name) and quantities.parse(amount).denominator != 1:
                yield f'{path}.resources.{field}[{name}]: Invalid value: "{amount}": must be an integer'
    for name, amount in requests.items():
        yield from _request_faults(f"{path}.resources", name, amount, limits.get(name))


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
