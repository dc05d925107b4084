"""Access reviews: whether somebody may do something.

One rule: the stand-in has no authorization, so everybody may do everything, except what a test forbade for the reviews
alone. A review is answered and not stored.
"""

from __future__ import annotations

from hami_testkit.cluster.status import ApiError, Json

ROOT = "/apis/authorization.k8s.io/v1"
KINDS = {
    "selfsubjectaccessreviews": "SelfSubjectAccessReview",
    "subjectaccessreviews": "SubjectAccessReview",
}


class Reviews:
    """Answers access reviews. ``forbidden``: (user, verb, resource) that nobody has; the user is empty for oneself."""

    def __init__(self) -> None:
        self.forbidden: set[tuple[str, str, str]] = set()

    def answer(self, kind: str, review: Json) -> Json:
        """Return the review with its verdict."""
        spec = review.get("spec") or {}
        wanted, other = spec.get("resourceAttributes"), spec.get("nonResourceAttributes")
        if bool(wanted) == bool(other):
            text = "exactly one of nonResourceAttributes or resourceAttributes must be specified"
            raise _invalid(kind, f"spec.resourceAttributes: Invalid value: {text}")
        if kind == "SubjectAccessReview" and not spec.get("user") and not spec.get("groups"):
            raise _invalid(kind, "spec.user: Invalid value: at least one of user or group must be specified")
        return {**review, "status": {"allowed": not self._is_forbidden(spec.get("user", ""), wanted or {})}}

    def _is_forbidden(self, user: str, wanted: Json) -> bool:
        what = "/".join(filter(None, (wanted.get("resource"), wanted.get("subresource"))))
        return (user, wanted.get("verb", ""), what) in self.forbidden


def _invalid(kind: str, fault: str) -> ApiError:
    return ApiError(422, f'{kind}.authorization.k8s.io "" is invalid: {fault}')
