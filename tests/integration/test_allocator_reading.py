"""Read-only questions: quota, explain, simulate, snapshot, and the metrics page."""

from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from hami_model.bus import subjects
from hami_model.bus.messages import (
    AskQuota,
    AskSnapshot,
    ExplainAnswer,
    ExplainPod,
    Explanation,
    QuotaAllowed,
    QuotaAnswer,
    QuotaDenied,
    QuotaNeed,
    Refused,
    Simulate,
    SimulateAnswer,
    Simulated,
    Snapshot,
    SnapshotAnswer,
)
from hami_model.objects import Node
from prometheus_client.parser import text_string_to_metric_families

from .allocator_bench import PODS, QUOTAS, Bench, a_bench, a_pod, memory_used, page, plugin_node, state, until


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    """Three nodes that HAMi's plugin serves."""
    async with a_bench(tmp_path, [plugin_node(f"node-{i}") for i in (1, 2, 3)]) as made:
        yield made


async def set_quota(bench: Bench, mem: int) -> None:
    quota = {
        "metadata": {"name": "gpus", "namespace": "team-a"},
        "spec": {"hard": {"limits.nvidia.com/gpumem": str(mem)}},
    }
    await bench.cluster.registry.create(QUOTAS, quota, namespace="team-a")


async def test_the_quota_question_knows_what_is_used(bench: Bench) -> None:
    """Admission hears the numbers."""
    async with bench.allocator() as process:
        await set_quota(bench, 2000)
        pod = await bench.create_pod(a_pod("p", mem=1500))
        await until(lambda: process.office.means.world.quotas.limit("team-a", "nvidia.com/gpumem") == 2000)
        await bench.bind(pod, "node-1")
        need = AskQuota(namespace="team-a", needs=[QuotaNeed(vendor="NVIDIA", memory=1000, cores=0)])
        small = AskQuota(namespace="team-a", needs=[QuotaNeed(vendor="NVIDIA", memory=500, cores=0)])
        denied = await bench.bus.request(subjects.QUOTA, need, QuotaAnswer, timeout=5)

        assert QuotaDenied(resource="nvidia.com/gpumem", used=1500, limit=2000, wanted=1000) == denied
        assert QuotaAllowed() == await bench.bus.request(subjects.QUOTA, small, QuotaAnswer, timeout=5)


async def test_explain_says_where_a_pod_is_and_why_another_waits(bench: Bench) -> None:
    """Card by card, with what was wanted and what was there."""
    async with bench.allocator() as process:
        pod = await bench.create_pod(a_pod("p"))
        await bench.create_pod(a_pod("huge", mem=9000))
        await bench.bind(pod, "node-1")
        await until(lambda: any(p.metadata.name == "huge" for p in process.office.means.world.unbound.values()))
        held = await bench.bus.request(
            subjects.EXPLAIN, ExplainPod(namespace="team-a", name="p"), ExplainAnswer, timeout=5
        )
        waits = await bench.bus.request(
            subjects.EXPLAIN, ExplainPod(namespace="team-a", name="huge"), ExplainAnswer, timeout=5
        )
        unknown = await bench.bus.request(
            subjects.EXPLAIN, ExplainPod(namespace="team-a", name="nobody"), ExplainAnswer, timeout=5
        )

        assert isinstance(held, Explanation)
        assert held.allocation is not None
        assert ("BOUND", "node-1") == (held.state, held.allocation.node)
        assert isinstance(waits, Explanation)
        assert ["2/2 CardInsufficientMemory"] * 3 == [node.text for node in waits.nodes]
        assert {"CardInsufficientMemory"} == {card.reason for node in waits.nodes for card in node.cards}
        assert isinstance(unknown, Refused)


