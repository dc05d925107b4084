"""From filter to served: what the allocator reserves, writes and confirms, and what it does when answers are lost."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Literal

import pytest
from hami_model.allocation import MadeInstance
from hami_model.bus import subjects
from hami_model.bus.messages import Confirm, Done, NodeAnswer, Placed, PushAllocation, Refused, Unplaced
from hami_model.device import MigProfile, Placement
from hami_testkit.cluster.faults import Fault
from msgspec import structs

from .allocator_bench import (
    MUTEX,
    PODS,
    Bench,
    a_bench,
    a_node,
    a_pod,
    cards,
    entry,
    memory_used,
    plugin_node,
    state,
    until,
)

PIECES = "hami.io/vgpu-mig-allocations"


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    """Two nodes that HAMi's plugin serves, and one for our agent."""
    async with a_bench(tmp_path, [plugin_node("node-1"), plugin_node("node-2"), a_node("agent-1")]) as made:
        yield made


async def test_a_pod_is_placed_bound_and_confirmed(bench: Bench) -> None:
    """One Binding writes everything; the plugin confirms, and one patch ends it."""
    async with bench.allocator() as process:
        pod = await bench.create_pod(a_pod("p"))
        assert Placed(node="node-1") == await bench.filter("p", ["node-1"])
        assert "RESERVED" == state(process, pod)
        assert Done() == await bench.bind(pod, "node-1")
        bound = bench.pod("p")
        lock = bench.node_annotations("node-1").get(MUTEX, "")
        bench.annotate(PODS, ("team-a", "p"), {"hami.io/bind-phase": "success"})
        await until(lambda: (bench.pod("p").metadata.labels or {}).get("hami.io/vgpu-node") == "node-1")
        await until(lambda: MUTEX not in bench.node_annotations("node-1"))
        served = bench.pod("p")

        assert "node-1" == bound.spec.node_name
        assert "GPU-node-1-1,NVIDIA,1000,0:;" == bound.annotations["hami.io/vgpu-devices-allocated"]
        assert "GPU-node-1-1,NVIDIA,1000,0:;" == bound.annotations["hami.io/vgpu-devices-to-allocate"]
        assert "allocating" == bound.annotations["hami.io/bind-phase"]
        assert lock.endswith(",team-a,p")
        assert "ACTIVE" == state(process, pod)
        assert ";" == served.annotations["hami.io/vgpu-devices-to-allocate"]
        assert "GPU-node-1-1,NVIDIA,1000,0:;" == served.annotations["hami.io/vgpu-devices-allocated"]


async def test_two_halves_share_a_card_and_a_third_does_not_fit(bench: Bench) -> None:
    """The point of it all."""
    async with bench.allocator(node_scheduler_policy="binpack", gpu_scheduler_policy="binpack") as process:
        for name in ("p", "q"):
            pod = await bench.create_pod(a_pod(name, mem=4000))
            bench.annotate(PODS, ("team-a", name), {"nvidia.com/use-gpuuuid": "GPU-agent-1-0"})
            await bench.register("agent-1", count=1)
            assert Placed(node="agent-1") == await bench.filter(name, ["agent-1"])
            assert Done() == await bench.bind(pod, "agent-1")
        third = await bench.create_pod(a_pod("r", mem=4000))

        assert Unplaced(reasons={"1/1 CardInsufficientMemory": [0]}) == await bench.filter("r", ["agent-1"])
        assert 8000 == memory_used(process, "agent-1")
        assert entry(process, third) is None


async def test_our_agent_hears_of_the_allocation_before_the_binding_and_confirms_it(bench: Bench) -> None:
    """No lock is written where the agent finds out whose Allocate it is."""
    pushed: list[PushAllocation] = []

    async def on_push(_subject: str, message: PushAllocation) -> None:
        pushed.append(message)

    async with bench.allocator() as process:
        await bench.bus.subscribe(subjects.of_node("agent-1", "allocation"), PushAllocation, on_push)
        assert Done() == await bench.register("agent-1")
        pod = await bench.create_pod(a_pod("p"))
        await bench.filter("p", ["agent-1"])
        await bench.bind(pod, "agent-1")
        devices = [g.uuid for c in pushed[0].allocation.containers for g in c.grants]
        word = Confirm(node="agent-1", pod=pod, container="main", devices=devices, complete=True)
        answer = await bench.bus.request(subjects.of_node("agent-1", "confirm"), word, NodeAnswer, timeout=5)
        await until(lambda: bench.pod("p").annotations.get("hami.io/bind-phase") == "success")

        assert Done() == answer
        assert MUTEX not in bench.node_annotations("agent-1")
        assert "ACTIVE" == state(process, pod)


