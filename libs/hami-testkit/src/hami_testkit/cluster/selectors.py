"""Label and field selectors: which objects a list or a watch is about.

One rule: a selection is a pure question to one object; what cannot be read is refused with 400.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from hami_testkit.cluster.resources import Resource
from hami_testkit.cluster.status import Json, bad_request

_KEY = r"(?P<key>[A-Za-z0-9][-A-Za-z0-9_./]*)"
_TERM = re.compile(
    rf"\s*(?P<absent>!?)\s*{_KEY}\s*(?:(?P<equals>==?|!=)\s*(?P<value>[-A-Za-z0-9_.]*)"
    r"|\s(?P<among>in|notin)\s*\((?P<values>[-A-Za-z0-9_.,\s]*)\))?\s*"
)
_COMMA = re.compile(r",(?![^(]*\))")

Test = Callable[[Mapping[str, str]], bool]


class Selection:
    """The objects of one resource that a reader asked for."""

    def __init__(self, resource: Resource, *, namespace: str = "", labels: str = "", fields: str = "") -> None:
        self.namespace = namespace
        self._labels = tuple(_label_test(term) for term in _COMMA.split(labels) if labels.strip())
        self._fields = tuple(_field_term(resource, term) for term in fields.split(",") if term.strip())

    def holds(self, obj: Json) -> bool:
        """Say whether the object is one of those asked for."""
        meta = obj["metadata"]
        if self.namespace and meta.get("namespace") != self.namespace:
            return False
        if any((_field(obj, path) == value) is not wanted for path, wanted, value in self._fields):
            return False
        return not self._labels or has_labels(meta.get("labels") or {}, self._labels)


def _field(obj: Json, path: str) -> str:
    """Return a field as selectors compare it: text, empty where it is absent."""
    value: object = obj
    for step in path.split("."):
        value = value.get(step) if isinstance(value, dict) else None
    if isinstance(value, dict):  # `source` of an event stands for the component that wrote it
        value = value.get("component")
    if value is None and path in ("spec.unschedulable", "spec.hostNetwork"):
        return "false"
    return str(value).lower() if isinstance(value, bool) else str(value or "")


def has_labels(labels: Mapping[str, str], tests: tuple[Test, ...]) -> bool:
    """Say whether the labels pass every test."""
    return all(test(labels) for test in tests)


def label_selector(selector: Json | None) -> tuple[Test, ...]:
    """Return the tests of a ``LabelSelector`` object (``matchLabels``, ``matchExpressions``)."""
    found = selector or {}
    tests = [_expression(key, "In", [value]) for key, value in (found.get("matchLabels") or {}).items()]
    rules = found.get("matchExpressions") or []
    return (*tests, *(_expression(rule["key"], rule["operator"], rule.get("values") or []) for rule in rules))


def _expression(key: str, operator: str, values: list[str]) -> Test:
    match operator:
        case "In":
            return lambda labels: labels.get(key) in values
        case "NotIn":
            return lambda labels: labels.get(key) not in values
        case "Exists":
            return lambda labels: key in labels
        case "DoesNotExist":
            return lambda labels: key not in labels
    raise bad_request(f"{operator!r} is not a valid label selector operator")


def _label_test(term: str) -> Test:
    found = _TERM.fullmatch(term)
    if found is None or (found["absent"] and (found["equals"] or found["among"])):
        raise bad_request(f"unable to parse requirement: {term!r} is no label selector")
    if found["among"]:
        listed = [value.strip() for value in found["values"].split(",")]
        return _expression(found["key"], "In" if found["among"] == "in" else "NotIn", listed)
    if found["equals"]:
        return _expression(found["key"], "NotIn" if found["equals"] == "!=" else "In", [found["value"]])
    return _expression(found["key"], "DoesNotExist" if found["absent"] else "Exists", [])


def _field_term(resource: Resource, term: str) -> tuple[str, bool, str]:
    path, equals, value = term.strip().partition("=")
    if not equals:
        raise bad_request(f"invalid selector: '{term}'; can't understand '{term}'")
    wanted = not path.endswith("!")
    path = path.removesuffix("!").strip()
    if path not in ("metadata.name", "metadata.namespace", *resource.fields):
        raise bad_request(f"field label not supported: {path}")
    return path, wanted, value.removeprefix("=").strip()
