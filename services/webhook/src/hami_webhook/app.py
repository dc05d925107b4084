"""``/webhook``: read the review, let the model decide, ask the allocator about the quota, answer.

One rule: it writes nothing to the API server, and no failure of ours keeps a pod without devices from being created.
"""

from typing import Any

import msgspec
from hami_kit.bus import Bus
from hami_kit.errors import BoundaryError
from hami_kit.telemetry import TRACEPARENT_ANNOTATION, Telemetry, traceparent
from hami_kit.web import read_body
from hami_model import admission
from hami_model.admission import Admit, Deny, Skip
from hami_model.bus import subjects
from hami_model.bus.messages import AskQuota, QuotaAllowed, QuotaAnswer, QuotaDenied, Refused
from hami_model.catalog import Catalog
from hami_model.objects import Pod
from hami_model.vendor import Change
from msgspec import Struct
from prometheus_client import Counter
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from hami_webhook import review as reviews
from hami_webhook.review import BadReviewError, Review

QUOTA_DEADLINE = 1.0
"""Seconds. Unanswered, the pod is admitted with a warning: filter enforces the quota again."""


Answer = tuple[str, bytes]
"""How a review ended, as a metric counts it, and what is sent back."""


class Rules(Struct, frozen=True, kw_only=True):
    """What the settings say about admission."""

    scheduler_name: str
    force_overwrite: bool


class Webhook:
    """Admission, from body to body."""

    def __init__(self, *, bus: Bus, catalog: Catalog, rules: Rules, telemetry: Telemetry) -> None:
        self._bus = bus
        self._catalog = catalog
        self._rules = rules
        self._telemetry = telemetry
        self._counted = Counter(
            "hami_webhook_reviews", "Reviews answered, by outcome", ["outcome"], registry=telemetry.metrics
        )

    async def review(self, body: bytes, content_type: str) -> bytes:
        """Answer one AdmissionReview."""
        outcome, answer = await self._answer(body, content_type)
        self._counted.labels(outcome).inc()
        return answer

    async def _answer(self, body: bytes, content_type: str) -> Answer:
        try:
            review = reviews.read(body, content_type)
        except BadReviewError as e:
            return "malformed", reviews.refuse(None, code=e.code, message=str(e))
        if review.stranger:
            message = f"only the creation of pods is looked at, this is {review.stranger}"
            return "skipped", reviews.allow(review, message=message)
        try:
            raw, pod = _pod_of(review)
        except reviews.UNREADABLE as e:
            return "malformed", reviews.refuse(review, code=400, message=f"the object is no pod: {e}")
        with self._telemetry.span("webhook", root=True, pod=pod.metadata.name or pod.metadata.generate_name):
            return await self._decide(review, raw, pod)

    async def _decide(self, review: Review, raw: dict[str, Any], pod: Pod) -> Answer:
        verdict = admission.admit(
            pod,
            self._catalog,
            scheduler_name=self._rules.scheduler_name,
            force_overwrite=self._rules.force_overwrite,
        )
        match verdict:
            case Skip(reason=reason):
                return "skipped", reviews.allow(review, message=reason)
            case Deny(code=code, message=message):
                return "denied", reviews.refuse(review, code=code, message=message)
            case Admit():
                return await self._admit(review, raw, pod, verdict)

    async def _admit(self, review: Review, raw: dict[str, Any], pod: Pod, verdict: Admit) -> Answer:
        warnings = list(verdict.warnings)
        if verdict.needs:
            namespace = pod.metadata.namespace or review.namespace
            match await self._ask_quota(namespace, verdict):
                case QuotaDenied() as no:
                    deny = admission.over_quota(no, namespace)
                    return "denied", reviews.refuse(review, code=deny.code, message=deny.message, warnings=warnings)
                case Refused(error=error):
                    warnings.append(f"the quota was not checked at admission ({error}); the scheduler checks it again")
        patch = admission.json_patch(raw, [*verdict.changes, *self._trace(verdict)])
        outcome = "admitted" if verdict.scheduler_name is not None else "skipped"
        return outcome, reviews.allow(review, patch=patch, warnings=warnings)

    def _trace(self, verdict: Admit) -> list[Change]:
        """Write the trace into a device pod, over a user's own, while traces are exported."""
        if verdict.scheduler_name is None or not self._telemetry.exports:
            return []
        return [Change(annotation=(TRACEPARENT_ANNOTATION, traceparent()))]

    async def _ask_quota(self, namespace: str, verdict: Admit) -> QuotaAllowed | QuotaDenied | Refused:
        question = AskQuota(namespace=namespace, needs=list(verdict.needs))
        try:
            answer: QuotaAnswer = await self._bus.request(subjects.QUOTA, question, QuotaAnswer, timeout=QUOTA_DEADLINE)
        except BoundaryError as e:
            return Refused(error=str(e), retriable=True)
        return answer


def _pod_of(review: Review) -> tuple[dict[str, Any], Pod]:
    body = review.object
    return msgspec.json.decode(body, type=dict[str, Any]), msgspec.json.decode(body, type=Pod)


def routes(webhook: Webhook) -> list[Route]:
    """Return the one route of the webhook."""

    async def endpoint(request: Request) -> Response:
        body = await read_body(request, most=reviews.MAX_BODY)
        answer = await webhook.review(body, request.headers.get("content-type", ""))
        return Response(answer, media_type="application/json")

    return [Route("/webhook", endpoint, methods=["POST"])]