async def test_a_what_if_answers_from_the_given_nodes_and_changes_nothing(bench: Bench) -> None:
    """For autoscalers: the nodes of the question, empty, whatever runs on their namesakes."""
    async with bench.allocator() as process:
        pod = await bench.create_pod(a_pod("p", mem=8000, gpu=2))
        await bench.bind(pod, "node-1")
        before = process.office.means.world.ledger.entries
        await bench.create_pod(a_pod("asked", mem=8000))
        nodes = [msgspec.convert(plugin_node("node-1"), Node), msgspec.convert(plugin_node("small", 0), Node)]
        question = Simulate(pod=bench.pod("asked"), nodes=nodes)
        answer = await bench.bus.request(subjects.SIMULATE, question, SimulateAnswer, timeout=5)
        nowhere = Simulate(pod=bench.pod("asked"), nodes=nodes[1:])

        assert isinstance(answer, Simulated)
        assert "node-1" == answer.node
        assert Simulated(node=None, failed={"small": "node unregistered"}) == await bench.bus.request(
            subjects.SIMULATE, nowhere, SimulateAnswer, timeout=5
        )
        assert before == process.office.means.world.ledger.entries
        assert 16000 == memory_used(process, "node-1")


async def test_a_snapshot_comes_in_pages_with_all_that_is_booked(bench: Bench) -> None:
    """Nodes by name; the last page has no next."""
    async with bench.allocator() as process:
        pod = await bench.create_pod(a_pod("p"))
        await bench.bind(pod, "node-2")
        pages = [await bench.bus.request(subjects.SNAPSHOT, AskSnapshot(limit=2), SnapshotAnswer, timeout=5)]
        assert isinstance(pages[0], Snapshot)
        following = AskSnapshot(after=pages[0].next, limit=2)
        pages.append(await bench.bus.request(subjects.SNAPSHOT, following, SnapshotAnswer, timeout=5))

        assert [["node-1", "node-2"], ["node-3"]] == [[n.node for n in p.nodes] for p in pages]
        assert ["node-2", ""] == [p.next for p in pages]
        assert [1000, 0] == sorted((d.used_memory for d in pages[0].nodes[1].devices), reverse=True)
        assert ["BOUND"] == [b.state for b in pages[0].bookings]
        assert process.election.identity == pages[0].leader


async def test_the_metrics_page_shows_the_fleet_in_hamis_names(bench: Bench) -> None:
    """And the process' own beside it; the old names only when asked for."""
    async with bench.allocator(legacy_metrics=True) as process:
        await set_quota(bench, 4000)
        pod = await bench.create_pod(a_pod("p", mem=2000))
        await until(lambda: process.office.means.world.quotas.limit("team-a", "nvidia.com/gpumem") == 4000)
        await bench.bind(pod, "node-1")
        text = (await page(process, "/metrics")).text
        found = {
            (s.name, s.labels.get("device_uuid", "")): s
            for family in text_string_to_metric_families(text)
            for s in family.samples
        }
        used = found["hami_vgpu_memory_allocated_bytes", "GPU-node-1-1"]

        assert 2000 * 2**20 == used.value
        assert {"namespace": "team-a", "node": "node-1", "pod": "p", "container_index": "0", "zone": "vGPU"} == {
            k: v for k, v in used.labels.items() if k != "device_uuid"
        }
        assert 8000 * 2**20 == found["hami_gpu_memory_limit_bytes", "GPU-node-3-0"].value
        assert "2000" in str(found["hami_resource_quota_used", ""].value)
        assert 4000 == found["hami_resource_quota_limit", ""].value
        assert ("hami_build_info", "") in found
        assert ("GPUDeviceMemoryLimit", "") in found
        assert 1 == found["hami_allocator_leading", ""].value


async def test_a_confirmed_pod_counts_like_a_bound_one(bench: Bench) -> None:
    """The page does not care how far a pod is."""
    async with bench.allocator() as process:
        pod = await bench.create_pod(a_pod("p"))
        await bench.bind(pod, "node-1")
        bench.annotate(PODS, ("team-a", "p"), {"hami.io/bind-phase": "success"})
        await until(lambda: state(process, pod) == "ACTIVE")

        assert 'hami_allocator_allocations{state="ACTIVE"} 1.0' in (await page(process, "/metrics")).text
