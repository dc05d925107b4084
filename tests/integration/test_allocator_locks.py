"""Nodes whose plugin takes the pod named in a lock annotation as its own."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hami_model.bus.messages import Done, Placed, Refused
from hami_testkit.cluster.faults import Fault

from .allocator_bench import MUTEX, NODES, PODS, Bench, a_bench, a_node, a_pod, plugin_node, state, until, until_async

MLU_LOCK = "cambricon.com/dsmlu.lock"
SUCCESS = {"hami.io/bind-phase": "success"}


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    """Two nodes that HAMi's plugin serves, and one for our agent."""
    async with a_bench(tmp_path, [plugin_node("node-1"), plugin_node("node-2"), a_node("agent-1")]) as made:
        yield made


async def test_the_second_pod_waits_for_the_first_to_be_served(bench: Bench) -> None:
    """A second bind waits instead of failing into the scheduler's back-off."""
    async with bench.allocator() as process:
        first, second = [await bench.create_pod(a_pod(name)) for name in ("p", "q")]
        assert Done() == await bench.bind(first, "node-1")
        waiting = asyncio.create_task(bench.bind(second, "node-1"))
        await until(lambda: state(process, second) == "BINDING")
        lock_while_waiting = bench.node_annotations("node-1")[MUTEX]
        unbound = bench.pod("q").spec.node_name
        bench.annotate(PODS, ("team-a", "p"), SUCCESS)

        assert Done() == await waiting
        assert lock_while_waiting.endswith(",team-a,p")
        assert unbound is None
        assert bench.node_annotations("node-1")[MUTEX].endswith(",team-a,q")


async def test_who_waits_in_vain_gets_hamis_text_and_holds_nothing(bench: Bench) -> None:
    """All but six seconds of the bind's time may be spent waiting."""
    async with bench.allocator(bind_timeout=6.2) as process:
        first, second = [await bench.create_pod(a_pod(name)) for name in ("p", "q")]
        assert Done() == await bench.bind(first, "node-1")
        answer = await bench.bind(second, "node-1")

        assert Refused(error="node node-1 has been locked within 5m0s: node lock contention", retriable=True) == answer
        assert "" == state(process, second)
        assert bench.node_annotations("node-1")[MUTEX].endswith(",team-a,p")


async def test_the_end_of_the_holder_lets_the_next_one_in(bench: Bench) -> None:
    """A holder that failed before it was served keeps nobody waiting."""
    async with bench.allocator():
        first, second = [await bench.create_pod(a_pod(name)) for name in ("p", "q")]
        await bench.bind(first, "node-1")
        waiting = asyncio.create_task(bench.bind(second, "node-1"))
        bench.delete_pod("p")

        assert Done() == await waiting


async def test_a_lock_that_nobody_opens_is_taken_over_after_its_timeout(bench: Bench) -> None:
    """The holder keeps its devices; only the line moves on."""
    async with bench.allocator(node_lock_timeout=0.5) as process:
        first, second = [await bench.create_pod(a_pod(name)) for name in ("p", "q")]
        await bench.bind(first, "node-1")

        assert Done() == await bench.bind(second, "node-1")
        assert "BOUND" == state(process, first)


async def test_a_restart_remembers_who_is_between_lock_and_confirmation(bench: Bench) -> None:
    """The lock annotation and the bound, unconfirmed pod say so."""
    async with bench.allocator():
        first = await bench.create_pod(a_pod("p"))
        assert Done() == await bench.bind(first, "node-1")
    async with bench.allocator() as process:
        second = await bench.create_pod(a_pod("q"))
        waiting = asyncio.create_task(bench.bind(second, "node-1"))
        await until(lambda: state(process, second) == "BINDING")
        held = bench.node_annotations("node-1")[MUTEX]
        bench.annotate(PODS, ("team-a", "p"), SUCCESS)

        assert Done() == await waiting
        assert held.endswith(",team-a,p")


