"""What happened, as values: told to integrations as CloudEvents and to people as Kubernetes Events, after the fact.

One rule: nothing here is read back for a decision. The texts are HAMi's (scheduling spec §3.5).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime

from hami_kit.telemetry import parent_of_pod, parent_of_uid
from hami_model.bus.events import CloudEvent
from hami_model.objects import Pod, PodRef
from hami_model.reason import Reason
from msgspec import Struct

MESSAGE_LIMIT = 1024
"""Characters of a Kubernetes Event's message; the API server refuses more."""


class Fact(Struct, frozen=True, kw_only=True):
    """One fact for the bus: ``kind`` is one of ``EVENT_KINDS``, ``subject`` a pod or a node."""

    kind: str
    subject: str
    data: dict[str, object] = {}
    uid: str = ""
    """The pod's uid, from which its trace is found where ``traceparent`` is not known."""
    traceparent: str = ""


def about(pod: Pod, kind: str, **data: object) -> Fact:
    """Return a fact about a pod, in the pod's own trace."""
    ref = PodRef.of(pod)
    return Fact(kind=kind, subject=str(ref), uid=ref.uid, traceparent=parent_of_pod(pod) or "", data=data)


class PodNews(Struct, frozen=True, kw_only=True):
    """Kubernetes Events of a pod. ``write`` makes the messages when they are sent, off the deciding path."""

    pod: PodRef
    reason: str
    write: Callable[[], Sequence[str]]
    warning: bool = False


def rfc3339(now: float) -> str:
    """Write an instant as the API server and CloudEvents do, in UTC."""
    return datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def cloud_event(fact: Fact, *, number: int, source: str, now: float) -> CloudEvent:
    """Wrap a fact in its envelope; source and number together name it for good."""
    return CloudEvent(
        id=f"{source}-{number}",
        source=f"/hami/allocator/{source}",
        type=f"io.hami.{fact.kind}.v1",
        time=rfc3339(now),
        subject=fact.subject,
        traceparent=fact.traceparent or (parent_of_uid(fact.uid) if fact.uid else ""),
        data={**fact.data, "uid": fact.uid} if fact.uid else fact.data,
    )


def placed_message(node: str, offered: int, fitting: int, scores: Mapping[str, float]) -> str:
    """Return HAMi's text for a pod that found its node, cut where an Event must end."""
    head = f"find fit node({node}), {offered - fitting} nodes not fit, {fitting} nodes fit("
    return _listed(head, (f"{name}:{scores[name]:.2f}" for name in sorted(scores)), ")")


def unplaced_messages(nodes: Sequence[str], reasons: Mapping[str, Sequence[int]]) -> tuple[str, ...]:
    """Return HAMi's texts for a pod that none of the nodes takes: one for each reason of cards, then the summary.

    ``reasons`` is the answer to the filter: text -> positions in ``nodes``. HAMi compat: these messages name a reason
    without its counts, so it is looked for among the words that every text is made of.
    """
    refusing: dict[str, list[str]] = {}
    for text, positions in reasons.items():
        words = text.split()
        for reason in (r.value for r in Reason if r.value in words or f"{r.value}," in words):
            refusing.setdefault(reason, []).extend(nodes[at] for at in positions)
    by_reason = (
        _listed(f"{len(names)} nodes {reason}(", sorted(names), ")") for reason, names in sorted(refusing.items())
    )
    return (*by_reason, f"no available node, {len(nodes)} nodes do not meet")


def _listed(head: str, words: Iterable[str], tail: str) -> str:
    """Join words with commas until the limit; what does not fit is an ellipsis."""
    text = head
    for word in words:
        addition = word if text is head else f",{word}"
        if len(text) + len(addition) + len(tail) + 2 > MESSAGE_LIMIT:
            return f"{text},…{tail}"
        text += addition
    return text + tail
