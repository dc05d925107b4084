"""Restarts, followers, and what keeps an earlier leader's Binding from landing."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hami_allocator.effects import Binder
from hami_allocator.endpoints import LeaderEndpoints
from hami_allocator.fence import TERM_KEY
from hami_allocator.registrar import Registrar
from hami_kit.errors import KubeConflict, NoResponders
from hami_model.audit import audit
from hami_model.bus import subjects
from hami_model.bus.messages import (
    AskSnapshot,
    Done,
    FilterAnswer,
    FilterPod,
    Leading,
    Placed,
    Refused,
    Snapshot,
    SnapshotAnswer,
)
from hami_model.objects import PodRef
from hami_testkit.cluster.faults import Fault
from hami_testkit.cluster.resources import LEASES

from .allocator_bench import (
    PODS,
    Bench,
    a_bench,
    a_node,
    a_pod,
    entry,
    memory_used,
    page,
    plugin_node,
    state,
    until,
)


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    """Two nodes that HAMi's plugin serves, and one for our agent."""
    async with a_bench(tmp_path, [plugin_node("node-1"), plugin_node("node-2"), a_node("agent-1")]) as made:
        yield made


async def test_a_restart_finds_everything_that_was_bound(bench: Bench) -> None:
    """Kubernetes is the durable truth: the same use, the same allocations, from the API alone."""
    async with bench.allocator() as before:
        await bench.register("agent-1")
        pods = [await bench.create_pod(a_pod(name, mem=1500)) for name in ("p", "q", "reserved")]
        for name, pod, node in (("p", pods[0], "node-1"), ("q", pods[1], "agent-1")):
            await bench.filter(name, [node])
            assert Done() == await bench.bind(pod, node)
        bench.annotate(PODS, ("team-a", "q"), {"hami.io/bind-phase": "success"})
        await until(lambda: state(before, pods[1]) == "ACTIVE")
        await bench.filter("reserved", ["node-1"])
        held = [entry(before, pod) for pod in pods]
    async with bench.allocator() as after:
        world = after.office.means.world
        found = [entry(after, pod) for pod in pods]
        uses = {name: world.fleet.use(name) for name in ("node-1", "agent-1")}
        quotas = {("team-a", "NVIDIA"): world.quotas.used("team-a", "NVIDIA")}

        assert ["BOUND", "ACTIVE", None] == [e.state if e else None for e in found]
        assert [e and _cards(e) for e in held[:2]] == [e and _cards(e) for e in found[:2]]
        assert (1500, 1500) == (memory_used(after, "node-1"), memory_used(after, "agent-1"))
        assert () == audit(world.ledger.entries, uses, quotas)
        assert ["GPU-agent-1-0", "GPU-agent-1-1"] == [d.id for d in world.fleet.devices("agent-1")]


def _cards(found: object) -> list[tuple[str, int]]:
    return [(g.uuid, g.memory) for c in found.allocation.containers for g in c.grants]  # type: ignore[attr-defined]


async def test_a_new_leader_of_a_quiet_cluster_lists_pods_once(bench: Bench) -> None:
    """It marks a bound pod where no other change shows that its watch is up to date: a list of all would be long."""
    async with bench.allocator():
        pod = await bench.create_pod(a_pod("p", mem=1500))
        assert Done() == await bench.bind(pod, "node-1")
    async with bench.allocator() as after:
        marked = bench.cluster.registry.store.of(PODS).objects["team-a", "p"].object["metadata"]["annotations"]

        assert marked[TERM_KEY].startswith(after.election.identity)
        assert "BOUND" == state(after, pod)


async def test_a_binding_of_an_earlier_leader_does_not_land(bench: Bench) -> None:
    """It slept on its way; meanwhile another leads and has marked the pod, which moved its resourceVersion."""
    async with bench.allocator() as first, bench.allocator(leads=False) as second, bench.kube() as kube:
        pod = await bench.create_pod(a_pod("p"))
        await bench.register("agent-1")
        await bench.filter("p", ["agent-1"])
        version = bench.pod("p").metadata.resource_version
        await bench.hand_over(first, second)
        with pytest.raises(KubeConflict):
            await kube.bind_pod(pod, "agent-1", resource_version=version, annotations={})

        assert bench.pod("p").annotations[TERM_KEY].startswith(second.election.identity)
        assert "" == state(second, pod)
        assert Done() == await bench.bind(pod, "agent-1")


