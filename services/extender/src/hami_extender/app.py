"""``/filter`` and ``/bind``: translate, ask the allocator, translate back.

One rule: it keeps no state and decides nothing beyond "this pod asks for no device of ours". Every failure becomes one
sentence in ``Error``, within the deadline that kube-scheduler waits.
"""

from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Literal

from hami_kit.bus import Bus
from hami_kit.errors import BoundaryError
from hami_kit.telemetry import Telemetry, parent_of_pod, parent_of_uid
from hami_kit.web import read_body
from hami_model.bus import subjects
from hami_model.bus.messages import (
    BindAnswer,
    BindPod,
    Done,
    FilterAnswer,
    FilterPod,
    NoDevices,
    Placed,
    Refused,
    Simulate,
    SimulateAnswer,
    Simulated,
    Unplaced,
)
from hami_model.catalog import Catalog
from hami_model.demands import pod_demand
from hami_model.errors import DomainError
from hami_model.objects import Pod, PodRef
from hami_model.request import asks_for_devices
from prometheus_client import Counter
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from hami_extender import protocol
from hami_extender.protocol import BadArgsError, FilterArgs

FILTER_DEADLINE = 2.0
"""Seconds. kube-scheduler's cycle is serial: one filter that hangs stops every other pod."""

BIND_GRACE = 1.0
"""Seconds beyond the allocator's own bind deadline, so that its sentence arrives rather than ours."""


TRACES_KEPT = 4096
"""Pods between filter and bind whose trace is remembered."""


Outcome = Literal["placed", "unplaced", "passed", "bound", "refused", "malformed", "unanswered"]
"""How a call ended, as a metric counts it."""


class Extender:
    """The two verbs, each from body to body."""

    def __init__(self, *, bus: Bus, catalog: Catalog, bind_timeout: float, telemetry: Telemetry) -> None:
        self._bus = bus
        self._catalog = catalog
        self._bind_timeout = bind_timeout
        self._telemetry = telemetry
        self._traces: OrderedDict[str, str] = OrderedDict()
        self._counted = Counter(
            "hami_extender_answers",
            "Calls answered, by verb and outcome",
            ["verb", "outcome"],
            registry=telemetry.metrics,
        )

    async def filter(self, body: bytes) -> bytes:
        """Answer ``/filter``: the one node that takes the pod, or why none does."""
        outcome, answer = await self._filter(body)
        self._counted.labels("filter", outcome).inc()
        return answer

    async def bind(self, body: bytes) -> bytes:
        """Answer ``/bind``: only after the API server accepted the binding is the error empty."""
        outcome, error = await self._bind(body)
        self._counted.labels("bind", outcome).inc()
        return protocol.bind_result(error)

    async def _filter(self, body: bytes) -> tuple[Outcome, bytes]:
        try:
            args = protocol.read_filter(body)
            if not asks_for_devices(pod_demand(args.pod, self._catalog)):
                return "passed", _pass_through(args)
        except BadArgsError as e:
            return "malformed", protocol.filter_result(error=str(e))
        except DomainError as e:
            return "refused", protocol.filter_result(error=str(e))
        try:
            with self._telemetry.span("filter", parent=self._trace_of(args.pod), pod=args.pod.metadata.name):
                if args.nodes is not None:
                    return await self._simulate(args)
                return await self._place(args)
        except BoundaryError as e:
            return "unanswered", protocol.filter_result(error=f"the allocator did not answer: {e}")

    async def _place(self, args: FilterArgs) -> tuple[Outcome, bytes]:
        names = args.node_names or []
        question = FilterPod(pod=args.pod, nodes=names)
        answer: FilterAnswer = await self._bus.request(subjects.FILTER, question, FilterAnswer, timeout=FILTER_DEADLINE)
        match answer:
            case Placed(node=node):
                return "placed", protocol.filter_result(node_names=[node])
            case Unplaced(reasons=reasons):
                failed = {names[i]: text for text, positions in reasons.items() for i in positions}
                return "unplaced", protocol.filter_result(failed=failed)
            case NoDevices():
                return "passed", _pass_through(args)
            case Refused(error=error):
                return "refused", protocol.filter_result(error=error)

    async def _simulate(self, args: FilterArgs) -> tuple[Outcome, bytes]:
        """Answer a filter call that carries Node objects: a what-if that changes nothing (HAMi's simulation path)."""
        question = Simulate(pod=args.pod, nodes=args.nodes or [])
        answer: SimulateAnswer = await self._bus.request(
            subjects.SIMULATE, question, SimulateAnswer, timeout=FILTER_DEADLINE
        )
        match answer:
            case Simulated(node=node, failed=failed):
                pairs = zip(args.nodes or [], args.raw_nodes or [], strict=True)
                kept = [raw for seen, raw in pairs if seen.metadata.name == node]
                return "placed" if kept else "unplaced", protocol.filter_result(nodes=kept, failed=failed)
            case NoDevices():
                return "passed", _pass_through(args)
            case Refused(error=error):
                return "refused", protocol.filter_result(error=error)

    async def _bind(self, body: bytes) -> tuple[Outcome, str]:
        try:
            args = protocol.read_bind(body)
        except BadArgsError as e:
            return "malformed", str(e)
        pod = PodRef(args.pod_namespace, args.pod_name, args.pod_uid)
        try:
            parent = self._traces.pop(pod.uid, None) or parent_of_uid(pod.uid)
            with self._telemetry.span("bind", parent=parent, pod=pod.name, node=args.node):
                question, deadline = BindPod(pod=pod, node=args.node), self._bind_timeout + BIND_GRACE
                answer: BindAnswer = await self._bus.request(subjects.BIND, question, BindAnswer, timeout=deadline)
        except BoundaryError as e:
            return "unanswered", f"the allocator did not answer: {e}"
        match answer:
            case Done():
                return "bound", ""
            case Refused(error=error):
                return "refused", error

    def _trace_of(self, pod: Pod) -> str | None:
        """Return the pod's traceparent, kept for its bind call, which carries no pod; forgetting it loses nothing."""
        parent = parent_of_pod(pod)
        if parent is not None and self._telemetry.exports:
            self._traces[pod.metadata.uid] = parent
            while len(self._traces) > TRACES_KEPT:
                self._traces.popitem(last=False)
        return parent


def _pass_through(args: FilterArgs) -> bytes:
    """Hand back what was offered: the pod asks for no device of ours.

    HAMi compat: whole nodes are not handed back. Whoever sends them asks only about pods that name managed resources.
    """
    return protocol.filter_result(node_names=args.node_names)


def routes(extender: Extender) -> list[Route]:
    """Return the two routes of the extender."""
    return [_post("/filter", extender.filter), _post("/bind", extender.bind)]


def _post(path: str, verb: Callable[[bytes], Awaitable[bytes]]) -> Route:
    async def endpoint(request: Request) -> Response:
        body = await read_body(request, most=protocol.MAX_BODY)
        return Response(await verb(body), media_type="application/json")

    return Route(path, endpoint, methods=["POST"])
