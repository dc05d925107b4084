"""A pod that was refused is tried again when its cards come free later than kube-scheduler could know."""

from pathlib import Path

from hami_model.bus import subjects
from hami_model.bus.messages import Done, Heartbeat, Placed, Unplaced
from hami_model.objects import PodRef

from tests.integration.allocator_bench import Bench, a_bench, a_node, a_pod, state, until, until_async

FREED = "hami.io/devices-freed"


async def holding(bench: Bench, *pods: PodRef) -> None:
    """Speak as the node's agent: these pods' containers still hold devices."""
    beat = Heartbeat(node="n1", agent="agent", digest="d1", unhealthy=[], holding=[pod.uid for pod in pods])
    await bench.bus.publish(subjects.of_node("n1", "heartbeat"), beat)


async def test_cards_that_come_free_after_their_pod_is_gone_move_who_was_refused(tmp_path: Path) -> None:
    """The pod's deletion has moved him already, in vain: a mark on the node moves him again."""
    async with a_bench(tmp_path, [a_node("n1")]) as bench, bench.allocator() as process:
        await bench.register("n1", count=1)
        first, second = await bench.create_pod(a_pod("a", mem=8000)), await bench.create_pod(a_pod("b", mem=8000))
        assert await until_async(lambda: _is_placed(bench, "a"))
        assert Done() == await bench.bind(first, "n1")
        await holding(bench, first)
        nodes = process.office.means.world.nodes
        await until(lambda: nodes.is_held("n1", first.uid))
        bench.delete_pod("a")
        await until(lambda: first.uid in process.office.reconcile.lingering)
        assert isinstance(await bench.filter("b", ["n1"]), Unplaced)
        assert FREED not in bench.node_annotations("n1")
        await holding(bench)

        await until(lambda: FREED in bench.node_annotations("n1"))
        assert "" == state(process, first)
        assert isinstance(await bench.filter("b", ["n1"]), Placed)
        assert second.name == "b"


async def test_where_nobody_was_refused_nobody_is_woken(tmp_path: Path) -> None:
    """A cluster in which all pods find their cards has no write more than before."""
    async with a_bench(tmp_path, [a_node("n1")]) as bench, bench.allocator() as process:
        await bench.register("n1", count=2)
        for name in ("a", "b"):
            ref = await bench.create_pod(a_pod(name, mem=8000))
            assert await until_async(lambda name=name: _is_placed(bench, name))
            assert Done() == await bench.bind(ref, "n1")
            bench.delete_pod(name)
            await until(lambda ref=ref: state(process, ref) == "")
        ticks = process.office.means.clock.monotonic()
        await until(lambda: process.office.means.clock.monotonic() > ticks + 1.5)

        assert FREED not in bench.node_annotations("n1")


async def _is_placed(bench: Bench, name: str) -> bool:
    return isinstance(await bench.filter(name, ["n1"]), Placed)
