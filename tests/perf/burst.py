"""A burst of pods through the stand-in's scheduler: our services, and what does nothing in place of one or all of them.

One rule: all bind the same pods over the same nodes on the same machine, in turn; what counts is their ratio.
"""

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
from hami_kit import bus as buses
from hami_kit.bus import Bus, BusSettings
from hami_kit.telemetry import Telemetry
from hami_model.bus import subjects
from hami_model.bus.messages import Done, Heartbeat, Inventory, NodeAnswer
from hami_testkit.builders import NVIDIA, a_node
from hami_testkit.cluster.access import connect
from hami_testkit.cluster.client import ApiClient
from hami_testkit.cluster.extender import hami_extender
from hami_testkit.cluster.scheduler import KubeScheduler
from hami_testkit.processes import BIN, Spec, free_port
from hami_testkit.real_cluster import control_plane, kube_scheduler
from hami_testkit.stack import Plan, Stack, scheduler_config, stack
from msgspec import Struct

from tests.perf import caller, fleets, report
from tests.perf.report import MS, Budget, Load
from tests.perf.system import cpu_of

NODES = 50
PODS = 400
ROUNDS = 3
AT_ONCE = 16
BEAT_EVERY = 5.0
DEADLINE = 180.0
NAMESPACE = "burst"
PODS_OF_BURST = f"/api/v1/namespaces/{NAMESPACE}/pods"
SETTLE = 2.0
"""Seconds between two bursts: what the one before has left to tell is told by then."""

Json = dict[str, Any]
HERE = Path(__file__).parent
PAGE = HERE.parents[1] / "docs" / "reference" / "burst.md"
OURS = "our services"
IDLE = "our extender, NATS, and an allocator that does nothing"
NOTHING = "an extender that does nothing"
SERVICES = {OURS: ("extender", "allocator", "nats"), IDLE: ("extender", "idle", "nats"), NOTHING: ("nothing",)}


class Burst(Struct, frozen=True, kw_only=True):
    """One round: pods bound a second, and milliseconds of CPU time a pod of each process."""

    per_second: float
    cpu: Mapping[str, float]


