"""What the leader serves on the bus, and what everybody does.

One rule: a handler only carries a question to the writer, or to an effect, and its answer back. Every allocator that
believes it leads hears every question, and only the one whose Lease is valid answers: a leader that stands still until
another has taken over does not swallow its questions.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from hami_kit.bus import Bus, Endpoint, Handle, NotMine
from hami_kit.errors import BoundaryError
from hami_kit.telemetry import annotate
from hami_model.bus import subjects
from hami_model.bus.messages import (
    AskQuota,
    AskSnapshot,
    BindAnswer,
    BindPod,
    Confirm,
    ExplainPod,
    FilterAnswer,
    FilterPod,
    Heartbeat,
    Inventory,
    NodeAnswer,
    Placed,
    QuotaAnswer,
    Refuse,
    ReportWanted,
    Simulate,
)
from hami_model.objects import PodRef
from msgspec import Struct

from hami_allocator.agents import Agents
from hami_allocator.answers import Answers
from hami_allocator.effects import Binder
from hami_allocator.mailbox import Urgency
from hami_allocator.means import Means
from hami_allocator.registrar import Registrar
from hami_allocator.writer import Writer

SERVICE = "hami-allocator"
READING_SERVICE = "hami-allocator-reader"


class LeaderEndpoints:
    """Questions that change something."""

    def __init__(self, *, means: Means, binder: Binder, agents: Agents, registrar: Registrar) -> None:
        self._means = means
        self._writer = means.writer
        self._binder = binder
        self._agents = agents
        self._registrar = registrar

    def all(self) -> Sequence[Endpoint]:
        """Return the endpoints."""
        return (
            self._endpoint("filter", subjects.FILTER, FilterPod, self.filter),
            self._endpoint("bind", subjects.BIND, BindPod, self.bind),
            self._endpoint("quota", subjects.QUOTA, AskQuota, self.quota),
            self._endpoint("inventory", subjects.of_any_node("inventory"), Inventory, self.inventory),
            self._endpoint("confirm", subjects.of_any_node("confirm"), Confirm, self.confirm),
            self._endpoint("refuse", subjects.of_any_node("refuse"), Refuse, self.refuse),
        )

    def _endpoint(
        self, name: str, subject: str, kind: type[Struct], answer: Callable[[Any], Awaitable[Struct]]
    ) -> Endpoint:
        async def answer_if_leading(question: Any) -> Struct:
            if not self._means.lease.is_valid():
                raise NotMine
            return await answer(question)

        return Endpoint(name, subject, kind, answer_if_leading, shared=False)

    async def filter(self, question: FilterPod) -> FilterAnswer:
        """Decide and reserve."""
        desk = self._means.desk
        answer = await self._writer.ask(lambda: desk.filter(question), urgency=Urgency.DECISION)
        node = answer.node if isinstance(answer, Placed) else ""
        annotate(pod=str(PodRef.of(question.pod)), node=node)
        return answer

    async def bind(self, question: BindPod) -> BindAnswer:
        """Bind, and answer when the API server has."""
        annotate(pod=str(question.pod), node=question.node)
        return await self._binder.bind(question)

    async def quota(self, question: AskQuota) -> QuotaAnswer:
        """Answer the webhook."""
        desk = self._means.desk
        return await self._writer.ask(lambda: desk.quota(question), urgency=Urgency.DECISION)

    async def inventory(self, told: Inventory) -> NodeAnswer:
        """Take an inventory, and acknowledge it when it is written down."""
        answer = await self._writer.ask(lambda: self._agents.inventory(told))
        await self._registrar.wait(told.node)
        return answer

    async def confirm(self, word: Confirm) -> NodeAnswer:
        """Take a confirmation."""
        return await self._writer.ask(lambda: self._agents.confirm(word))

    async def refuse(self, word: Refuse) -> NodeAnswer:
        """Take a refusal."""
        return await self._writer.ask(lambda: self._agents.refuse(word))


async def serve_reading(bus: Bus, answers: Answers) -> Handle:
    """Answer read-only questions, leading or not."""
    return await bus.serve(
        READING_SERVICE,
        (
            Endpoint("explain", subjects.EXPLAIN, ExplainPod, answers.explain),
            Endpoint("simulate", subjects.SIMULATE, Simulate, answers.simulate),
            Endpoint("snapshot", subjects.SNAPSHOT, AskSnapshot, answers.snapshot),
        ),
    )


async def listen_to_heartbeats(bus: Bus, writer: Writer, agents: Agents) -> Handle:
    """Hear every agent, leading or not, and ask for inventories that we do not have."""

    async def on_beat(_subject: str, beat: Heartbeat) -> None:
        if await writer.ask(lambda: agents.heartbeat(beat)):
            try:
                await bus.publish(subjects.of_node(beat.node, "report"), ReportWanted(node=beat.node))
            except BoundaryError:
                return

    return await bus.subscribe(subjects.of_any_node("heartbeat"), Heartbeat, on_beat)
