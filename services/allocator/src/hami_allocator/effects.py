"""The slow half of a bind: locks, the push to the node, the Binding, and what became of it.

One rule: once a Binding may be on its way, only proof ends it, never time. Runs beside the writer, one task per pod;
every change to the books goes back to the writer as a letter.
"""

import asyncio
from itertools import count

from hami_kit.errors import BoundaryError, KubeConflict, KubeError, KubeNotFound, KubeUnavailable
from hami_kit.telemetry import traceparent
from hami_model.allocation import Allocation, State
from hami_model.annotations import allocation_annotations, check_size
from hami_model.binding import StillUnknown, settle
from hami_model.bus.messages import BindAnswer, BindPod, Done, PushAllocation, Refused, Withdraw
from hami_model.bus.subjects import of_node
from hami_model.demands import pod_demand
from hami_model.errors import HamiError
from hami_model.life import Bound, Entry, Event, Released
from hami_model.objects import Pod, PodRef
from hami_model.observe import observe

from hami_allocator.desk import Granted, Plain, Unknown
from hami_allocator.facts import PodNews
from hami_allocator.fence import TERM_KEY
from hami_allocator.means import Deposed, Means
from hami_allocator.plain import bind_plainly
from hami_allocator.rereading import read, read_again

LOCK_RESERVE = 6.0
"""Seconds of the bind's time that waiting for a node lock leaves to the Binding itself."""


class Binder:
    """All binds under way, by pod uid."""

    def __init__(self, means: Means, tasks: asyncio.TaskGroup) -> None:
        self._means = means
        self._tasks = tasks
        self._running: dict[str, Bind] = {}
        self._is_closed = False

    def close(self) -> None:
        """Begin no bind any more, and end those that have sent nothing yet, such as those in line for a node lock."""
        self._is_closed = True
        for bind in self._running.values():
            bind.cancel_unsent()

    async def bind(self, question: BindPod) -> BindAnswer:
        """Bind the pod and answer when the API server has; a second bind of a pod joins the first."""
        if self._is_closed and question.pod.uid not in self._running:
            return Refused(error="this allocator is about to stop: ask again", retriable=True)
        bind = self._running.get(question.pod.uid) or self._start(question)
        if bind.node != question.node:
            return Refused(error=f"pod {question.pod} is being bound to {bind.node}", retriable=True)
        try:
            async with asyncio.timeout(self._means.bind_timeout):
                return await asyncio.shield(bind.settled)
        except TimeoutError:
            return Refused(
                error=f"the API server has not answered for pod {question.pod} within {self._means.bind_timeout:g} s: "
                "the outcome is looked up",
                retriable=True,
            )

    def _start(self, question: BindPod) -> "Bind":
        uid = question.pod.uid
        bind = self._running[uid] = Bind(self._means, question.pod, question.node)
        bind.start(self._tasks).add_done_callback(lambda _: self._running.pop(uid, None))
        return bind


