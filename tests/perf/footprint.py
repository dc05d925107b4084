"""What a node-agent costs its node while nothing happens: CPU time and resident memory, as a page.

One rule: the agent is the process that users start, with the real nvidia-ml-py on a scripted driver and a kubelet that
speaks the real protocols; whatever else the measurement needs is another process and not counted.
"""

import argparse
import asyncio
import re
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
from hami_kit import bus as buses
from hami_kit.bus import BusSettings, Endpoint
from hami_kit.telemetry import Telemetry
from hami_model import annotations, vendors
from hami_model.allocation import Allocation, ContainerGrants, Grant
from hami_model.bus import subjects
from hami_model.bus.messages import Confirm, Done, Inventory
from hami_model.config import DEFAULTS
from hami_model.objects import Pod, PodRef
from hami_model.request import Role
from hami_testkit.cluster import Standin
from hami_testkit.cluster.client import ApiClient
from hami_testkit.cluster.kubelet import Kubelet
from hami_testkit.nvml import Card, FakeNvml, Process, fake_nvml
from hami_testkit.processes import BIN, Processes, Spec, free_port, processes
from hami_testkit.regions import write_region
from msgspec import Struct

from tests.perf import report
from tests.perf.report import MS, Load
from tests.perf.system import a_client, cpu_of

HERE = Path(__file__).parent
PAGE = HERE.parents[1] / "docs/reference/footprint.md"
NODE = "gpu-a"
CARDS, CONTAINERS = 8, 40
SECONDS, ROUNDS = 60.0, 3
SETTLE = 20.0
"""Seconds after the last container in which the agent comes to rest: four rounds of its own."""
SCRAPES = 20
DEADLINE = 60.0
MEMORY = 4000
PODS = "/api/v1/namespaces/default/pods"
CATALOG = vendors.build(DEFAULTS, ascend=False, iluvatar=False)


class Cost(Struct, frozen=True, kw_only=True):
    """What the agent took: percent of a core in each round, ms of CPU time for a scrape, MiB now and at most."""

    containers: int
    rounds: tuple[float, ...]
    scrape: float
    memory: float
    most: float
    load: Load

    @property
    def cpu(self) -> float:
        """Return what the quietest round took: the same work costs more beside others who use the machine."""
        return min(self.rounds)


class _Budget(Struct, frozen=True):
    aims: dict[str, dict[str, float]]