async def test_an_instance_that_is_told_of_late_is_written_into_the_pod(bench: Bench) -> None:
    """NATS was down while the container started; the agent's word comes when the pod is ACTIVE already."""
    profile = MigProfile(name="1g.5gb", memory=4864, cores=15, slices=1, placements=(Placement(6, 1),))
    card = structs.replace(cards("agent-1")[0], mode="mig", slots=7, mig_profiles=(profile,))
    made = MadeInstance(container="main", place=0, device=card.id, uuid="MIG-1", gpu_instance=0, compute_instance=0)
    async with bench.allocator() as process:
        assert Done() == await bench.register("agent-1", devices=[card])
        pod = await bench.create_pod(a_pod("p"))
        assert Placed(node="agent-1") == await bench.filter("p", ["agent-1"])
        await bench.bind(pod, "agent-1")
        bench.annotate(PODS, ("team-a", "p"), {"hami.io/bind-phase": "success"})
        await until(lambda: state(process, pod) == "ACTIVE")
        before = json.loads(bench.pod("p").annotations[PIECES])
        word = Confirm(node="agent-1", pod=pod, container="main", devices=[card.id], complete=True, instances=[made])
        await bench.bus.request(subjects.of_node("agent-1", "confirm"), word, NodeAnswer, timeout=5)
        await until(lambda: "MIG-1" in bench.pod("p").annotations[PIECES])
        after = json.loads(bench.pod("p").annotations[PIECES])

    identity = {"migUUID": "MIG-1", "gpuInstanceID": 0, "computeInstanceID": 0}
    assert [{**before[0], **identity}] == after


async def test_a_pod_without_devices_is_bound_plainly(bench: Bench) -> None:
    """No annotation, no lock, nothing in the books."""
    async with bench.allocator() as process:
        pod = await bench.create_pod(a_pod("p", gpu=0))
        assert Done() == await bench.bind(pod, "node-1")

        assert "node-1" == bench.pod("p").spec.node_name
        assert {} == bench.pod("p").annotations
        assert entry(process, pod) is None


async def test_a_bind_without_reservation_decides_on_the_named_node(bench: Bench) -> None:
    """A restart between filter and bind forgets reservations, not pods."""
    async with bench.allocator() as process:
        pod = await bench.create_pod(a_pod("p"))
        assert Done() == await bench.bind(pod, "node-2")

        assert 1000 == memory_used(process, "node-2")
        assert "GPU-node-2-1,NVIDIA,1000,0:;" == bench.pod("p").annotations["hami.io/vgpu-devices-allocated"]


async def test_a_lost_answer_is_looked_up_and_the_pod_is_bound_once(bench: Bench) -> None:
    """The API server stored the Binding and the connection was cut."""
    async with bench.allocator() as process:
        pod = await bench.create_pod(a_pod("p"))
        await bench.filter("p", ["node-1"])
        bench.cluster.faults.set(Fault(kind="drop", verb="*", resource="pods/binding", times=1))

        assert Done() == await bench.bind(pod, "node-1")
        assert "BOUND" == state(process, pod)
        assert 1000 == memory_used(process, "node-1")


async def test_a_pod_that_changed_since_filter_is_bound_after_a_fresh_look(bench: Bench) -> None:
    """Somebody patched it meanwhile: 409, read again, same demand, bound."""
    async with bench.allocator() as process:
        pod = await bench.create_pod(a_pod("p"))
        await bench.filter("p", ["node-1"])
        bench.cluster.faults.set(Fault(kind="hold", resource="pods"))
        bench.annotate(PODS, ("team-a", "p"), {"example.com/note": "changed"})

        assert Done() == await bench.bind(pod, "node-1")
        assert "changed" == bench.pod("p").annotations["example.com/note"]
        assert "BOUND" == state(process, pod)


