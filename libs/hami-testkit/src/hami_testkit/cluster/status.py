"""The errors of the API server, as values: each becomes one ``Status`` object with Kubernetes' own words.

One rule: whoever refuses raises an ``ApiError`` made here; only the HTTP layer turns it into an answer.
"""

from __future__ import annotations

from typing import Any

from hami_testkit.cluster.resources import Resource

Json = dict[str, Any]

REASONS = {
    400: "BadRequest", 403: "Forbidden", 404: "NotFound", 405: "MethodNotAllowed", 409: "Conflict", 410: "Expired",
    413: "RequestEntityTooLarge", 415: "UnsupportedMediaType", 422: "Invalid", 429: "TooManyRequests",
    500: "InternalError", 503: "ServiceUnavailable", 504: "Timeout",
}  # fmt: skip


class ApiError(Exception):
    """A refusal with its HTTP code, reason and sentence."""

    def __init__(self, code: int, message: str, *, reason: str = "", details: Json | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.reason = reason or REASONS.get(code, "")
        self.details = details

    def status(self) -> Json:
        """Return the ``Status`` object that the client gets."""
        said = {"status": "Failure", "message": self.message, "reason": self.reason, "code": self.code}
        return _status(**said, details=self.details)


def success(*, code: int | None = None, details: Json | None = None) -> Json:
    """Return the ``Status`` object of an accepted request."""
    return _status(status="Success", code=code, details=details)


def _status(**said: Any) -> Json:
    filled = {key: value for key, value in said.items() if value}
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, **filled}


def about(resource: Resource, name: str, **more: Any) -> Json:
    """Return the details that say which object a Status is about."""
    named = {"name": name, "group": resource.group, "kind": resource.name} | more
    return {key: value for key, value in named.items() if value}


def qualified(resource: Resource) -> str:
    """Return the name of a resource as sentences write it."""
    return f"{resource.name}.{resource.group}" if resource.group else resource.name


def bad_request(message: str) -> ApiError:
    """Say that the request itself cannot be read."""
    return ApiError(400, message)


def not_found(resource: Resource, name: str) -> ApiError:
    """Say that there is no such object."""
    return ApiError(404, f'{qualified(resource)} "{name}" not found', details=about(resource, name))


def already_exists(resource: Resource, name: str) -> ApiError:
    """Say that the name is taken."""
    text = f'{qualified(resource)} "{name}" already exists'
    return ApiError(409, text, reason="AlreadyExists", details=about(resource, name))


def conflict(what: str, name: str, why: str) -> ApiError:
    """Say that the object is not as the writer believed."""
    text = f'Operation cannot be fulfilled on {what} "{name}": {why}'
    return ApiError(409, text, details={"name": name, "kind": what})


def invalid(resource: Resource, name: str, faults: list[str]) -> ApiError:
    """Say which fields of the object are wrong, all of them at once, each as ``field: Invalid value: why``."""
    listed = faults[0] if len(faults) == 1 else f"[{', '.join(faults)}]"
    causes = []
    for fault in faults:
        field, _, why = fault.partition(": ")
        causes.append({"reason": f"FieldValue{why.split()[0].rstrip(':')}", "message": why, "field": field})
    details = about(resource, name, kind=resource.kind, causes=causes)
    kind = f"{resource.kind}.{resource.group}" if resource.group else resource.kind
    return ApiError(422, f'{kind} "{name}" is invalid: {listed}', details=details)


def expired(message: str) -> ApiError:
    """Say that a revision or a continue token is too old."""
    return ApiError(410, message)