def main() -> None:
    """Measure an empty node and a full one, write the page, print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=SECONDS)
    parser.add_argument("--containers", type=int, action="append")
    parser.add_argument("--out", type=Path, default=PAGE, metavar="FILE")
    options = parser.parse_args()
    aims = msgspec.toml.decode((HERE / "budget.toml").read_text(), type=_Budget).aims["footprint"]
    costs = []
    for containers in options.containers or (0, CONTAINERS):
        costs.append(asyncio.run(measure(containers, options.seconds)))
        sys.stdout.write(f"{_row(costs[-1])}\n")
    sys.stdout.write(f"{verdict(costs[-1], aims)}\n")
    options.out.write_text(page(costs, aims, options.seconds))
    sys.stdout.write(f"written: {options.out}\n")


async def measure(containers: int, seconds: float) -> Cost:
    """Return what an agent with so many containers takes while nothing happens."""
    with tempfile.TemporaryDirectory(prefix="hf-") as folder:
        async with a_node(Path(folder)) as node:
            for index in range(containers):
                await node.run_pod(index)
            await asyncio.sleep(SETTLE)
            watch = report.Watch()
            rounds = tuple([await share_of_a_core(node.pid, seconds) for _ in range(ROUNDS)])
            before = cpu_of(node.pid)
            await node.scrape(SCRAPES, containers=containers)
            scrape = (cpu_of(node.pid) - before) * MS / SCRAPES
            now, most = memory_of(node.pid)
            return Cost(containers=containers, rounds=rounds, scrape=scrape, memory=now, most=most, load=watch.load())


async def share_of_a_core(pid: int, seconds: float) -> float:
    """Return what a process takes for so long, in percent of a core."""
    before, began = cpu_of(pid), time.monotonic()
    await asyncio.sleep(seconds)
    return 100 * (cpu_of(pid) - before) / (time.monotonic() - began)


def memory_of(pid: int) -> tuple[float, float]:
    """Return the MiB that are resident now, and that were at most."""
    text = Path(f"/proc/{pid}/status").read_text()
    now, most = (int(re.findall(rf"{field}:\s+(\d+)", text)[0]) / 1024 for field in ("VmRSS", "VmHWM"))
    return now, most


# The node


class Node:
    """A node of eight cards with an agent, and pods that are bound to it by hand."""

    def __init__(  # noqa: PLR0917
        self, root: Path, api: ApiClient, driver: FakeNvml, started: Processes, nats: str, pid: int, health: str
    ) -> None:
        self.pid = pid
        self.nats = nats
        self.push: Callable[[Allocation], Awaitable[None]] | None = None
        """Tells the agent of an allocation before its pod is bound, as the leader does."""
        self._started = started
        self._root = root
        self._api = api
        self._driver = driver
        self._health = health
        self._on: dict[int, list[Process]] = {card: [] for card in range(CARDS)}

    async def run_pod(self, index: int) -> None:
        """Create a pod with a slice of a card, bind it, and let HAMi-core and a process be at work in it."""
        card = index % CARDS
        limits = {"nvidia.com/gpu": "1", "nvidia.com/gpumem": str(MEMORY)}
        container = {"name": "main", "image": "app", "resources": {"limits": limits}}
        meta = {"name": f"train-{index}", "namespace": "default"}
        body = {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": {"containers": [container]}}
        pod = msgspec.convert(await self._api.create(PODS, body), Pod)
        await self._bind(pod, uuid_of(card))
        async with asyncio.timeout(DEADLINE):
            while not await self._is_running(pod):
                await asyncio.sleep(0.05)
        folder = self._root / "hook/vgpu/containers" / f"{pod.metadata.uid}_main"
        await asyncio.to_thread(write_region, folder / "0b7c.cache", uuid_of(card), uuid_of((card + 1) % CARDS))
        self._start_process(10_000 + index, card, pod)

    def _start_process(self, pid: int, card: int, pod: Pod) -> None:
        seen = self._root / "proc" / str(pid)
        seen.mkdir(parents=True)
        (seen / "cgroup").write_text(f"0::/kubepods/pod{pod.metadata.uid}/1f\n")
        (seen / "comm").write_text("python3\n")
        self._on[card].append(Process(pid=pid, memory=MEMORY << 20))
        self._driver.change(uuid_of(card), processes=tuple(self._on[card]))

    async def _bind(self, pod: Pod, uuid: str) -> None:
        grants = (Grant(uuid=uuid, vendor="NVIDIA", memory=MEMORY, cores=10),)
        given = (ContainerGrants(name="main", role=Role.APP, grants=grants),)
        allocation = Allocation(pod=PodRef.of(pod), node=NODE, containers=given)
        if self.push is not None:
            await self.push(allocation)
        written = annotations.allocation_annotations(CATALOG, allocation, pod, now=1.0)
        meta = {"name": pod.metadata.name, "uid": pod.metadata.uid, "annotations": written}
        body = {"apiVersion": "v1", "kind": "Binding", "metadata": meta, "target": {"kind": "Node", "name": NODE}}
        await self._api.create(f"{PODS}/{pod.metadata.name}/binding", body)

    async def stop_nats(self) -> None:
        """End the bus."""
        await self._started.stop("nats")

    async def _is_running(self, pod: Pod) -> bool:
        found: dict[str, Any] = await self._api.get(f"{PODS}/{pod.metadata.name}")
        return bool(found["status"].get("phase") == "Running")

    async def scrape(self, times: int, *, containers: int) -> None:
        """Read the metrics so often; see that they speak of every container, and of nothing that is wrong."""
        async with a_client() as http:
            for _ in range(times):
                shown = (await http.get(f"http://{self._health}/metrics")).text
                assert shown.count("\nhami_vgpu_memory_used_bytes{") == 2 * containers, "a container is not measured"
                assert not re.search(r"^hami_node_agent_drift\{.*\} [^0]", shown, re.MULTILINE), "something disagrees"


def uuid_of(card: int) -> str:
    """Return a card's uuid, as long as NVIDIA's are."""
    return f"GPU-3e9f60b4-7ca8-4d51-9f32-8a0cd4f31b{card:02x}"


@asynccontextmanager
async def a_node(root: Path) -> AsyncIterator[Node]:
    """Run NATS, a cluster, somebody who acknowledges, a kubelet, a driver and the agent for the length of a block."""
    cards = [Card(uuid=uuid_of(at), bus=f"00000000:{at:02X}:00.0", busy=(40, 10)) for at in range(CARDS)]
    raw = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE}}
    async with AsyncExitStack() as entered:
        driver = entered.enter_context(fake_nvml(root / "driver", *cards))
        cluster = await entered.enter_async_context(Standin.start(nodes=[raw]))
        api = await entered.enter_async_context(ApiClient.connect(cluster.url))
        await entered.enter_async_context(Kubelet(api, NODE, root / "k").running())
        started = await entered.enter_async_context(processes(root))
        nats, health = f"nats://127.0.0.1:{await _start_nats(started, root)}", f"127.0.0.1:{free_port()}"
        await entered.enter_async_context(acknowledging(nats))
        cluster.kubeconfig(root / "kubeconfig")
        pid = await _start_agent(started, root, nats, health)
        yield Node(root, api, driver, started, nats, pid, health)


async def _start_nats(started: Processes, root: Path) -> int:
    port = free_port()
    command = [str(BIN / "nats-server"), "-a", "127.0.0.1", "-p", str(port), "-js", "-sd", str(root / "nats")]
    await started.start(Spec(name="nats", command=command, ground=True))
    return port


async def _start_agent(started: Processes, root: Path, nats: str, health: str) -> int:
    core = root / "core"
    core.mkdir()
    shutil.copyfile(msgspec._core.__file__, core / "libvgpu.so")  # some library of this machine
    env = {
        "HAMI_NATS_URL": nats,
        "KUBECONFIG": str(root / "kubeconfig"),
        "HAMI_HEALTH_LISTEN": health,
        "HAMI_NODE_NAME": NODE,
        "HAMI_KUBELET_DIR": str(root / "k"),
        "HAMI_HOOK_PATH": str(root / "hook"),
        "HAMI_LOCK_DIR": str(root / "lock"),
        "HAMI_LIBRARY_DIR": str(core),
        "HAMI_DRIVER_ROOT": str(root / "driver"),
        "HAMI_PROC_ROOT": str(root / "proc"),
    }
    url = f"http://{health}/readyz"
    agent = await started.start(Spec(name="agent", command=[str(BIN / "hami-node-agent")], env=env, ready_url=url))
    await agent.wait_ready(DEADLINE)
    return agent.pid


@asynccontextmanager
async def acknowledging(url: str) -> AsyncIterator[None]:
    """Answer the agent as whoever leads does."""

    async def done(_message: Inventory | Confirm) -> Done:
        return Done()

    async with buses.connect(BusSettings(url=url), name="perf-leader", telemetry=Telemetry()) as bus:
        await bus.wait_connected()
        kinds = {"inventory": Inventory, "confirm": Confirm}
        endpoints = [Endpoint(name, subjects.of_any_node(name), kind, done) for name, kind in kinds.items()]
        serving = await bus.serve("hami-allocator", endpoints)
        try:
            yield
        finally:
            await serving.stop()


# The page

HEAD = """\
# Footprint of a node-agent

