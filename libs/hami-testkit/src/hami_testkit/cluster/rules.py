"""What may not be: values that the API server would not store, and changes that it would not make.

One rule: these are the API server's own checks that a device pod can meet; everything else is let through.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from hami_testkit.cluster import conditions, quantities
from hami_testkit.cluster.defaults import containers
from hami_testkit.cluster.resources import EVENTS, PODS, WEBHOOKS, Resource
from hami_testkit.cluster.status import Json, invalid

MOST_ANNOTATIONS = 256 * 1024
MOST_MILLI = 2**63 - 1
_LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_NAME = re.compile(rf"{_LABEL}(\.{_LABEL})*")
_KEY = re.compile(r"(?:[a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
_MAY_CHANGE = ("tolerations", "activeDeadlineSeconds", "terminationGracePeriodSeconds", "schedulingGates")
_CONTAINERS = ("initContainers", "containers")
_FIXED = (
    "spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`,"
    "`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to "
    "existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)"
)


def check(resource: Resource, obj: Json, *, old: Json | None = None) -> None:
    """Refuse an object that the API server would not store, or would not make of the old one, naming every fault."""
    faults = list(_metadata_faults(obj["metadata"]))
    if resource == PODS:
        faults += _pod_faults(obj["spec"])
        faults += [_FIXED] if old is not None and _fixed(old) != _fixed(obj) else []
    elif resource == EVENTS:
        faults += _event_faults(obj)
    elif resource == WEBHOOKS:
        faults += _webhook_faults(obj)
    if faults:
        raise invalid(resource, obj["metadata"]["name"], faults)


def _fixed(pod: Json) -> tuple[Json, list[Json]]:
    fixed = {key: value for key, value in pod["spec"].items() if key not in (*_MAY_CHANGE, *_CONTAINERS)}
    return fixed, [{key: value for key, value in c.items() if key != "image"} for c in containers(pod)]


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