async def test_a_pod_deleted_while_its_binding_was_out_holds_nothing(bench: Bench) -> None:
    """The Binding meets 404: proof that it cannot land."""
    async with bench.allocator() as process:
        pod = await bench.create_pod(a_pod("p"))
        await bench.filter("p", ["node-1"])
        bench.cluster.faults.set(Fault(kind="hold", resource="pods"))
        bench.delete_pod("p")
        answer = await bench.bind(pod, "node-1")

        assert isinstance(answer, Refused)
        assert "" == state(process, pod)
        assert 0 == memory_used(process, "node-1")
        await until(lambda: MUTEX not in bench.node_annotations("node-1"))


async def test_a_binding_whose_outcome_is_unknown_holds_its_devices_until_it_is_proved(bench: Bench) -> None:
    """The API server says nothing for longer than the bind may take."""
    async with bench.allocator(bind_timeout=1.5) as process:
        pod = await bench.create_pod(a_pod("p"))
        await bench.register("agent-1")
        await bench.filter("p", ["agent-1"])
        bench.cluster.faults.set(Fault(kind="refuse", resource="pods/binding", code=503))
        bench.cluster.faults.set(Fault(kind="refuse", verb="get", resource="pods", code=503))
        bench.cluster.faults.set(Fault(kind="refuse", verb="patch", resource="pods", code=503))
        answer = await bench.bind(pod, "agent-1")
        unproved = state(process, pod)
        used = memory_used(process, "agent-1")
        bench.cluster.faults.clear()
        await until(lambda: state(process, pod) == "")

        assert isinstance(answer, Refused)
        assert answer.retriable
        assert ("BINDING", 1000) == (unproved, used)
        assert 0 == memory_used(process, "agent-1")


async def test_a_second_bind_joins_the_first_and_a_filter_waits_for_it(bench: Bench) -> None:
    """The scheduler asks again while the Binding is out: one Binding, one answer for both; no other node meanwhile."""
    async with bench.allocator() as process:
        pod = await bench.create_pod(a_pod("p"))
        await bench.register("agent-1")
        await bench.filter("p", ["agent-1"])
        bench.cluster.faults.set(Fault(kind="delay", resource="pods/binding", seconds=0.5, times=1))
        binds = [asyncio.create_task(bench.bind(pod, "agent-1")) for _ in range(2)]
        await until(lambda: state(process, pod) == "BINDING")
        elsewhere = await bench.bind(pod, "node-1")
        filtered = await bench.filter("p", ["node-1", "agent-1"])

        assert [Done(), Done()] == [await bind for bind in binds]
        assert isinstance(elsewhere, Refused)
        assert elsewhere.retriable
        assert isinstance(filtered, Refused)
        assert filtered.retriable
        assert ("agent-1", 1000) == (bench.pod("p").spec.node_name, memory_used(process, "agent-1"))


async def test_a_namesake_created_anew_is_another_pod(bench: Bench) -> None:
    """The old one's bind comes late: it is refused, and the new one holds what it was given itself."""
    async with bench.allocator() as process:
        old = await bench.create_pod(a_pod("p"))
        await bench.filter("p", ["node-1"])
        bench.cluster.faults.set(Fault(kind="hold", resource="pods"))
        bench.delete_pod("p")
        new = await bench.create_pod(a_pod("p", mem=2000))
        late = await bench.bind(old, "node-1")
        bench.cluster.faults.clear()
        await until(lambda: state(process, old) == "")

        assert isinstance(late, Refused)
        assert bench.pod("p").spec.node_name is None
        assert Done() == await bench.bind(new, "node-2")
        assert (0, 2000) == (memory_used(process, "node-1"), memory_used(process, "node-2"))