What `hami-node-agent` takes of its node while nothing happens there, on a node of {cards} cards.
Written by `make perf`; a new run replaces it.
"""

HOW = """\
## How

- The agent is the console command, a process of its own; its numbers are the kernel's (`/proc/<pid>/stat`, `VmRSS`,
  `VmHWM`). Driver, kubelet, API server, NATS and whoever acknowledges are in other processes.
- The driver is the scripted one: nvidia-ml-py is real, and what the script costs is counted with the agent.
- Each container has a shared region of HAMi-core's layout with three processes, and one process on its card. Every 5 s
  cards and regions are read, every 15 s table, checkpoint and processes are compared.
- CPU time is counted {settle:g} s after the last container has started, in {rounds} rounds of {seconds:g} s, of which
  the quietest counts: an agent at rest wakes up for moments, which cost more beside others who use the machine.
- A scrape of `/metrics` is the mean of {scrapes}, one after the other.
"""


def page(costs: Sequence[Cost], aims: dict[str, float], seconds: float) -> str:
    """Return the whole page."""
    head = HEAD.format(cards=CARDS)
    table = [
        "| containers | CPU, % of a core | least quiet round | CPU ms a scrape of `/metrics` | MiB | MiB at most |",
        "| ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    table += [_row(cost) for cost in costs]
    conditions = report.conditions([cost.load for cost in costs])
    how = HOW.format(seconds=seconds, settle=SETTLE, scrapes=SCRAPES, rounds=ROUNDS)
    return "\n".join([head, *table, "", verdict(costs[-1], aims), "", conditions, "", how])


def verdict(cost: Cost, aims: dict[str, float]) -> str:
    """Say how the last node compares with the aims."""
    return (
        f"With {cost.containers} containers {cost.cpu:.2f} % of a core, the aim is {aims['cpu_percent']:g} %; "
        f"{cost.memory:.0f} MiB, the aim is {aims['memory_mib']:g} MiB."
    )


def _row(cost: Cost) -> str:
    cpu = f"{cost.cpu:.2f} | {max(cost.rounds):.2f}"
    return f"| {cost.containers} | {cpu} | {cost.scrape:.0f} | {cost.memory:.0f} | {cost.most:.0f} |"


if __name__ == "__main__":
    main()
