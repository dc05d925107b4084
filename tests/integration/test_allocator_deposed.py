"""A leader whose Lease is gone: it writes nothing any more, whatever it was about to do."""

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from hami_allocator.effects import Bind
from hami_allocator.means import Deposed
from hami_allocator.process import Process
from hami_model.bus.messages import Done
from hami_model.objects import PodRef
from hami_testkit.cluster.resources import LEASES

from .allocator_bench import MUTEX, Bench, a_bench, a_node, a_pod, plugin_node, until

Write = Callable[[Process, PodRef], Awaitable[object]]


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    """A node that HAMi's plugin serves, and one for our agent."""
    async with a_bench(tmp_path, [plugin_node("node-1"), a_node("agent-1")]) as made:
        yield made


def taken_away(bench: Bench) -> None:
    """Write somebody else into the Lease, as an operator would."""

    def change(lease: dict[str, object]) -> dict[str, object]:
        return {**lease, "spec": {**lease["spec"], "holderIdentity": "operator"}}  # type: ignore[dict-item]

    bench.cluster.registry.patch(LEASES, ("kube-system", "hami-allocator"), change, status=False, dry_run=False)


async def _locks(process: Process, pod: PodRef) -> None:
    locks = process.office.means.world.catalog.by_word("NVIDIA").lock
    assert locks is not None
    await process.office.means.locks.take("agent-1", [locks], pod, deadline=float("inf"))


async def _opens(process: Process, pod: PodRef) -> None:
    await process.office.means.locks.open(pod.uid)


async def _sweeps(process: Process, _pod: PodRef) -> None:
    await process.office.takeover.run(process.office.means.term, process.office.pods)


async def _binds(process: Process, pod: PodRef) -> None:
    await Bind(process.office.means, pod, "agent-1").run()


async def _binds_plainly(process: Process, _pod: PodRef) -> None:
    plain = await process.office.means.kube.get_pod("team-a", "plain")
    await Bind(process.office.means, PodRef.of(plain), "agent-1").run()


async def _patches(process: Process, pod: PodRef) -> None:
    await process.office.means.kube.patch_pod(pod, annotations={"hami.io/bind-phase": "success"})


async def _registers(process: Process, _pod: PodRef) -> None:
    await process.office.means.kube.patch_node("agent-1", annotations={"hami.io/node-agent": "NVIDIA"})


@pytest.mark.parametrize("write", [_locks, _opens, _sweeps, _binds, _binds_plainly, _patches, _registers])
async def test_who_lost_the_lease_sends_no_write(bench: Bench, write: Write) -> None:
    """The Lease is looked at in the step in which the write leaves, whoever writes."""
    async with bench.allocator() as process:
        await bench.register("agent-1")
        await bench.create_pod(a_pod("plain", gpu=0))
        locked = await bench.create_pod(a_pod("locked"))
        assert Done() == await bench.bind(locked, "node-1")
        waiting = await bench.create_pod(a_pod("waiting"))
        await until(lambda: waiting.uid in process.office.means.world.unbound)
        pod = locked if write is _opens else waiting
        taken_away(bench)
        revision = bench.cluster.registry.store.revision
        assert not await process.election.look()
        with pytest.raises(Deposed) as raised:
            await leaf(write(process, pod))

        assert raised.value.retriable
        assert revision == bench.cluster.registry.store.revision
        assert bench.node_annotations("node-1")[MUTEX].endswith(",team-a,locked")


async def leaf(work: Awaitable[object]) -> None:
    """Raise what lies inside of groups."""
    try:
        await work
    except BaseExceptionGroup as group:
        found = group.subgroup(Deposed)
        assert found is not None
        while isinstance(found, BaseExceptionGroup):
            found = found.exceptions[0]
        raise found from None
