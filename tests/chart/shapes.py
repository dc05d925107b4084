"""Whether an object has the fields that Kubernetes knows, by the client library's types.

One rule: it knows no kind by itself; what the library does not know (custom resources) is left to the real API server.
"""

import re
from collections.abc import Iterator
from typing import Any

from kubernetes_asyncio.client import models


def faults(found: dict[str, Any]) -> Iterator[str]:
    """Yield every field that the object's kind does not have, and every one that it must have and lacks."""
    yield from _faults(found, _model(found), f"{found['kind']} {found['metadata']['name']}")


def is_known(found: dict[str, Any]) -> bool:
    """Say whether the library has the object's kind."""
    return hasattr(models, _model(found))


def _model(found: dict[str, Any]) -> str:
    version = found["apiVersion"].rpartition("/")[2]
    return f"{version[0].upper()}{version[1:]}{found['kind']}"


def _faults(value: Any, kind: str, where: str) -> Iterator[str]:
    if listed := re.fullmatch(r"list\[(.+)]", kind):
        if not isinstance(value, list):
            yield f"{where} is no list"
            return
        for at, item in enumerate(value):
            yield from _faults(item, listed[1], f"{where}[{at}]")
    elif mapped := re.fullmatch(r"dict\((\w+), (.+)\)", kind):
        for key, item in value.items():
            yield from _faults(item, mapped[2], f"{where}.{key}")
    elif model := getattr(models, kind, None):
        yield from _fields(value, model, where)
    elif kind in _PLAIN and not isinstance(value, _PLAIN[kind]):
        yield f"{where} is {value!r}, no {kind}"


_PLAIN: dict[str, type | tuple[type, ...]] = {"str": str, "int": int, "bool": bool, "float": (int, float)}


def _fields(value: Any, model: Any, where: str) -> Iterator[str]:
    if not isinstance(value, dict):
        yield f"{where} is no object"
        return
    kinds = {model.attribute_map[name]: kind for name, kind in model.openapi_types.items()}
    for field, item in value.items():
        if field not in kinds:
            yield f"{where} has no field {field}"
        elif item is None:
            yield f"{where}.{field} is empty"
        else:
            yield from _faults(item, kinds[field], f"{where}.{field}")
