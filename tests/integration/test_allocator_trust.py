"""How far pods are believed: whoever may edit a pod can neither block nor free a card, nor keep us from leading."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hami_allocator.fence import TERM_KEY
from hami_model.bus.messages import Done, Placed, Unplaced
from hami_testkit.cluster.faults import Fault

from .allocator_bench import PODS, Bench, a_bench, a_pod, memory_used, plugin_node, state, until

ALLOCATED = "hami.io/vgpu-devices-allocated"
PREFILLED = {
    ALLOCATED: "GPU-node-2-0,NVIDIA,8000,100:;",
    "hami.io/vgpu-devices-to-allocate": "GPU-node-2-0,NVIDIA,8000,100:;",
    "hami.io/vgpu-node": "node-2",
    "hami.io/bind-phase": "success",
    TERM_KEY: "somebody.7",
    "hami.io/traceparent": "00-nonsense",
}
"""What an allocator, or a plugin, might have written."""


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    """Two nodes of two cards that HAMi's plugin serves."""
    async with a_bench(tmp_path, [plugin_node("node-1"), plugin_node("node-2")]) as made:
        yield made


async def test_what_a_user_wrote_before_holds_nothing_and_is_overwritten(bench: Bench) -> None:
    """The pod is placed and bound as if nothing stood there, and waits for its plugin like any other."""
    pod = await bench.create_pod(a_pod("p", mem=8000, **PREFILLED))
    async with bench.allocator() as process:
        waiting = memory_used(process, "node-2")
        placed = await bench.filter("p", ["node-1"])
        bound = await bench.bind(pod, "node-1")
        written = bench.pod("p").annotations

        assert (0, Placed(node="node-1"), Done()) == (waiting, placed, bound)
        assert "BOUND" == state(process, pod)
        assert ("node-1", "allocating") == (written["hami.io/vgpu-node"], written["hami.io/bind-phase"])
        assert written[ALLOCATED].startswith("GPU-node-1-")
        assert 0 == memory_used(process, "node-2")


async def test_nobody_frees_a_card_by_deleting_annotations(bench: Bench) -> None:
    """Not while we watch, and not for who starts later: a running container holds what it was given."""
    async with bench.allocator() as process:
        pod = await bench.create_pod(a_pod("p", mem=8000))
        await bench.bind(pod, "node-1")
        started = {"name": "main", "started": True, "state": {"running": {}}}
        bench.set_status(PODS, ("team-a", "p"), phase="Running", containerStatuses=[started])
        await until(lambda: bench.pod("p").annotations.get("hami.io/bind-phase") == "success")
        bench.annotate(PODS, ("team-a", "p"), dict.fromkeys(bench.pod("p").annotations, None))
        await until(lambda: set(bench.pod("p").annotations) == {"hami.io/bind-phase"})  # seen, and marked again
        watched = memory_used(process, "node-1")
    async with bench.allocator() as process:
        await bench.create_pod(a_pod("q"))

        assert (8000, 16000) == (watched, memory_used(process, "node-1"))
        assert isinstance(await bench.filter("q", ["node-1"]), Unplaced)


async def test_a_pod_whose_annotations_are_full_keeps_nobody_from_leading(bench: Bench) -> None:
    """It takes no mark; no Binding of ours would have fitted either. Others are served."""
    filler = "x" * (256 * 1024 - len("example.com/note"))
    await bench.create_pod(a_pod("full", **{"example.com/note": filler}))
    async with bench.allocator():
        pod = await bench.create_pod(a_pod("p"))

        assert Done() == await bench.bind(pod, "node-1")


async def test_a_doubt_is_settled_when_the_api_server_is_back(bench: Bench) -> None:
    """A pod that no watch has shown and a list lacks is read, however often that takes."""
    async with bench.allocator() as process:
        bench.cluster.faults.set(Fault(kind="hold", resource="pods"))
        pod = await bench.create_pod(a_pod("p"))
        bound = await bench.bind(pod, "node-1")
        bench.delete_pod("p")
        bench.cluster.faults.set(Fault(kind="refuse", verb="get", resource="pods", times=2))
        process.views.pods.relist()
        await until(lambda: state(process, pod) == "")

        assert Done() == bound
        assert 0 == memory_used(process, "node-1")
