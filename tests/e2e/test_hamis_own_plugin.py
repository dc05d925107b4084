"""HAMi's own NVIDIA plugin on a real kubelet, under our allocator: pod by pod, by the node's lock and annotations."""

import asyncio
import json
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from hami_testkit.check import assert_nothing_wrong
from hami_testkit.cluster.access import connect
from hami_testkit.cluster.plugins.nvidia import MODEL, nvidia_plugin
from hami_testkit.real_cluster import control_plane, kube_scheduler
from hami_testkit.real_node import real_node, why_not
from hami_testkit.stack import Agent, Plan, scheduler_config, stack

from tests.e2e.conftest import Report
from tests.e2e.crowd import HeldIds
from tests.e2e.ground import CARD_MEMORY, CARDS, DEADLINE, NODE, SLOTS, Ground, Json, install_library, wait_event
from tests.e2e.pods import a_container, a_pod, booked, given

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]
LOCK, PHASE = "hami.io/mutex.lock", "hami.io/bind-phase"
OURS, TO_ALLOCATE = "hami.io/node-agent", "hami.io/vgpu-devices-to-allocate"
MANY = 12
WHOLE = [CARD_MEMORY] * CARDS


class Served:
    """A cluster with one node, which HAMi's plugin or our agent serves."""

    def __init__(self, ground: Ground) -> None:
        self.ground = ground
        self.plugin = nvidia_plugin(ground.api, NODE, CARDS, memory=CARD_MEMORY, slots=SLOTS)

    @asynccontextmanager
    async def by_hamis_plugin(self) -> AsyncIterator[None]:
        """Let HAMi's plugin serve the node for the length of a block."""
        async with self.plugin.running(self.ground.node.root / "device-plugins"):
            await self.ground.wait_allocatable(CARDS * SLOTS)
            yield

    @asynccontextmanager
    async def by_our_agent(self) -> AsyncIterator[None]:
        """Let our agent serve the same cards, until it is stopped at the end of the block."""
        folder = self.ground.system.plan.folder
        install_library(folder / "hook" / NODE / "vgpu")
        facts = {"vendor": "NVIDIA", "count": SLOTS, "devmem": CARD_MEMORY, "type": MODEL, "mode": "hami-core"}
        cards = [{"id": uuid, "index": at, **facts} for at, uuid in enumerate(self.plugin.cards)]
        file = folder / "cards.json"
        file.write_text(json.dumps(cards))
        await self.ground.system.add_agent(Agent(node=NODE, cards=file))
        await self._until(lambda notes: notes.get(OURS) == "NVIDIA")
        yield
        await self.ground.system.stop(f"agent-{NODE}")

    async def give_back(self) -> None:
        """Say that our agent serves the node no more."""
        await self.ground.api.patch(f"/api/v1/nodes/{NODE}", {"metadata": {"annotations": {OURS: None}}})

    async def _until(self, is_so: Callable[[Mapping[str, str]], bool]) -> None:
        """Wait until the node's annotations are as asked."""
        query = {"fieldSelector": f"metadata.name={NODE}"}
        await wait_event(self.ground.api, "/api/v1/nodes", lambda node: is_so(notes_of(node)), DEADLINE, **query)

    async def wait_open(self) -> None:
        """Wait until nobody holds the node."""
        await self._until(lambda notes: LOCK not in notes)

    async def create(self, *names: str) -> None:
        """Create pods at once: several containers, some without cards, some pods with an init container."""
        for at, name in enumerate(names):
            size = 100 * (at + 1)
            main = [("a", 1, size + 1), ("none", 0, 0), ("b", 2, size)]
            init = [a_container("first", memory=size + 2, seconds=0)] if at % 3 == 0 else []
            containers = [a_container(word, cards=cards, memory=memory) for word, cards, memory in main]
            await self.ground.create(a_pod(name, *containers, init=init, out=self.ground.node.out))

    async def wait_served(self, name: str) -> Json:
        """Wait until a pod runs, whoever served it has said so, and every container has told what it was given."""

        def is_so(pod: Json) -> bool:
            phase = pod["status"].get("phase")
            assert phase != "Failed", pod["status"]
            return phase == "Running" and phase_of(pod) == "success"

        pod = await self.ground.wait(name, is_so)
        async with asyncio.timeout(DEADLINE):
            while not all(self.ground.told(pod, container) for container in containers_of(pod)):
                await asyncio.sleep(0.05)
        return pod

    async def count_right(self, *names: str) -> int:
        """Wait until pods are served; count their containers, each of which saw what its annotation says."""
        right = 0
        for name in names:
            pod = await self.wait_served(name)
            told = {c: [given(one) for one in self.ground.told(pod, c)] for c in containers_of(pod)}
            assert {container: [booked(pod).get(container, [])] for container in told} == told
            assert "" == notes_of(pod)[TO_ALLOCATE].replace(";", "")
            right += len(told)
        await self.wait_open()
        return right