class Bind:
    """One pod's bind."""

    def __init__(self, means: Means, pod: PodRef, node: str) -> None:
        loop = asyncio.get_running_loop()
        self.node = node
        self.settled: asyncio.Future[BindAnswer] = loop.create_future()
        self._means = means
        self._pod = pod
        self._deadline = loop.time() + means.bind_timeout
        self._may_be_sent = False
        self._task: asyncio.Task[None] | None = None
        self._annotations: dict[str, str] = {}
        """What the Binding carries."""
        self._found: Pod | None = None
        """The pod as a read showed it bound, where no answer to our Binding did."""

    def start(self, tasks: asyncio.TaskGroup) -> "asyncio.Task[None]":
        """Begin."""
        self._task = tasks.create_task(self.run(), name=f"bind {self._pod}")
        return self._task

    def cancel_unsent(self) -> None:
        """End it, unless its Binding may be on its way."""
        if self._task is not None and not self._may_be_sent:
            self._task.cancel()

    async def run(self) -> None:
        """Do it all and say how it ended."""
        try:
            self._answer(await self._bind())
        except Deposed as error:
            self._answer(Refused(error=str(error), retriable=True))
            raise
        finally:
            self._answer(Refused(error=f"the allocator stopped while binding pod {self._pod}", retriable=True))

    def _answer(self, answer: BindAnswer) -> None:
        if not self.settled.done():
            self.settled.set_result(answer)

    async def _bind(self) -> BindAnswer:
        writer, desk = self._means.writer, self._means.desk
        plan = await writer.ask(lambda: desk.plan_bind(self._pod, self.node, None))
        if isinstance(plan, Unknown):
            try:
                pod = await read(self._means, self._pod)
            except KubeError as error:
                return Refused(error=f"pod {self._pod} cannot be read: {error}", retriable=True)
            if pod is None or pod.metadata.uid != self._pod.uid:
                return Refused(error=f'pods "{self._pod.name}" not found')
            plan = await writer.ask(lambda: desk.plan_bind(self._pod, self.node, pod))
        match plan:
            case Plain(pod=pod):
                return await bind_plainly(self._means, self._pod, self.node, pod, deadline=self._deadline)
            case Granted():
                return await self._carry_out(plan)
            case Unknown():
                return Refused(error=f"pod {self._pod} is not known", retriable=True)
            case answer:
                return answer

    # A pod with devices

    async def _carry_out(self, plan: Granted) -> BindAnswer:
        try:
            outcome = await self._attempt(plan)
        except (HamiError, TimeoutError) as error:
            if isinstance(error, Deposed):
                raise
            outcome = await self._give_up(str(error) or f"the bind took more than {self._means.bind_timeout:g} s")
        if isinstance(outcome, Bound) and self._found is not None:
            await self._complete(self._found)
        return await self._finish(plan.allocation, outcome)

    async def _attempt(self, plan: Granted) -> Bound | Released:
        means, allocation = self._means, plan.allocation
        self._annotations = allocation_annotations(means.world.catalog, allocation, plan.pod, now=means.clock.now())
        check_size(plan.pod.annotations, self._annotations)
        async with asyncio.timeout_at(self._deadline):
            await means.locks.take(
                self.node, means.world.locks_for(allocation), self._pod, deadline=self._deadline - LOCK_RESERVE
            )
            await self._push(allocation)
            return await self._send_until_settled(plan)

    async def _push(self, allocation: Allocation) -> None:
        if not self._means.world.is_agents(allocation):
            return
        message = PushAllocation(allocation=allocation, term=self._means.term.identity, traceparent=traceparent())
        try:
            await self._means.bus.publish(of_node(self.node, "allocation"), message)
        except BoundaryError:
            return  # the agent finds it in the bound pod

    async def _send_until_settled(self, plan: Granted) -> Bound | Released:
        pod = plan.pod
        for attempt in count():
            outcome = await self._send(pod)
            if outcome is not None:
                return outcome
            fresh = await read_again(self._means, self._pod)
            verdict = settle(self._entry(plan), fresh, at=self._means.clock.monotonic())
            if not isinstance(verdict, StillUnknown):
                self._found = fresh
                return verdict
            assert fresh is not None  # noqa: S101 - settle has judged it
            pod = await self._judge_again(plan, pod, fresh)
            await self._means.backoff.wait(attempt)
        raise AssertionError

    async def _send(self, pod: Pod) -> Bound | Released | None:
        """Send the Binding once; None: it may or may not have landed, or the pod has changed under way."""
        means = self._means
        with means.telemetry.span("POST binding", kind="client", pod=str(self._pod), node=self.node):
            may_have_been_sent, self._may_be_sent = self._may_be_sent, True
            try:
                await means.kube.bind_pod(
                    self._pod, self.node, resource_version=pod.metadata.resource_version, annotations=self._annotations
                )
            except (KubeConflict, KubeUnavailable):
                return None
            except KubeNotFound:
                return Released(uid=self._pod.uid, why="the pod is gone")
            except KubeError as error:
                if may_have_been_sent:
                    return None
                return Released(uid=self._pod.uid, why=str(error))
            return Bound(uid=self._pod.uid, at=means.clock.monotonic())

    async def _judge_again(self, plan: Granted, before: Pod, fresh: Pod) -> Pod:
        """Return the pod to bind next, or raise what stands in the way of trying again.

        A strange mark is a new leader's, a late one of an earlier leader, or a user's: the Lease knows which.
        """
        if self._means.term.is_overtaken(before, fresh) and not await self._means.lease.look():
            raise Deposed(f"another allocator leads by now, and has marked pod {self._pod}")
        catalog = self._means.world.catalog
        if pod_demand(plan.pod, catalog) != pod_demand(fresh, catalog):
            raise HamiError(f"pod {self._pod} asks for other devices than when it was placed")
        return fresh

    async def _complete(self, bound: Pod) -> None:
        """Write what a pod lacks that somebody else's Binding put on the same node: a restart reads it there."""
        for attempt in count():
            lacking = {key: text for key, text in self._annotations.items() if key not in bound.annotations}
            if not lacking:
                return
            try:
                bound = await self._means.kube.patch_pod(self._pod, annotations=lacking)
            except KubeUnavailable as error:
                await self._means.backoff.wait(attempt, asked=error.retry_after)
            except KubeError:
                return  # gone, or refused: the watch tells

    async def _give_up(self, why: str) -> Bound | Released:
        """End the bind without success: at once if nothing was sent, else when it is proved what became of it."""
        if not self._may_be_sent:
            return Released(uid=self._pod.uid, why=why)
        proved = await self._prove()
        return Released(uid=self._pod.uid, why=why) if isinstance(proved, Released) else proved

    async def _prove(self) -> Bound | Released:
        """Find out whether the Binding landed, by moving the pod past it; as long as it takes."""
        for attempt in count():
            entry = await self._means.writer.ask(lambda: self._means.world.ledger.entry(self._pod.uid))
            if entry is None:
                return Released(uid=self._pod.uid, why="the pod is gone")
            if entry.is_bound:
                self._found = entry.pod
                return Bound(uid=self._pod.uid, at=self._means.clock.monotonic())
            try:
                fresh, has_patched = await self._move()
            except KubeUnavailable as error:
                await self._means.backoff.wait(attempt, asked=error.retry_after)
                continue
            verdict = settle(entry, fresh, has_patched=has_patched, at=self._means.clock.monotonic())
            if not isinstance(verdict, StillUnknown):
                self._found = fresh
                return verdict
            await self._means.backoff.wait(attempt)
        raise AssertionError

    async def _move(self) -> tuple[Pod | None, bool]:
        """Patch the pod and return the answer, or what is read where the patch is refused: it may be another pod."""
        try:
            return await self._means.kube.patch_pod(self._pod, annotations={TERM_KEY: self._means.term.mark()}), True
        except KubeUnavailable:
            raise
        except KubeError:
            return await read(self._means, self._pod), False

    async def _finish(self, allocation: Allocation, outcome: Bound | Released) -> BindAnswer:
        """Take the outcome to the books, and undo what only a success may leave behind."""
        state = await self._means.writer.ask(lambda: self._note(outcome))
        if isinstance(outcome, Bound) and state is not None:
            text = f"Successfully binding node [{self.node}] to {self._pod}"
            self._means.world.duty.news(PodNews(pod=self._pod, reason="BindingSucceed", write=lambda: (text,)))
            return Done()
        why = outcome.why if isinstance(outcome, Released) else "the pod ended while it was being bound"
        await self._undo(allocation)
        self._means.world.duty.news(PodNews(pod=self._pod, reason="BindingFailed", write=lambda: (why,), warning=True))
        return Refused(error=why, retriable=True)

    def _note(self, outcome: Bound | Released) -> State | None:
        """Apply the outcome unless the watch has been faster; return the state afterwards."""
        world = self._means.world
        entry = world.ledger.entry(self._pod.uid)
        if entry is not None and entry.state is State.BINDING:
            world.apply(*self._events(entry, outcome))
            entry = world.ledger.entry(self._pod.uid)
        return entry.state if entry is not None else None

    def _events(self, entry: Entry, outcome: Bound | Released) -> tuple[Event, ...]:
        """Return what follows; a pod that a read showed bound holds what is written there, by whoever bound it."""
        if self._found is None or not isinstance(outcome, Bound):
            return (outcome,)
        world, at = self._means.world, self._means.clock.monotonic()
        return observe(entry, self._found, world.catalog, world.nodes.devices, at=at).events

    async def _undo(self, allocation: Allocation) -> None:
        means = self._means
        await means.locks.open(self._pod.uid)
        if means.world.is_agents(allocation):
            try:
                await means.bus.publish(of_node(self.node, "withdraw"), Withdraw(pod=self._pod, node=self.node))
            except BoundaryError:
                return  # it names a pod that the kubelet never admits there

    def _entry(self, plan: Granted) -> Entry:
        entry = self._means.world.ledger.entry(self._pod.uid)
        if entry is not None:
            return entry
        return Entry(
            allocation=plan.allocation, pod=plan.pod, state=State.BINDING, since=0.0, charges={}, is_watched=False
        )
