"""HAMi's own NVIDIA plugin on a real kubelet, under our allocator: pod by pod, by the node's lock and annotations."""

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from hami_testkit.check import assert_nothing_wrong
from hami_testkit.cluster.access import connect
from hami_testkit.cluster.plugins.nvidia import nvidia_plugin
from hami_testkit.cluster.plugins.registered import RegisteredPlugin
from hami_testkit.real_cluster import control_plane, kube_scheduler
from hami_testkit.real_node import real_node, why_not
from hami_testkit.stack import Plan, scheduler_config, stack
from msgspec import Struct

from tests.e2e.conftest import Report
from tests.e2e.ground import CARD_MEMORY, CARDS, NODE, SLOTS, Ground, Json
from tests.e2e.pods import a_container, a_pod, booked, given

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]
LOCK, PHASE = "hami.io/mutex.lock", "hami.io/bind-phase"
TO_ALLOCATE = "hami.io/vgpu-devices-to-allocate"
MANY = 12
WHOLE = [CARD_MEMORY] * CARDS


class Served(Struct, frozen=True):
    """A cluster whose one node is served by HAMi's plugin."""

    ground: Ground
    plugin: RegisteredPlugin

    async def annotations(self) -> Json:
        return dict((await self.ground.api.get(f"/api/v1/nodes/{NODE}"))["metadata"].get("annotations") or {})

    async def wait_served(self, name: str) -> Json:
        """Wait until a pod runs, and its plugin has said that it is done."""

        def is_so(pod: Json) -> bool:
            phase = pod["status"].get("phase")
            assert phase != "Failed", pod["status"]
            return phase == "Running" and phase_of(pod) == "success"

        return await self.ground.wait(name, is_so)

    async def wait_open(self) -> None:
        """Wait until nobody holds the node."""
        async with asyncio.timeout(60):
            while LOCK in await self.annotations():
                await asyncio.sleep(0.1)


def phase_of(pod: Json) -> str:
    return str((pod["metadata"].get("annotations") or {}).get(PHASE, ""))


@asynccontextmanager
async def _served(binaries: Path) -> AsyncIterator[Served]:
    with tempfile.TemporaryDirectory(prefix="e2e-") as name:
        folder = Path(name)
        async with control_plane(binaries, folder) as kubeconfig, connect(kubeconfig) as api:
            plan = Plan(folder=folder, schedules=False, kubeconfig=kubeconfig)
            async with stack(plan) as system, real_node(binaries, folder, kubeconfig, NODE) as node:
                extenders = scheduler_config(system.at.extender)["extenders"]
                plugin = nvidia_plugin(api, NODE, CARDS, memory=CARD_MEMORY, slots=SLOTS)
                async with (
                    kube_scheduler(binaries / "kube-scheduler", folder, kubeconfig, extenders),
                    plugin.running(node.root / "device-plugins"),
                ):
                    ground = Ground(api, node, system)
                    await ground.wait_allocatable(CARDS * SLOTS)
                    yield Served(ground, plugin)


@pytest.fixture
async def served(binaries: Path) -> AsyncIterator[Served]:
    if why := why_not(binaries):
        pytest.skip(f"no real node can run here: {why}")
    async with _served(binaries) as found:
        yield found


async def test_pods_that_come_at_once_each_get_their_own_cards(served: Served, report: Report) -> None:
    """Init containers, several containers, some without cards; the plugin knows a pod by the lock alone."""
    ground = served.ground
    for at in range(MANY):
        size = 100 * (at + 1)
        main = [a_container("a", memory=size + 1), a_container("none", cards=0), a_container("b", cards=2, memory=size)]
        init = [a_container("first", memory=size + 2, seconds=0)] if at % 3 == 0 else []
        await ground.create(a_pod(f"p-{at}", *main, init=init, out=ground.node.out))
    right = 0
    for at in range(MANY):
        pod = await served.wait_served(f"p-{at}")
        told = {c["name"]: [given(t) for t in ground.told(pod, c["name"])] for c in containers_of(pod)}
        assert {name: [booked(pod).get(name, [])] for name in told} == told
        assert "" == pod["metadata"]["annotations"][TO_ALLOCATE].replace(";", "")
        right += len(told)
    await served.wait_open()

    report(f"{right} containers of {MANY} pods that came at once saw what their pod was given")
    assert MANY * 3 + MANY // 3 == right
    await assert_nothing_wrong(ground.system.at.kubeconfig)


def containers_of(pod: Json) -> list[Json]:
    return [*(pod["spec"].get("initContainers") or []), *pod["spec"]["containers"]]


async def test_a_pod_that_the_plugin_refuses_gives_everything_back(served: Served) -> None:
    """It fails, the lock is opened, and the next pod gets the cards, all of them, whole."""
    ground = served.ground
    served.plugin.trouble = "the driver does not answer"
    await ground.create(a_pod("refused", a_container(cards=CARDS, memory=CARD_MEMORY), out=ground.node.out))
    refused = await ground.wait("refused", lambda pod: pod["status"].get("phase") == "Failed")
    served.plugin.trouble = ""
    await ground.create(a_pod("next", a_container(cards=CARDS, memory=CARD_MEMORY), out=ground.node.out))
    pod = await served.wait_served("next")
    await served.wait_open()

    assert "the driver does not answer" in refused["status"]["message"]
    assert "failed" == phase_of(refused)
    assert WHOLE == [memory for _, memory in given(ground.told(pod)[0])]
    await assert_nothing_wrong(ground.system.at.kubeconfig)