def notes_of(obj: Json) -> Mapping[str, str]:
    return obj["metadata"].get("annotations") or {}


def phase_of(pod: Json) -> str:
    return notes_of(pod).get(PHASE, "")


def containers_of(pod: Json) -> list[str]:
    return [c["name"] for c in (*(pod["spec"].get("initContainers") or []), *pod["spec"]["containers"])]


@asynccontextmanager
async def _served(binaries: Path) -> AsyncIterator[Served]:
    with tempfile.TemporaryDirectory(prefix="e2e-") as name:
        folder = Path(name)
        async with control_plane(binaries, folder) as kubeconfig, connect(kubeconfig) as api:
            plan = Plan(folder=folder, schedules=False, kubeconfig=kubeconfig)
            async with stack(plan) as system, real_node(binaries, folder, kubeconfig, NODE) as node:
                extenders = scheduler_config(system.at.extender)["extenders"]
                async with kube_scheduler(binaries / "kube-scheduler", folder, kubeconfig, extenders):
                    yield Served(Ground(api, node, system))


@pytest.fixture
async def served(binaries: Path) -> AsyncIterator[Served]:
    if why := why_not(binaries):
        pytest.skip(f"no real node can run here: {why}")
    async with _served(binaries) as found:
        yield found


async def test_pods_that_come_at_once_each_get_their_own_cards(served: Served, report: Report) -> None:
    """The plugin knows a pod by the lock alone, and a container by its turn."""
    names = [f"p-{at}" for at in range(MANY)]
    async with served.by_hamis_plugin():
        await served.create(*names)
        right = await served.count_right(*names)
        await assert_nothing_wrong(served.ground.system.at.kubeconfig)

    report(f"{right} containers of {MANY} pods that came at once saw what their pod was given")
    assert MANY * 3 + MANY // 3 == right


async def test_a_pod_that_the_plugin_refuses_gives_everything_back(served: Served) -> None:
    """It fails, the lock is opened, and the next pod gets the cards, all of them, whole."""
    ground, container = served.ground, a_container(cards=CARDS, memory=CARD_MEMORY)
    async with served.by_hamis_plugin():
        served.plugin.trouble = "the driver does not answer"
        await ground.create(a_pod("refused", container, out=ground.node.out))
        refused = await ground.wait("refused", lambda pod: pod["status"].get("phase") == "Failed")
        served.plugin.trouble = ""
        await ground.create(a_pod("next", container, out=ground.node.out))
        pod = await served.wait_served("next")
        await served.wait_open()
        await assert_nothing_wrong(ground.system.at.kubeconfig)

    assert "the driver does not answer" in refused["status"]["message"]
    assert "failed" == phase_of(refused)
    assert WHOLE == [memory for _, memory in given(ground.told(pod)[0])]


async def test_a_node_changes_hands_and_back_while_its_pods_run(served: Served, report: Report) -> None:
    """From HAMi's plugin to our agent, whose IDs have the same names for the kubelet, and to HAMi's again."""
    ids = HeldIds(served.ground.node.root / "device-plugins")
    words = ("theirs", "ours", "theirs-again")
    names = {word: [f"{word}-{at}" for at in range(3)] for word in words}
    right = 0
    for word, serving in zip(words, (served.by_hamis_plugin, served.by_our_agent, served.by_hamis_plugin), strict=True):
        async with serving():
            await served.create(*names[word])
            right += await served.count_right(*names[word])
            await assert_nothing_wrong(served.ground.system.at.kubeconfig)
        await served.give_back()
    holders = ids.look(served.ground.node.alive())

    report(f"{right} containers saw what their pod was given, {len(holders)} IDs are held, each by one pod")
    assert 3 * (3 * 3 + 1) == right
    assert 3 * 3 * 3 == len(holders)
    assert set() == ids.doubled
