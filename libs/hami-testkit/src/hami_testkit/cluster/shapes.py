"""What objects are made of, as far as a wrong type could trip whoever reads them later.

One rule: types are checked at the door, before anything else looks at the object; what they may hold say the ``rules``.
Null is as good as absent, and fields that are not named here may hold anything.
"""

from __future__ import annotations

from typing import Any

import msgspec

from hami_testkit.cluster.resources import BINDINGS, EVENTS, NODES, PODS, QUOTAS, WEBHOOKS, Resource
from hami_testkit.cluster.status import ApiError, Json

_AMOUNTS = dict[str, str | int | float]
_TEXTS = dict[str, str]
_OBJECTS = list[dict[str, Any]]


def _shape(**fields: Any) -> Any:
    return msgspec.defstruct("Shape", [(name, kind | None, None) for name, kind in fields.items()])


def _list(item: Any) -> Any:
    return list[item]


_HEAD = {"kind": str, "apiVersion": str, "spec": dict[str, Any], "status": dict[str, Any]} | {
    "metadata": _shape(
        name=str, generateName=str, namespace=str, uid=str, resourceVersion=str, labels=_TEXTS, annotations=_TEXTS,
        finalizers=list[str],
    )
}  # fmt: skip
_CONTAINER = _shape(name=str, image=str, env=_OBJECTS, resources=_shape(limits=_AMOUNTS, requests=_AMOUNTS))
_POD = _shape(
    containers=_list(_CONTAINER), initContainers=_list(_CONTAINER), nodeName=str, schedulerName=str,
    nodeSelector=_TEXTS, tolerations=_OBJECTS, schedulingGates=_OBJECTS, terminationGracePeriodSeconds=int,
)  # fmt: skip
_POD_STATUS = _shape(phase=str, conditions=_OBJECTS, initContainerStatuses=_OBJECTS, containerStatuses=_OBJECTS)
_LIMITS = _shape(hard=_AMOUNTS, used=_AMOUNTS)
_REFERENCE = _shape(kind=str, namespace=str, name=str)
_RULE = _shape(operations=list[str], apiGroups=list[str], apiVersions=list[str], resources=list[str], scope=str)
_WEBHOOK = _shape(
    name=str, clientConfig=_shape(url=str, caBundle=str, service=_shape(namespace=str, name=str, path=str, port=int)),
    rules=_list(_RULE), failurePolicy=str, timeoutSeconds=int,
    matchConditions=_list(_shape(name=str, expression=str)), namespaceSelector=dict[str, Any],
    objectSelector=dict[str, Any],
)  # fmt: skip

_OBJECT = _shape(**_HEAD)
_SHAPES = {
    PODS: _shape(**_HEAD | {"spec": _POD, "status": _POD_STATUS}),
    NODES: _shape(**_HEAD | {"status": _shape(capacity=_AMOUNTS, allocatable=_AMOUNTS, conditions=_OBJECTS)}),
    QUOTAS: _shape(**_HEAD | {"spec": _LIMITS, "status": _LIMITS}),
    EVENTS: _shape(**_HEAD, involvedObject=_REFERENCE),
    BINDINGS: _shape(**_HEAD, target=_REFERENCE),
    WEBHOOKS: _shape(**_HEAD, webhooks=_list(_WEBHOOK)),
}
_DELETE_OPTIONS = _shape(gracePeriodSeconds=int, preconditions=_shape(uid=str, resourceVersion=str), dryRun=list[str])


def check_object(resource: Resource, obj: Json, *, code: int = 400) -> None:
    """Refuse an object that is of another kind, or holds a value of a type that its kind cannot have there."""
    kind, version = obj.get("kind") or resource.kind, obj.get("apiVersion") or resource.api_version
    fault = _fault(obj, _SHAPES.get(resource, _OBJECT))
    if fault or (kind, version) != (resource.kind, resource.api_version):
        text = f'{kind} in version "{version}" cannot be handled as a {resource.kind}'
        raise ApiError(code, f"{text}: {fault}" if fault else text)


def check_delete_options(options: Json) -> None:
    """Refuse options of a deletion that cannot be read."""
    if fault := _fault(options, _DELETE_OPTIONS):
        raise ApiError(400, f"the options of the deletion cannot be read: {fault}")


def _fault(obj: Json, shape: Any) -> str:
    try:
        msgspec.convert(obj, shape)
    except msgspec.ValidationError as error:
        return str(error)
    return ""