async def test_a_bind_after_the_reservation_ran_out_decides_again(bench: Bench) -> None:
    """Somebody else may have the cards by now: then the node does not take the pod, and the scheduler tries again."""
    async with bench.allocator(reservation_timeout=0.2) as process:
        first, second = [await bench.create_pod(a_pod(name, gpu=2, mem=8000)) for name in ("p", "q")]
        await bench.register("agent-1")
        await bench.filter("p", ["agent-1"])
        await until(lambda: state(process, first) == "")
        assert Done() == await bench.bind(second, "agent-1")
        answer = await bench.bind(first, "agent-1")

        assert isinstance(answer, Refused)
        assert answer.retriable
        assert "does not take pod team-a/p any more" in answer.error


@pytest.mark.parametrize("kind", ["drop", "refuse"])
async def test_a_plain_pod_is_bound_whatever_became_of_the_first_answer(
    bench: Bench, kind: Literal["drop", "refuse"]
) -> None:
    """Lost after it was stored, or refused for a moment."""
    async with bench.allocator():
        pod = await bench.create_pod(a_pod("p", gpu=0))
        bench.cluster.faults.set(Fault(kind=kind, resource="pods/binding", times=1))

        assert Done() == await bench.bind(pod, "node-1")
        assert "node-1" == bench.pod("p").spec.node_name


async def test_a_plain_pod_that_may_not_be_read_harms_nobody_else(bench: Bench) -> None:
    """Its bind is refused; the leader goes on."""
    async with bench.allocator() as process:
        pod = await bench.create_pod(a_pod("p", gpu=0))
        bench.cluster.faults.set(Fault(kind="refuse", resource="pods/binding", times=1))
        bench.cluster.faults.set(Fault(kind="delay", verb="get", resource="pods", name="p", times=1))
        bench.cluster.faults.set(Fault(kind="refuse", verb="get", resource="pods", name="p", code=403))
        answer = await bench.bind(pod, "node-1")
        bench.cluster.faults.clear()

        assert isinstance(answer, Refused)
        assert process.leads
        assert Done() == await bench.bind(pod, "node-1")


async def test_a_pod_that_somebody_else_bound_here_gets_its_annotations(bench: Bench) -> None:
    """Even where the patch that writes them is refused for a while: without them a restart would not find its cards."""
    async with bench.allocator() as process, bench.kube() as kube:
        pod = await bench.create_pod(a_pod("p"))
        await bench.register("agent-1")
        await bench.filter("p", ["agent-1"])
        bench.cluster.faults.set(Fault(kind="hold", resource="pods"))
        await kube.bind_pod(pod, "agent-1", resource_version="", annotations={})
        bench.cluster.faults.set(Fault(kind="refuse", verb="patch", resource="pods", code=503, times=2))

        assert Done() == await bench.bind(pod, "agent-1")
        assert "GPU-agent-1-1,NVIDIA,1000,0:;" == bench.pod("p").annotations["hami.io/vgpu-devices-allocated"]
        assert "BOUND" == state(process, pod)


async def test_a_reservation_nobody_comes_for_runs_out(bench: Bench) -> None:
    """Its cards are free for the next pod."""
    async with bench.allocator(reservation_timeout=0.2) as process:
        pod = await bench.create_pod(a_pod("p", mem=8000))
        await bench.filter("p", ["node-1"])
        reserved = memory_used(process, "node-1")
        await until(lambda: state(process, pod) == "")

        assert (8000, 0) == (reserved, memory_used(process, "node-1"))


async def test_the_end_of_a_pod_frees_its_devices(bench: Bench) -> None:
    """Succeeded, Failed or gone; being deleted ends nothing."""
    async with bench.allocator() as process:
        pods = {name: await bench.create_pod(a_pod(name)) for name in ("p", "q")}
        await bench.register("agent-1")
        for name, pod in pods.items():
            await bench.filter(name, ["agent-1"])
            await bench.bind(pod, "agent-1")
        bench.set_status(PODS, ("team-a", "p"), phase="Succeeded")
        await until(lambda: state(process, pods["p"]) == "")
        bench.delete_pod("q")
        await until(lambda: state(process, pods["q"]) == "")

        assert 0 == memory_used(process, "agent-1")