@pytest.mark.parametrize("written", ["GPU-9,NVIDIA,1000,0:;", "nonsense"])
async def test_a_pod_that_came_past_the_scheduler_stands_in_no_line(bench: Bench, written: str) -> None:
    """Its annotation may name devices, which it holds; nobody wrote that a plugin is about to take it for its own."""
    async with bench.allocator(bind_timeout=6.2) as process:
        stray = a_pod("stray", **{"hami.io/vgpu-devices-allocated": written})
        stray["spec"]["nodeName"] = "node-1"
        held = await bench.create_pod(stray)
        await until(lambda: state(process, held) == "BOUND")
        second = await bench.create_pod(a_pod("q"))

        assert Done() == await bench.bind(second, "node-1")


async def test_a_lock_is_written_on_the_node_as_it_is_now(bench: Bench) -> None:
    """Our view of the node is old: 409, read again, written."""
    async with bench.allocator():
        pod = await bench.create_pod(a_pod("p"))
        bench.cluster.faults.set(Fault(kind="hold", resource="nodes"))
        bench.annotate(NODES, ("", "node-1"), {"example.com/note": "changed"})

        assert Done() == await bench.bind(pod, "node-1")
        assert bench.node_annotations("node-1")[MUTEX].endswith(",team-a,p")


async def test_cambricons_plugin_reads_a_lock_of_its_own(bench: Bench) -> None:
    """A bare time under its own key; NVIDIA pods of the same node do not wait for it."""
    async with bench.allocator():
        mlu = a_pod("mlu")
        limits = {
            "cambricon.com/vmlu": "1",
            "cambricon.com/mlu.smlu.vmemory": "10",
            "cambricon.com/mlu.smlu.vcore": "10",
        }
        mlu["spec"]["containers"][0]["resources"] = {"limits": limits, "requests": limits}
        bench.set_status(NODES, ("", "node-1"), **_with_mlus())
        bench.annotate(NODES, ("", "node-1"), {"cambricon.com/dsmlu.profile": "x"})
        first, second = await bench.create_pod(mlu), await bench.create_pod(a_pod("q"))
        await until_placed(bench, "mlu")
        assert Done() == await bench.bind(first, "node-1")
        assert Done() == await bench.bind(second, "node-1")
        locks = bench.node_annotations("node-1")

        assert "," not in locks[MLU_LOCK]
        assert locks[MUTEX].endswith(",team-a,q")


def _with_mlus() -> dict[str, object]:
    amounts = {
        "nvidia.com/gpu": "20",
        "cambricon.com/mlu.smlu.vmemory": "400",
        "cambricon.com/mlu.smlu.vcore": "400",
        "cambricon.com/real-mlu-counts": "4",
        "cambricon.com/vmlu": "4",
    }
    return {"capacity": amounts, "allocatable": amounts}


async def until_placed(bench: Bench, name: str) -> None:
    """Wait until the allocator has seen what the pod needs."""

    async def is_placed() -> bool:
        return isinstance(await bench.filter(name, ["node-1"]), Placed)

    await until_async(is_placed)


@pytest.mark.parametrize("left", ["2026-01-01T00:00:00Z,team-a,gone", "2026-01-01T00:00:00Z", "nonsense"])
async def test_a_lock_that_nobody_holds_is_cleared_by_the_next_leader(bench: Bench, left: str) -> None:
    """The leader that wrote it died before its pod was bound, or served; or somebody wrote rubbish there."""
    bench.annotate(NODES, ("", "node-1"), {MUTEX: left})
    async with bench.allocator():
        await until(lambda: MUTEX not in bench.node_annotations("node-1"))


async def test_a_lock_of_an_earlier_term_keeps_nobody_waiting(bench: Bench) -> None:
    """Its pod ended while this process led no more: nobody was on duty to open it."""
    async with bench.allocator(bind_timeout=6.5) as process:
        first, second = [await bench.create_pod(a_pod(name)) for name in ("p", "q")]
        assert Done() == await bench.bind(first, "node-1")
        await bench.nats.stop()
        await until(lambda: not process.leads)
        bench.delete_pod("p")
        await until(lambda: state(process, first) == "")
        await bench.nats.start()
        await until(lambda: process.leads)
        await bench.bus.wait_connected()

        assert Done() == await bench.bind(second, "node-1")
        assert bench.node_annotations("node-1")[MUTEX].endswith(",team-a,q")
