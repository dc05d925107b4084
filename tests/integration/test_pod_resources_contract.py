"""What we rely on from the kubelet's PodResources API, one measured behaviour per test.

The ones about List and Get tell whose Allocate it is, and what asking at the wrong moment does to the kubelet's books.
"""

from collections.abc import AsyncIterator, Iterable

import grpc
import pytest
from hami_kit.kubelet import deviceplugin_v1beta1_pb2 as dp
from hami_testkit.cluster.faults import Fault
from hami_testkit.cluster.kubelet import Options

from tests.integration.one_node import (
    GPU,
    Gate,
    OneNode,
    PodResourcesView,
    ScriptedPlugin,
    a_container,
    a_gpu_pod,
    a_pod,
    one_node,
    until,
)  # fmt: skip

IDS = ("card-0", "card-1", "card-2", "card-3")
NOT_FOUND = grpc.StatusCode.UNKNOWN


@pytest.fixture
async def view(node: OneNode) -> AsyncIterator[PodResourcesView]:
    """Its PodResources."""
    async with node.pod_resources() as found:
        yield found


class Looking(ScriptedPlugin):
    """A plugin that looks at PodResources when it is asked for a preference."""

    def __init__(self, view: PodResourcesView, ids: Iterable[str] = IDS) -> None:
        super().__init__(ids, prefers=True)
        self.seen: list[dict[str, dict[str, list[str]]]] = []
        self._view = view
        self.on_prefer = self._look

    async def _look(self, asked: dp.ContainerPreferredAllocationRequest) -> Iterable[str]:
        self.seen.append(await self._view.listed())
        return await self.first(asked)


async def test_a_pod_in_admission_is_listed_with_the_asking_container_empty(
    node: OneNode, view: PodResourcesView
) -> None:
    """Each container is filled once its Allocate has returned; the pod has no start time yet."""
    plugin = Looking(view)
    async with node.plugin(plugin, offers=4):
        await node.apply(a_pod("p", a_container("a", limits={GPU: 1}), a_container("b", limits={GPU: 1})))
        await node.wait_phase("p", "Running")

        assert [{"p": {"a": [], "b": []}}, {"p": {"a": ["card-0"], "b": []}}] == plugin.seen
        assert {"p": {"a": ["card-0"], "b": ["card-1"]}} == await view.listed()


async def test_pods_that_queue_for_admission_are_not_known_yet(node: OneNode, view: PodResourcesView) -> None:
    """Neither List nor Get shows them."""
    async with node.plugin(ScriptedPlugin(IDS), offers=4) as plugin:
        gate = Gate(plugin)
        await node.apply(a_gpu_pod("p"), a_gpu_pod("q"))
        await gate.entered.wait()
        shown = (await view.listed(), await view.found("p"), await view.found("q"))
        status = await node.status("p")
        gate.opened.set()
        await node.wait_phase("q", "Running")

        assert ({"p": {"main": []}}, {"main": []}, NOT_FOUND) == shown
        assert "startTime" not in status


async def test_ordinary_init_containers_are_never_listed(node: OneNode, view: PodResourcesView) -> None:
    """A pod whose only device container is one looks empty all its life; sidecars are shown."""
    side = a_container("side", limits={GPU: 1}, restartPolicy="Always")
    init = [a_container("setup", limits={GPU: 1}), side]
    async with node.plugin(ScriptedPlugin(IDS), offers=4) as plugin:
        await node.apply(a_pod("p", a_container(), init=init))
        await node.wait_phase("p", "Running")

        assert {"p": {"side": list(plugin.allocated[1]), "main": []}} == await view.listed()


async def test_a_pod_that_just_ended_is_listed_without_ids_for_a_moment(node: OneNode, view: PodResourcesView) -> None:
    """Then it is gone from the list, as every ended pod."""
    async with node.plugin(ScriptedPlugin(IDS), offers=4):
        await node.apply(a_gpu_pod("p", annotations={"standin.hami.io/run-seconds": "0.1"}))
        await node.wait_phase("p", "Succeeded")
        just_after = await view.listed()

        async def is_forgotten() -> bool:
            return not await view.listed()

        await until(is_forgotten)
        assert {"p": {"main": []}} == just_after
        assert NOT_FOUND == await view.found("p")


