"""The errors of the API server, as values: each becomes one ``Status`` object with Kubernetes' own words.

One rule: whoever refuses raises an ``ApiError`` made here; only the HTTP layer turns it into an answer.
"""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]

REASONS = {
    400: "BadRequest",
    403: "Forbidden",
    404: "NotFound",
    405: "MethodNotAllowed",
    409: "Conflict",
    410: "Expired",
    415: "UnsupportedMediaType",
    422: "Invalid",
    429: "TooManyRequests",
    500: "InternalError",
    503: "ServiceUnavailable",
    504: "Timeout",
}


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
        status = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
            "code": self.code,
        }
        return {**status, "details": self.details} if self.details else status


def bad_request(message: str) -> ApiError:
    """Say that the request itself cannot be read."""
    return ApiError(400, message)


def not_found(resource: str, name: str, *, group: str = "") -> ApiError:
    """Say that there is no such object."""
    where = f"{resource}.{group}" if group else resource
    return ApiError(404, f'{where} "{name}" not found', details={"name": name, "kind": resource})


def already_exists(resource: str, name: str) -> ApiError:
    """Say that the name is taken."""
    details = {"name": name, "kind": resource}
    return ApiError(409, f'{resource} "{name}" already exists', reason="AlreadyExists", details=details)


def conflict(resource: str, name: str, why: str) -> ApiError:
    """Say that the object is not as the writer believed."""
    text = f'Operation cannot be fulfilled on {resource} "{name}": {why}'
    return ApiError(409, text, details={"name": name, "kind": resource})


def invalid(kind: str, name: str, faults: list[str]) -> ApiError:
    """Say which fields of the object are wrong, all of them at once."""
    listed = faults[0] if len(faults) == 1 else f"[{', '.join(faults)}]"
    causes = [{"reason": "FieldValueInvalid", "message": fault, "field": fault.partition(":")[0]} for fault in faults]
    details = {"name": name, "kind": kind, "causes": causes}
    return ApiError(422, f'{kind} "{name}" is invalid: {listed}', details=details)


def expired(message: str) -> ApiError:
    """Say that a revision or a continue token is too old."""
    return ApiError(410, message)


def success(code: int = 200, *, details: Json | None = None) -> Json:
    """Return the ``Status`` object of an accepted request."""
    status: Json = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}
    if details:
        status["details"] = details
    return {**status, "code": code} if code != 200 else status
