"""The sweep of a new leader: whatever the API server does meanwhile, nobody is answered before it is done."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hami_allocator.fence import TERM_KEY
from hami_allocator.process import Process
from hami_model.allocation import Allocation
from hami_model.annotations import MOST_BYTES
from hami_model.bus.messages import Done, Placed
from hami_model.objects import PodRef
from hami_testkit.cluster.faults import Fault
from hami_testkit.cluster.resources import LEASES

from .allocator_bench import Bench, a_bench, a_node, a_pod, entry, memory_used, plugin_node, state, until


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    """A node that HAMi's plugin serves, and one for our agent."""
    async with a_bench(tmp_path, [plugin_node("node-1"), a_node("agent-1")]) as made:
        yield made


def marks(bench: Bench, pods: list[PodRef]) -> list[str]:
    """Return whose mark each pod carries, empty for none."""
    return [bench.pod(pod.name).annotations.get(TERM_KEY, "").rpartition(".")[0] for pod in pods]


async def pending(bench: Bench, count: int) -> list[PodRef]:
    """Create pods that wait for devices."""
    return [await bench.create_pod(a_pod(f"p{n}")) for n in range(count)]


async def test_only_pods_that_ask_for_devices_are_marked(bench: Bench) -> None:
    """Other pods' Bindings book nothing."""
    asking, other = await pending(bench, 3), await bench.create_pod(a_pod("plain", gpu=0))
    async with bench.allocator() as process:
        assert [process.election.identity] * 3 == marks(bench, asking)
        assert [""] == marks(bench, [other])


@pytest.mark.parametrize(
    "fault",
    [
        Fault(kind="refuse", verb="patch", resource="pods", code=429, times=5),
        Fault(kind="refuse", verb="patch", resource="pods", code=503, times=5),
        Fault(kind="drop", verb="patch", resource="pods", times=5),
        Fault(kind="refuse", verb="list", resource="pods", name="*", code=503, times=2),
        Fault(kind="refuse", verb="list", resource="pods", name="*", code=410, times=2),
    ],
    ids=["429", "503", "lost answers", "list 503", "list 410"],
)
async def test_an_api_server_in_trouble_is_asked_again_until_all_are_marked(bench: Bench, fault: Fault) -> None:
    """A sweep that left one pod out would fence off nothing."""
    pods = await pending(bench, 8)
    async with bench.allocator(leads=False) as process:
        bench.cluster.faults.set(fault)
        await until(lambda: process.leads)

        assert [process.election.identity] * 8 == marks(bench, pods)


async def test_pods_deleted_meanwhile_hold_up_nothing(bench: Bench) -> None:
    """They are gone before their mark arrives, one of them bound by an earlier leader's last Binding."""
    pods = await pending(bench, 40)
    bench.cluster.faults.set(Fault(kind="delay", verb="patch", resource="pods", seconds=0.3))
    async with bench.allocator(leads=False) as process:
        await until(lambda: any(marks(bench, pods)))
        for pod in pods[20:]:
            bench.delete_pod(pod.name)
        await until(lambda: process.leads)

        assert [process.election.identity] * 20 == marks(bench, pods[:20])
        assert {pod.uid for pod in pods[:20]} == set(process.office.means.world.unbound)


async def test_a_binding_that_lands_during_the_sweep_is_counted(bench: Bench) -> None:
    """It was on its way when the new leader listed; its mark's answer, or the watch, shows the pod bound."""
    async with bench.allocator() as earlier:
        pod = await bench.create_pod(a_pod("p"))
        await bench.filter("p", ["node-1"])
        grants = [g for c in entry_of(earlier, pod).containers for g in c.grants]
    written = {
        "hami.io/vgpu-devices-allocated": f"{grants[0].uuid},NVIDIA,1000,0:;",
        "hami.io/bind-phase": "allocating",
    }
    bench.cluster.faults.set(Fault(kind="delay", verb="patch", resource="pods", seconds=0.5))
    async with bench.allocator(leads=False) as process, bench.kube() as kube:
        await until(process.election.is_valid)
        await kube.bind_pod(pod, "node-1", resource_version="", annotations=written)
        await until(lambda: process.leads)

        assert ("BOUND", 1000) == (state(process, pod), memory_used(process, "node-1"))


def entry_of(process: Process, pod: PodRef) -> Allocation:
    found = entry(process, pod)
    assert found is not None
    return found.allocation


async def test_a_pod_without_room_for_a_mark_holds_up_nobody(bench: Bench) -> None:
    """Where no mark fits, no Binding of ours was sent either: it is longer."""
    full = a_pod("full", **{"example.com/note": "x" * (MOST_BYTES - len("example.com/note"))})
    await bench.create_pod(full)
    async with bench.allocator():
        await bench.create_pod(a_pod("p"))

        assert Placed(node="node-1") == await bench.filter("p", ["node-1"])


async def test_the_lease_lost_in_the_middle_of_a_sweep_ends_it(bench: Bench) -> None:
    """It marks nothing more; who leads next sweeps all of them again."""
    pods = await pending(bench, 200)
    bench.cluster.faults.set(Fault(kind="delay", verb="patch", resource="pods", seconds=0.3))
    async with bench.allocator(leads=False) as first:
        await until(lambda: any(marks(bench, pods)))

        def take(lease: dict[str, dict[str, str]]) -> dict[str, dict[str, str]]:
            return {**lease, "spec": {**lease["spec"], "holderIdentity": "operator"}}

        bench.cluster.registry.patch(LEASES, ("kube-system", "hami-allocator"), take, status=False, dry_run=False)
        await first.election.look()
        bench.cluster.faults.clear()
        await bench.bus.wait_connected()
        marked = 200 - marks(bench, pods).count("")

        assert not first.leads
        assert marked < 200


async def test_the_loop_answers_while_a_thousand_pods_are_swept(bench: Bench) -> None:
    """The Lease is renewed and /readyz read meanwhile: no step of the sweep holds the loop for long."""
    await pending(bench, 1000)
    longest = 0.0
    async with bench.allocator(leads=False) as process:
        loop = asyncio.get_running_loop()
        while not process.leads:
            began = loop.time()
            await asyncio.sleep(0)
            longest = max(longest, loop.time() - began)
        pod = PodRef.of(bench.pod("p999"))

        assert longest < 1.0
        assert Done() == await bench.bind(pod, "node-1")


async def test_a_filter_goes_before_twenty_thousand_changes_that_wait(bench: Bench) -> None:
    """kube-scheduler places nothing else while it waits: news of the cluster have time."""
    async with bench.allocator() as process:
        await bench.create_pod(a_pod("p"))
        writer, told = process.office.means.writer, list[int]()
        for number in range(20_000):
            writer.tell(lambda number=number: told.append(number))  # type: ignore[misc]
        answer = await bench.filter("p", ["node-1"])
        before = len(told)

        assert Placed(node="node-1") == answer
        assert before < 20_000
        await until(lambda: told == list(range(20_000)))