async def test_a_rejected_pod_is_found_empty_until_it_shows_as_failed(node: OneNode, view: PodResourcesView) -> None:
    """And never listed."""
    async with node.plugin(ScriptedPlugin(IDS), offers=4):
        node.cluster.faults.set(Fault(kind="refuse", resource="pods/status"))
        await node.apply(a_gpu_pod("p", 5))

        async def is_found() -> bool:
            return await view.found("p") != NOT_FOUND

        await until(is_found)
        before = (await view.found("p"), await view.listed())
        node.cluster.faults.clear()
        await node.wait_phase("p", "Failed")

        async def is_lost() -> bool:
            return await view.found("p") == NOT_FOUND

        await until(is_lost)
        assert ({"main": []}, {}) == before


async def test_list_in_preferred_allocation_gives_no_id_twice(node: OneNode, view: PodResourcesView) -> None:
    """The kubelet counts anew there, and nothing is lost: the third pod finds no device."""
    plugin = Looking(view, IDS[:2])

    async with node.plugin(plugin, offers=2):
        await _after_one_that_ended(node, plugin)
        await node.apply(a_gpu_pod("q"), a_gpu_pod("r"))
        await node.wait_phase("q", "Running")
        await node.wait_phase("r", "Failed")


async def test_list_in_allocate_gives_one_id_to_two_pods(node: OneNode, view: PodResourcesView) -> None:
    """It makes the kubelet count anew from finished Allocates only: two cards are given to three pods."""
    plugin = ScriptedPlugin(IDS[:2])

    async def look(ids: list[str]) -> dp.ContainerAllocateResponse:
        await view.listed()
        return await plugin.answer(ids)

    async with node.plugin(plugin, offers=2):
        await _after_one_that_ended(node, plugin, look)
        await node.apply(a_gpu_pod("q"), a_gpu_pod("r"))
        await node.wait_phase("r", "Running")
        holders = [tuple(ids["main"]) for name, ids in (await view.listed()).items() if name in "pqr"]

    assert 3 == len(holders)
    assert 2 == len(set(holders))


async def test_get_in_allocate_gives_no_id_twice(node: OneNode, view: PodResourcesView) -> None:
    """It counts nothing anew."""
    plugin = ScriptedPlugin(IDS[:2])

    async def look(ids: list[str]) -> dp.ContainerAllocateResponse:
        await view.found("p")
        return await plugin.answer(ids)

    async with node.plugin(plugin, offers=2):
        await _after_one_that_ended(node, plugin, look)
        await node.apply(a_gpu_pod("q"), a_gpu_pod("r"))
        await node.wait_phase("r", "Failed")


async def _after_one_that_ended(node: OneNode, plugin: ScriptedPlugin, on_allocate: object = None) -> None:
    """Let a pod end while the Allocate of ``p`` is under way, then let that one finish, by the way given."""
    await node.apply(a_gpu_pod("old", annotations={"standin.hami.io/run-seconds": "0.3"}))
    await node.wait_phase("old", "Running")
    finish = on_allocate or plugin.answer

    async def after_the_end(ids: list[str]) -> dp.ContainerAllocateResponse:
        await node.wait_phase("old", "Succeeded")
        return await finish(ids)  # type: ignore[operator, no-any-return]

    plugin.on_allocate = after_the_end
    await node.apply(a_gpu_pod("p"))
    await node.wait_phase("p", "Running")
    plugin.on_allocate = plugin.answer


async def test_healthy_ids_are_allocatable_one_entry_each(node: OneNode, view: PodResourcesView) -> None:
    """GetAllocatableResources shows what is given away too, but nothing unhealthy."""
    async with node.plugin(ScriptedPlugin(IDS), offers=4) as plugin:
        await node.apply(a_gpu_pod("p"))
        await node.wait_phase("p", "Running")
        plugin.device_plugin.mark(healthy=False, ids=["card-3"])
        await node.wait_offer(GPU, 3)

        assert ["card-0", "card-1", "card-2"] == await view.allocatable()


async def test_the_eleventh_call_at_once_is_refused() -> None:
    """Calls come in bursts of 10; here no time gives another, in the real kubelet 100 a second."""
    async with one_node(Options(rate=0.0)) as node, node.pod_resources() as view:
        answers = [await view.found("nobody") for _ in range(11)]

    assert [NOT_FOUND] * 10 + [grpc.StatusCode.RESOURCE_EXHAUSTED] == answers
    assert (100.0, 10) == (Options().rate, Options().burst)
