"""What the allocator hears, over a bus that comes and goes."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

from hami_kit.errors import NoResponders
from hami_kit.telemetry import Telemetry
from hami_model.allocation import Grant
from hami_model.bus.messages import Confirm, Done, Heartbeat, Inventory, Leading, NodeAnswer, Refuse, Refused
from hami_model.device import Device
from hami_model.objects import PodRef
from hami_model.request import Role
from hami_node_agent import inventory
from hami_node_agent.probes import SimulatedProbe
from hami_node_agent.report import Containers, Presence, Reports
from hami_node_agent.table import Entry, Table
from msgspec import Struct

POD = PodRef("default", "p", "uid-p")
CARD = Device(id="GPU-a", vendor="NVIDIA", slots=4, memory=10_000, cores=100, model="NVIDIA-A")


class Leader:
    """Whoever answers on the bus: absent at first, then with these answers."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, Struct]] = []
        self.answers: list[NodeAnswer] = []
        self.is_there = True
        self._news = asyncio.Event()

    async def request(self, subject: str, message: Struct, _reply_type: Any, *, timeout: float) -> NodeAnswer:
        if not self.is_there:
            raise NoResponders(f"{subject}: nobody serves it")
        self._hear(subject, message)
        return self.answers.pop(0) if self.answers else Done()

    async def publish(self, subject: str, message: Struct) -> None:
        self._hear(subject, message)

    async def wait_for(self, is_enough: Callable[[], bool]) -> None:
        async with asyncio.timeout(5):
            while not is_enough():
                await self._news.wait()
                self._news.clear()

    def _hear(self, subject: str, message: Struct) -> None:
        self.heard.append((subject, message))
        self._news.set()


def an_entry(container: str = "c", *, served: bool = True) -> Entry:
    grants = (Grant(uuid="GPU-a", vendor="NVIDIA", memory=1, cores=0),)
    return Entry(
        pod=POD,
        container=container,
        position=0,
        role=Role.APP,
        resource="nvidia.com/gpu",
        ids=("GPU-a-0",),
        grants=grants,
        served=served,
    )


def reports_to(leader: Leader) -> Reports:
    return Reports(
        leader,  # type: ignore[arg-type]
        node="node.one",
        telemetry=Telemetry(),
        is_complete=lambda _pod: True,
        jitter=lambda _seconds: 0.01,
    )


def presence_to(leader: Leader, cards: inventory.Inventory) -> Presence:
    return Presence(
        leader,  # type: ignore[arg-type]
        node="node.one",
        agent="agent-1",
        inventory=cards,
        jitter=lambda _seconds: 0.01,
        containers=Containers(holding=lambda: ["uid-of-a-pod"]),
    )


@asynccontextmanager
async def running(*work: Any) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(one) for one in work]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


async def test_a_confirmation_is_repeated_until_somebody_acknowledges_it() -> None:
    """First nobody leads, then a leader is not ready, then it is."""
    leader = Leader()
    leader.is_there = False
    leader.answers = [Refused(error="not caught up yet", retriable=True)]
    reports = reports_to(leader)
    async with running(reports.run()):
        reports.confirm(an_entry(), parent="")
        await asyncio.sleep(0)
        leader.is_there = True
        await leader.wait_for(lambda: len(leader.heard) == 2)

    expected = Confirm(node="node.one", pod=POD, container="c", devices=["GPU-a"], complete=True)
    assert leader.heard == [("hami.v1.node.node_one.confirm", expected)] * 2
    assert reports.waiting == ()


async def test_a_statement_refused_for_good_holds_nobody_up() -> None:
    """The allocator does not know the pod; the next statement is heard."""
    leader = Leader()
    leader.answers = [Refused(error="no such pod")]
    reports = reports_to(leader)
    async with running(reports.run()):
        reports.confirm(an_entry(), parent="")
        reports.refuse("it does not fit", pod=POD, container="d", parent="")
        await leader.wait_for(lambda: len(leader.heard) == 2)

    assert leader.heard[1][1] == Refuse(node="node.one", why="it does not fit", pod=POD, container="d")
    assert reports.waiting == ()


async def test_a_new_leader_hears_again_what_was_served() -> None:
    """Only what was served, not what was merely answered to the kubelet."""
    leader = Leader()
    reports = reports_to(leader)
    reports.restate(Table([an_entry("c"), an_entry("d", served=False)]), lambda _pod: "")
    async with running(reports.run()):
        await leader.wait_for(lambda: len(leader.heard) == 1)

    assert [message.container for _, message in leader.heard if isinstance(message, Confirm)] == ["c"]


async def test_nothing_more_is_said_of_a_pod_that_is_over() -> None:
    """Its statements are dropped with its devices."""
    reports = reports_to(Leader())
    reports.confirm(an_entry(), parent="")
    reports.forget(POD)

    assert reports.waiting == ()


async def test_a_pod_that_is_over_before_anything_was_said_of_it_ends_nothing() -> None:
    """What waits to speak is woken for it in vain, and says what comes next."""
    leader = Leader()
    reports = reports_to(leader)
    async with running(reports.run()):
        await asyncio.sleep(0)
        reports.confirm(an_entry("gone"), parent="")
        reports.forget(POD)
        await asyncio.sleep(0)
        reports.confirm(an_entry("next"), parent="")
        await leader.wait_for(lambda: len(leader.heard) == 1)

    assert [message.container for _, message in leader.heard if isinstance(message, Confirm)] == ["next"]


async def test_the_inventory_is_reported_at_start_and_whenever_it_is_wanted() -> None:
    """Until acknowledged, then again for a new leader; the digest is the heartbeat's."""
    leader = Leader()
    leader.is_there = False
    cards = inventory.Inventory(SimulatedProbe(""), (CARD,))
    presence = presence_to(leader, cards)
    async with running(presence.run_inventory()):
        await asyncio.sleep(0)
        leader.is_there = True
        await leader.wait_for(lambda: len(leader.heard) == 1)
        await presence.report_wanted(Leading(term="t2", identity="other"))
        await leader.wait_for(lambda: len(leader.heard) == 2)

    expected = Inventory(
        node="node.one", agent="agent-1", digest=cards.digest, vendors=["NVIDIA"], devices=[CARD], identifies_pods=True
    )
    assert leader.heard == [("hami.v1.node.node_one.inventory", expected)] * 2


async def test_a_heartbeat_carries_the_digest_the_unhealthy_cards_and_who_holds_some() -> None:
    """An unknown digest is asked for; a deleted pod's devices wait for its containers."""
    leader = Leader()
    sick = Device(id="GPU-b", vendor="NVIDIA", slots=4, memory=1, cores=100, model="A", healthy=False)
    cards = inventory.Inventory(SimulatedProbe(""), (CARD, sick))
    async with running(presence_to(leader, cards).run_heartbeat()):
        await leader.wait_for(lambda: len(leader.heard) >= 2)

    expected = Heartbeat(
        node="node.one", agent="agent-1", digest=cards.digest, unhealthy=["GPU-b"], holding=["uid-of-a-pod"]
    )
    assert leader.heard[0] == ("hami.v1.node.node_one.heartbeat", expected)
