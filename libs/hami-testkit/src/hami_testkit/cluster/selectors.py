"""Label and field selectors: which objects a list or a watch is about.

One rule: a selection is a pure question to one object; what cannot be read is refused with 400.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from hami_testkit.cluster.resources import Resource
from hami_testkit.cluster.status import Json, bad_request

_TERM = re.compile(r"\s*([^\s,!=()]+)\s+(in|notin)\s*\(([^)]*)\)\s*|\s*([^,]+)\s*")
_INDEXED = ("spec.nodeName", "metadata.name")

Test = Callable[[Mapping[str, str]], bool]


class Selection:
    """The objects of one resource that a reader asked for."""

    def __init__(self, resource: Resource, *, namespace: str = "", labels: str = "", fields: str = "") -> None:
        self.namespace = namespace
        self._labels = tuple(_label_tests(labels))
        self._fields = tuple(_field_terms(resource, fields))

    @property
    def index(self) -> tuple[str, str] | None:
        """Return a field and the one value that it must have, if there is such, to find the watchers of an event."""
        exact = {path: value for path, wanted, value in self._fields if wanted}
        return next(((path, exact[path]) for path in _INDEXED if path in exact), None)

    def holds(self, obj: Json) -> bool:
        """Say whether the object is one of those asked for."""
        meta = obj["metadata"]
        if self.namespace and meta.get("namespace") != self.namespace:
            return False
        if any((field(obj, path) == value) is not wanted for path, wanted, value in self._fields):
            return False
        return not self._labels or has_labels(meta.get("labels") or {}, self._labels)


def field(obj: Json, path: str) -> str:
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


def _label_tests(text: str) -> list[Test]:
    tests = []
    for match in _TERM.finditer(text):
        key, operator, values, term = match.groups()
        if key:
            listed = [value.strip() for value in values.split(",")]
            tests.append(_expression(key, "In" if operator == "in" else "NotIn", listed))
        elif term and term.strip():
            tests.append(_label_term(term.strip()))
    return tests


def _label_term(term: str) -> Test:
    if "!=" in term:
        key, _, value = term.partition("!=")
        return _expression(key.strip(), "NotIn", [value.strip()])
    if "=" in term:
        key, _, value = term.partition("=")
        return _expression(key.strip(), "In", [value.lstrip("=").strip()])
    return _expression(term.lstrip("!").strip(), "DoesNotExist" if term.startswith("!") else "Exists", [])


def _field_terms(resource: Resource, text: str) -> list[tuple[str, bool, str]]:
    terms = []
    for term in filter(None, (part.strip() for part in text.split(","))):
        path, equals, value = term.partition("=")
        if not equals:
            raise bad_request(f'invalid selector: "{text}"; can\'t understand "{term}"')
        wanted = not path.endswith("!")
        path = path.removesuffix("!").strip()
        if path not in ("metadata.name", "metadata.namespace", *resource.fields):
            raise bad_request(f"field label not supported: {path}")
        terms.append((path, wanted, value.removeprefix("=").strip()))
    return terms