def main() -> None:
    """Measure, write the page, print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pods", type=int, default=PODS)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--out", type=Path, metavar="FILE")
    parser.add_argument("--real", type=Path, metavar="DIR", help="etcd, kube-apiserver and kube-scheduler to run on")
    options = parser.parse_args()
    budget = msgspec.toml.decode((HERE / "budget.toml").read_text(), type=Budget)
    watch = report.Watch()
    found = asyncio.run(measure(options.pods, options.rounds, binaries=options.real))
    aim = budget.aims["burst"]["ratio"]
    sys.stdout.write(f"{table(found)}\n{verdict(found, aim)}\n")
    out = options.out or (None if options.real else PAGE)
    if out is not None:
        out.write_text(page(found, aim, options.pods, watch.load()))
        sys.stdout.write(f"written: {out}\n")


async def measure(pods: int, rounds: int, *, binaries: Path | None = None) -> dict[str, list[Burst]]:
    """Return the rounds of each."""
    found: dict[str, list[Burst]] = {OURS: [], IDLE: [], NOTHING: []}
    with tempfile.TemporaryDirectory(prefix="hami-perf-", ignore_cleanup_errors=True) as folder:
        async with _a_field(Path(folder), binaries) as field:
            system = field.system
            urls = {OURS: system.at.extender, IDLE: system.at.extender, NOTHING: await _start_nothing(system)}
            for name in (NOTHING, OURS) * rounds:
                found[name].append(await _burst(field, name, urls[name], pods))
            await system.stop("allocator")
            await _start_nothing(system, name="idle", nats=system.at.nats)
            for name in (NOTHING, IDLE) * rounds:
                found[name].append(await _burst(field, name, urls[name], pods))
    return found


# The cluster


class Field(Struct, frozen=True, kw_only=True):
    """Where the bursts happen."""

    system: Stack
    api: ApiClient
    scheduling: Callable[[str], AbstractAsyncContextManager[object]]
    """Runs a scheduler that asks the extender at a URL, for the length of a block."""


@asynccontextmanager
async def _a_field(folder: Path, binaries: Path | None) -> AsyncIterator[Field]:
    """Run everything but the scheduler: on the stand-in, or on a real control plane."""
    async with AsyncExitStack() as entered:
        kubeconfig = None if binaries is None else await entered.enter_async_context(control_plane(binaries, folder))
        system = await entered.enter_async_context(stack(Plan(folder=folder, schedules=False, kubeconfig=kubeconfig)))
        api = await entered.enter_async_context(connect(system.at.kubeconfig))
        if binaries is not None:
            await api.create("/api/v1/namespaces", {"metadata": {"name": NAMESPACE}})
        await entered.enter_async_context(_agents(system, api))

        def scheduling(extender: str) -> AbstractAsyncContextManager[object]:
            if binaries is None:
                return KubeScheduler(system.at.api, hami_extender(extender)).running()
            asked = scheduler_config(extender)["extenders"]
            return kube_scheduler(binaries / "kube-scheduler", folder, system.at.kubeconfig, asked)

        yield Field(system=system, api=api, scheduling=scheduling)


@asynccontextmanager
async def _agents(system: Stack, api: ApiClient) -> AsyncIterator[None]:
    """Have nodes whose cards a node-agent tells of, so that no node lock is needed, for the length of a block."""
    names = [f"node-{index:02d}" for index in range(NODES)]
    for name in names:
        status = {"allocatable": {"cpu": "64", "memory": "512Gi", "pods": "250"}}
        await api.create("/api/v1/nodes", {"metadata": {"name": name}, "status": status})
    async with buses.connect(BusSettings(url=system.at.nats), name="perf-agents", telemetry=Telemetry()) as bus:
        await bus.wait_connected()
        for name in names:
            await _register(bus, name)
        async with asyncio.TaskGroup() as tasks:
            beating = tasks.create_task(_beat(bus, names))
            yield
            beating.cancel()


async def _register(bus: Bus, name: str) -> None:
    """Tell of a node's cards, as often as it takes until the allocator has seen the node."""
    cards = a_node(name).with_cards(fleets.CARDS, memory=fleets.MEMORY, model=fleets.MODEL).cards
    told = Inventory(node=name, agent="perf", digest=name, vendors=[NVIDIA], devices=list(cards))
    async with asyncio.timeout(DEADLINE):
        while True:
            answer = await bus.request(subjects.of_node(name, "inventory"), told, NodeAnswer, timeout=10)
            if isinstance(answer, Done):
                return
            await asyncio.sleep(0.1)


async def _beat(bus: Bus, names: Sequence[str]) -> None:
    while True:
        for name in names:
            await bus.publish(subjects.of_node(name, "heartbeat"), Heartbeat(node=name, agent="perf", digest=name))
        await asyncio.sleep(BEAT_EVERY)


async def _start_nothing(system: Stack, *, name: str = "nothing", nats: str = "") -> str:
    port = free_port()
    command = [str(BIN / "python"), "-m", "tests.perf.nothing", "--port", str(port)]
    command += ["--kubeconfig", str(system.at.kubeconfig)]
    command += ["--nats", nats] if nats else []
    env, url = {"PYTHONPATH": str(HERE.parents[1])}, f"http://127.0.0.1:{port}"
    running = await system.started.start(Spec(name=name, command=command, env=env, ready_url=f"{url}/readyz"))
    await running.wait_ready(DEADLINE)
    return url


# One burst


async def _burst(field: Field, name: str, url: str, pods: int) -> Burst:
    """Create pods, let a scheduler loose on them, wait until the last one is bound; leave none behind."""
    system, api = field.system, field.api
    await _create(api, pods)
    before = {each: cpu_of(system.process(each).pid) for each in SERVICES[name]}
    async with field.scheduling(url):
        first, last = await _wait_pods(api, pods, lambda event: bool(event["object"]["spec"].get("nodeName")))
    per_second = (pods - 1) / (last - first)
    spent = {each: (cpu_of(system.process(each).pid) - then) * MS / pods for each, then in before.items()}
    sys.stdout.write(f"{name}: {per_second:.0f} pods/s\n")
    await _clear(api, pods)
    return Burst(per_second=per_second, cpu=spent)