async def test_a_bind_cut_short_by_the_end_of_a_term_is_finished_by_the_next(bench: Bench) -> None:
    """The API server does not answer, the leader goes: the next one finds the pod unbound and binds it."""
    async with bench.allocator() as first, bench.allocator(leads=False) as second:
        pod = await bench.create_pod(a_pod("p"))
        await bench.filter("p", ["node-1"])
        bench.cluster.faults.set(Fault(kind="refuse", resource="pods/binding", code=503))
        unfinished = asyncio.create_task(bench.bind(pod, "node-1"))
        await until(lambda: state(first, pod) == "BINDING")
        await bench.hand_over(first, second)
        answer = await unfinished
        bench.cluster.faults.clear()

        assert isinstance(answer, Refused)
        assert answer.retriable
        assert "" == state(first, pod)
        assert Done() == await bench.bind(pod, "node-1")
        assert 1000 == memory_used(second, "node-1")


async def test_a_follower_answers_nothing_until_it_leads(bench: Bench) -> None:
    """One leader on the bus; who leads next says so, and agents re-state what they serve."""
    heard: list[Leading] = []

    async def on_leading(_subject: str, message: Leading) -> None:
        heard.append(message)

    await bench.bus.subscribe(subjects.LEADER, Leading, on_leading)
    async with bench.allocator() as first, bench.allocator(leads=False) as second:
        alone = first.leads and not second.leads
        await bench.hand_over(first, second)
        await until(lambda: len(heard) == 2)
        await bench.create_pod(a_pod("p"))

        assert alone
        assert [first.election.identity, second.election.identity] == [message.identity for message in heard]
        assert Placed(node="node-1") == await bench.filter("p", ["node-1"])
        assert not first.leads


async def test_a_leader_leaves_reading_to_a_follower_while_there_is_one(bench: Bench) -> None:
    """Explanations and snapshots do not take the leader's time; alone it answers them itself."""

    async def nodes() -> int:
        answer = await bench.bus.request(subjects.SNAPSHOT, AskSnapshot(), SnapshotAnswer, timeout=5)
        assert isinstance(answer, Snapshot)
        return len(answer.nodes)

    async with bench.allocator() as leader:
        alone = leader.reading.serves
        async with bench.allocator(leads=False) as follower:
            await until(lambda: follower.reading.serves and not leader.reading.serves)
            assert 3 == await nodes()
        await until(lambda: leader.reading.serves)
        assert 3 == await nodes()

    assert alone


async def test_without_a_leader_the_bus_says_so_at_once(bench: Bench) -> None:
    """An immediate, retriable error."""
    await bench.create_pod(a_pod("p"))
    question = FilterPod(pod=bench.pod("p"), nodes=["node-1"])
    with pytest.raises(NoResponders):
        await bench.bus.request(subjects.FILTER, question, FilterAnswer, timeout=5)


async def test_readyz_names_what_was_seen_and_who_leads(bench: Bench) -> None:
    """What people look at first."""
    async with bench.allocator() as process:
        answer = await page(process, "/readyz")
        checks = answer.json()["checks"]

        assert 200 == answer.status_code
        assert all(int(checks["synced"][name]) > 0 for name in ("nodes", "pods", "quotas"))
        assert process.election.identity == checks["leader"]["leader"]


async def test_a_relist_replaces_what_the_watch_said(bench: Bench) -> None:
    """The watch breaks with 410 while a pod ends."""
    async with bench.allocator() as process:
        pod = await bench.create_pod(a_pod("p"))
        await bench.bind(pod, "node-1")
        await until(lambda: (found := entry(process, pod)) is not None and found.is_watched)
        bench.cluster.faults.set(Fault(kind="refuse", verb="watch", resource="pods"))
        bench.cluster.faults.set(Fault(kind="end", resource="pods"))
        bench.delete_pod("p")
        bench.cluster.faults.set(Fault(kind="gone", resource="pods"))
        bench.cluster.faults.clear()

        await until(lambda: state(process, pod) == "")
        assert 0 == memory_used(process, "node-1")


async def test_a_leader_without_nats_gives_the_lease_back(bench: Bench) -> None:
    """Nobody can ask it anything: within seconds another may lead, and it stands again when the bus is back."""
    async with bench.allocator() as process:
        pod = await bench.create_pod(a_pod("p"))
        await bench.filter("p", ["node-1"])
        await bench.nats.stop()
        await until(lambda: not process.election.is_valid())
        forgotten = state(process, pod)
        await bench.nats.start()
        await until(lambda: process.leads)
        await bench.bus.wait_connected()

        assert "" == forgotten
        assert Done() == await bench.bind(pod, "node-1")


async def test_a_clean_stop_gives_the_lease_back_at_once(bench: Bench) -> None:
    """The next one need not wait for fifteen seconds."""
    async with bench.allocator() as process:
        identity = process.election.identity

    assert "" == (bench.raw(LEASES, ("kube-system", "hami-allocator"))["spec"].get("holderIdentity") or "")
    assert identity


