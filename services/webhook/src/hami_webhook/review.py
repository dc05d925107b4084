"""AdmissionReview in, AdmissionReview out: HAMi's wire form, byte for byte where clients look.

One rule: the HTTP status is always 200 and the outcome stands in ``response`` (HAMi v2.10). It translates; what is
admitted and why is decided in ``hami_model.admission``.
"""

import base64
from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import Struct, field

MAX_BODY = 7 * 1024 * 1024
"""Bytes, as HAMi's webhook library has it."""

VERSIONS = ("admission.k8s.io/v1", "admission.k8s.io/v1beta1")


class Kind(Struct, frozen=True):
    """What the request is about; a request that does not say so is about a pod."""

    group: str = ""
    kind: str = "Pod"


class Request(Struct, frozen=True, rename="camel"):
    """The part of ``request`` that we read; ``object`` stays raw, so that fields we do not know survive."""

    uid: str = ""
    kind: Kind = Kind()
    sub_resource: str = ""
    operation: str = "CREATE"
    namespace: str = ""
    object: msgspec.Raw = field(default_factory=lambda: msgspec.Raw(b"null"))


class Review(Struct, frozen=True, rename="camel"):
    """An AdmissionReview as the API server posts it."""

    api_version: str = ""
    kind: str = ""
    request: Request | None = None

    @property
    def uid(self) -> str:
        """Return the uid that the answer must echo."""
        return self.request.uid if self.request else ""

    @property
    def namespace(self) -> str:
        """Return the namespace of the request."""
        return self.request.namespace if self.request else ""

    @property
    def stranger(self) -> str:
        """Return what is asked about, in words, where that is not the creation of a pod."""
        asked = self.request or Request()
        if (asked.kind, asked.sub_resource, asked.operation) == (Kind(), "", "CREATE"):
            return ""
        return f"{asked.operation} of {asked.kind.kind}{'/' if asked.sub_resource else ''}{asked.sub_resource}"

    @property
    def object(self) -> bytes:
        """Return the object as it was sent."""
        return bytes(self.request.object) if self.request else b"null"


UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What decoding raises for bytes that are no JSON, no text, or nested without end."""


class BadReviewError(Exception):
    """The body is no AdmissionReview; ``code`` is the status inside the answer."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


_DECODER = msgspec.json.Decoder(Review)


def read(body: bytes, content_type: str) -> Review:
    """Read a posted review; raise ``BadReviewError`` saying what is wrong with it."""
    if len(body) > MAX_BODY:
        raise BadReviewError(413, f"the AdmissionReview has more than the {MAX_BODY} bytes that are read")
    if content_type != "application/json":
        raise BadReviewError(400, f"contentType={content_type}, expected application/json")
    try:
        review = _DECODER.decode(body)
    except UNREADABLE as e:
        raise BadReviewError(400, f"the body is no AdmissionReview: {e}") from e
    if review.api_version not in VERSIONS or review.kind != "AdmissionReview":
        seen = f"{review.api_version}/{review.kind}"
        raise BadReviewError(400, f"the body is {seen!r}, expected AdmissionReview of {' or '.join(VERSIONS)}")
    if review.request is None:
        raise BadReviewError(400, "the AdmissionReview has no request")
    return review


def allow(
    review: Review, *, patch: Sequence[dict[str, Any]] = (), message: str = "", warnings: Sequence[str] = ()
) -> bytes:
    """Answer yes, with a JSON patch where there is something to change."""
    status = {"code": 200, "message": message} if message else {"code": 200}
    response: dict[str, Any] = {"allowed": True, "status": status}
    if patch:
        response["patchType"] = "JSONPatch"
        response["patch"] = base64.b64encode(msgspec.json.encode(patch)).decode()
    if warnings:
        response["warnings"] = list(warnings)
    return _answer(review, response)


def refuse(review: Review | None, *, code: int, message: str, warnings: Sequence[str] = ()) -> bytes:
    """Answer no: 403 is a denial by our rules, 500 one by a vendor's check, 400 and 413 an unreadable request."""
    status: dict[str, Any] = {"code": code, "message": message}
    if code == 403:
        status["reason"] = "Forbidden"
    response: dict[str, Any] = {"allowed": False, "status": status}
    if warnings:
        response["warnings"] = list(warnings)
    return _answer(review, response)


def _answer(review: Review | None, response: dict[str, Any]) -> bytes:
    """Wrap the response in the request's own version; without a readable request uid and version are absent."""
    if review is None:
        return msgspec.json.encode({"response": {"uid": "", **response}})
    return msgspec.json.encode(
        {
            "apiVersion": review.api_version,
            "kind": review.kind,
            "response": {"uid": review.uid, **response},
        }
    )