async def _create(api: ApiClient, pods: int) -> None:
    left = iter(range(pods))

    async def worker() -> None:
        for index in left:
            pod = caller.pod(index)
            pod["metadata"] = {"name": f"train-{index}", "namespace": NAMESPACE}
            await api.create(PODS_OF_BURST, pod)

    await asyncio.gather(*(worker() for _ in range(AT_ONCE)))


async def _clear(api: ApiClient, pods: int) -> None:
    """Delete the pods, and give whoever watches them the time to see it: the next burst finds what this one found."""
    deleting = asyncio.create_task(_wait_pods(api, pods, lambda event: event["type"] == "DELETED"))
    await api.delete(PODS_OF_BURST, {"gracePeriodSeconds": 0})
    await deleting
    await asyncio.sleep(SETTLE)


async def _wait_pods(api: ApiClient, pods: int, has_happened: Callable[[Json], bool]) -> tuple[float, float]:
    """Wait until it has happened to each pod of the burst; return when to the first and to the last."""
    done: dict[str, float] = {}
    async with asyncio.timeout(DEADLINE):
        async for event in api.watch(PODS_OF_BURST, timeoutSeconds=int(DEADLINE)):
            if has_happened(event):
                done.setdefault(event["object"]["metadata"]["uid"], time.perf_counter())
            if len(done) == pods:
                break
    return min(done.values()), max(done.values())


# The page

HEAD = """\
# A burst of pods

{pods} pods that ask for a card wait for {nodes} nodes; the stand-in's scheduler is let loose on them: pods bound a
second, with our services, and with an extender that names a node in turn and binds at once. Between the two stands what
the way over NATS costs by itself: our extender, and behind it an allocator that names a node in turn and binds at once.
[What follows from it](../explanations/performance.md). Written by `make perf`; a new run replaces it.
"""

HOW = """\
## How

- Scheduler, stand-in API server, extender, allocator and NATS share the machine, so CPU time is what runs out first.
- The nodes' cards are told over the bus as our node-agent does, so no node lock is taken; no kubelet runs, and no pod
  is confirmed. The allocator's events (CloudEvents and Kubernetes Events) are on: they go on after the pods are bound.
- Pods a second: from the first bound to the last. The pods of a burst are deleted before the next one begins.
- Each takes turns with the extender that does nothing; of several rounds the best of each counts.
"""


def page(found: Mapping[str, Sequence[Burst]], aim: float, pods: int, load: Load) -> str:
    """Return the whole page."""
    head = HEAD.format(pods=pods, nodes=NODES)
    return "\n".join([head, table(found), "", verdict(found, aim), "", report.conditions([load]), "", HOW])


def table(found: Mapping[str, Sequence[Burst]]) -> str:
    """Return the rounds of both."""
    rows = []
    for name, rounds in found.items():
        best = max(rounds, key=lambda burst: burst.per_second)
        cpu = ", ".join(f"{each} {spent:.1f}" for each, spent in best.cpu.items())
        rows.append(f"| {name} | {best.per_second:.0f} | {min(b.per_second for b in rounds):.0f} | {cpu} |")
    return "\n".join(["| with | pods/s | worst round | CPU ms a pod |", "| --- | ---: | ---: | --- |", *rows])


def verdict(found: Mapping[str, Sequence[Burst]], aim: float) -> str:
    """Say how they compare."""
    ours, idle, nothing = (max(burst.per_second for burst in found[name]) for name in (OURS, IDLE, NOTHING))
    return (
        f"Ours bind {ours / nothing:.2f} of what the same loop binds with an extender that does nothing; the aim is "
        f"{aim}. With an allocator that does nothing it is {idle / nothing:.2f}; of that, ours bind {ours / idle:.2f}."
    )


if __name__ == "__main__":
    main()