async def test_a_clean_stop_does_not_wait_for_who_waits_for_a_node_lock(bench: Bench) -> None:
    """Nothing was sent for that pod: its bind is refused at once, and tried again with the next leader."""
    stop = asyncio.Event()
    async with bench.allocator(stop=stop) as first, bench.allocator(leads=False) as second:
        served, waiting = [await bench.create_pod(a_pod(name)) for name in ("p", "q")]
        assert Done() == await bench.bind(served, "node-1")
        unfinished = asyncio.create_task(bench.bind(waiting, "node-1"))
        await until(lambda: state(first, waiting) == "BINDING")
        began = asyncio.get_running_loop().time()
        stop.set()
        answer = await unfinished
        await until(lambda: second.leads)
        took = asyncio.get_running_loop().time() - began

        assert isinstance(answer, Refused)
        assert answer.retriable
        assert took < 3
        bench.annotate(PODS, ("team-a", "p"), {"hami.io/bind-phase": "success"})
        assert Done() == await bench.bind(waiting, "node-1")


async def test_a_clean_stop_finishes_the_binding_that_is_out(bench: Bench) -> None:
    """Whoever asked is told that the pod is bound."""
    stop = asyncio.Event()
    async with bench.allocator(stop=stop) as first, bench.allocator(leads=False) as second:
        pod = await bench.create_pod(a_pod("p"))
        await bench.register("agent-1")
        await bench.filter("p", ["agent-1"])
        bench.cluster.faults.set(Fault(kind="delay", resource="pods/binding", seconds=1))
        unfinished = asyncio.create_task(bench.bind(pod, "agent-1"))
        await until(lambda: state(first, pod) == "BINDING")
        stop.set()

        assert Done() == await unfinished
        await until(lambda: second.leads)
        assert "BOUND" == state(second, pod)


async def test_a_mark_that_a_user_writes_deposes_nobody(bench: Bench) -> None:
    """The Lease says who leads, not an annotation."""
    async with bench.allocator() as process:
        pod = await bench.create_pod(a_pod("p"))
        await bench.filter("p", ["node-1"])
        bench.cluster.faults.set(Fault(kind="hold", resource="pods"))
        bench.annotate(PODS, ("team-a", "p"), {TERM_KEY: "somebody.1"})

        assert Done() == await bench.bind(pod, "node-1")
        assert process.leads


async def test_a_mark_of_a_new_leader_ends_the_whole_term(bench: Bench) -> None:
    """Its renewals are refused, so nothing else has told this one: the bind that meets the mark looks at the Lease."""
    async with bench.allocator() as process:
        pods = [await bench.create_pod(a_pod(name)) for name in ("p", "q")]
        await bench.filter("p", ["node-1"])
        bench.cluster.faults.set(Fault(kind="hold", resource="pods"))

        def take(lease: dict[str, Any]) -> dict[str, Any]:
            return {**lease, "spec": {**lease["spec"], "holderIdentity": "next"}}

        bench.cluster.registry.patch(LEASES, ("kube-system", "hami-allocator"), take, status=False, dry_run=False)
        bench.annotate(PODS, ("team-a", "p"), {TERM_KEY: "next.1"})
        answer = await bench.bind(pods[0], "node-1")
        await until(lambda: not process.leads)

        assert isinstance(answer, Refused)
        assert answer.retriable
        assert bench.pod("p").spec.node_name is None


async def test_a_leader_that_sees_nothing_any_more_gives_the_lease_back(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its renewals are answered, its view of the pods is not: it does not stand again before it sees them."""
    monkeypatch.setattr("hami_allocator.process.OUT_OF_SIGHT", 0.5)
    async with bench.allocator() as process:
        bench.cluster.faults.set(Fault(kind="refuse", verb="list", resource="pods"))
        bench.cluster.faults.set(Fault(kind="refuse", verb="watch", resource="pods"))
        bench.cluster.faults.set(Fault(kind="end", resource="pods"))
        await until(lambda: not process.leads)
        await until(lambda: not bench.raw(LEASES, ("kube-system", "hami-allocator"))["spec"].get("holderIdentity"))
        bench.cluster.faults.clear()

        await until(lambda: process.leads)


async def test_a_leader_that_wakes_up_late_leaves_the_questions_to_the_next(bench: Bench) -> None:
    """Both hear every question while the old one finds out; only the one with the Lease answers, and at once."""
    async with bench.allocator() as first, bench.allocator(leads=False) as second:
        await bench.create_pod(a_pod("p"))
        old = first.office.means
        tasks = asyncio.TaskGroup()
        endpoints = LeaderEndpoints(
            means=old, binder=Binder(old, tasks), agents=first.office.agents, registrar=Registrar(old, tasks)
        )
        await bench.hand_over(first, second)
        lingering = await old.bus.serve("hami-allocator", endpoints.all())
        answers = [await bench.filter("p", ["node-1"]) for _ in range(10)]
        await lingering.stop()

        assert [Placed(node="node-1")] * 10 == answers
        assert "RESERVED" == state(second, PodRef.of(bench.pod("p")))
