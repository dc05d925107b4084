"""A big cluster through the running services, written to docs/reference/scale.md.

One rule: every number is that of the processes a user runs; what the stand-in API server costs is measured beside it.
"""

import argparse
import asyncio
import statistics
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
from hami_allocator.reading import BEAT_EVERY
from hami_kit import bus as buses
from hami_kit.bus import Bus, BusSettings
from hami_kit.telemetry import Telemetry
from hami_model.bus import subjects
from hami_model.bus.messages import ExplainAnswer, ExplainPod, Explanation
from msgspec import Struct

from tests.perf import caller, fleets, scale_page
from tests.perf.report import MS, Budget, Watch
from tests.perf.scale_page import BigCluster, Filtered, Start
from tests.perf.system import READY, System, a_client, a_system

NODES = 5000
SMALL = 10
WARM_UP = 200
RUNS = 3
RUN_CALLS = 500
RUN_SECONDS = 8.0
RELIST_EVERY = 3.0
EXPLAIN_EVERY = 1.0
WAITING = "waiting"
FOLLOWED = "with one explain a second and a follower"
STOPPING = 0.1
"""Seconds after the signal in which a leader that stops may still answer."""

HERE = Path(__file__).parent
PAGE = HERE.parents[1] / "docs" / "reference" / "scale.md"


def main() -> None:
    """Measure, write the page, print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=NODES)
    parser.add_argument("--out", type=Path, default=PAGE, metavar="FILE")
    options = parser.parse_args()
    budget = msgspec.toml.decode((HERE / "budget.toml").read_text(), type=Budget)
    found = asyncio.run(measure(options.nodes))
    options.out.write_text(scale_page.page(found, budget))
    sys.stdout.write(f"{scale_page.table(found, budget)}\nwritten: {options.out}\n")


async def measure(nodes: int) -> BigCluster:
    """Return all that is measured."""
    watch = Watch()
    say(f"{SMALL} nodes: filter …")
    async with a_system(SMALL) as system:
        await _start(system, caller.bodies(_names(SMALL)))
        small = await _filtered(system, SMALL, "idle", runs=RUNS)
    say(f"{nodes} nodes: making the cluster …")
    async with a_system(nodes) as system:
        bodies = caller.bodies(_names(nodes))
        bare = await _bare_list(system)
        say(f"{nodes} nodes: start …")
        start = await _start(system, bodies)
        filtered = {"idle": await _filtered(system, nodes, "idle", runs=RUNS)}
        for name, meanwhile in MEANWHILE.items():
            say(f"{nodes} nodes: filter {name} …")
            async with meanwhile(system):
                filtered[name] = await _filtered(system, nodes, name, runs=1)
        memory = system.memory("a")
        await _follow(system, "b")
        say(f"{nodes} nodes: filter {FOLLOWED} …")
        async with _explained(system):
            filtered[FOLLOWED] = await _filtered(system, nodes, FOLLOWED, runs=1)
        say(f"{nodes} nodes: losing the leader …")
        killed, stopped = await _fail_over(system, bodies[0])
        return BigCluster(
            nodes=nodes,
            small=small,
            filtered=filtered,
            start=start,
            bare=bare,
            memory=memory,
            killed=killed,
            stopped=stopped,
            load=watch.load(),
        )


def _names(nodes: int) -> list[str]:
    return [fleets.name_of(index) for index in range(nodes)]


async def _bare_list(system: System) -> float:
    """Return the seconds in which a client that only reads gets every page of nodes and pods."""
    started = time.perf_counter()
    async with a_client() as client:
        for kind in ("nodes", "pods"):
            token = ""
            while True:
                query = {"limit": "500", **({"continue": token} if token else {})}
                answer = await client.get(f"{system.api}/api/v1/{kind}", params=query)
                token = msgspec.json.decode(answer.content, type=_Head).metadata.token
                if not token:
                    break
    return time.perf_counter() - started


class _Meta(Struct):
    token: str = msgspec.field(default="", name="continue")


class _Head(Struct):
    metadata: _Meta


async def _start(system: System, bodies: list[bytes]) -> Start:
    """Start the allocator and wait for its first answer; then let everything warm up."""
    before = system.cpu("cluster")
    started = time.perf_counter()
    await system.start_allocator("a")
    await system.wait_answered(bodies[0])
    start = Start(
        seconds=time.perf_counter() - started,
        cpu=system.cpu("a"),
        cluster_cpu=system.cpu("cluster") - before,
        memory=system.memory("a")[0],
    )
    await asyncio.to_thread(caller.one_by_one, system.extender, bodies, seconds=RUN_SECONDS, most=WARM_UP)
    return start


async def _filtered(system: System, nodes: int, name: str, *, runs: int) -> Filtered:
    """Call one after another; of several runs the quietest counts."""
    bodies = caller.bodies(_names(nodes))
    most = RUN_CALLS if runs > 1 else 10**9
    before = system.cpu("a")
    found = [
        await asyncio.to_thread(caller.one_by_one, system.extender, bodies, seconds=RUN_SECONDS, most=most)
        for _ in range(runs)
    ]
    cpu = (system.cpu("a") - before) / sum(map(len, found))
    best = min(found, key=lambda calls: statistics.median(call.seconds for call in calls))
    filtered = Filtered(tuple(call.seconds * MS for call in best), cpu * MS)
    say(f"  {name}: p50 {filtered.p50:.2f} ms, p99 {filtered.p99:.1f} ms, CPU {filtered.cpu:.2f} ms a call")
    return filtered


# What else goes on


@asynccontextmanager
async def _again(every: float, act: Callable[[], Awaitable[object]]) -> AsyncIterator[None]:
    """Do something again and again for the length of a block; it must have worked at least once."""
    done = 0

    async def repeat() -> None:
        nonlocal done
        while True:
            started = time.perf_counter()
            await act()
            done += 1
            await asyncio.sleep(max(0.0, started + every - time.perf_counter()))

    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(repeat())
        yield
        task.cancel()
    assert done, "it never came to an end"


@asynccontextmanager
async def _scraped(system: System) -> AsyncIterator[None]:
    url = system.process("a").spec.ready_url.replace("/readyz", "/metrics")
    async with a_client() as client:

        async def scrape() -> None:
            async with client.stream("GET", url, headers={"accept-encoding": "gzip"}) as answer:
                length = sum([len(piece) async for piece in answer.aiter_raw()])
            assert length > 0
            assert answer.status_code == 200

        async with _again(0.0, scrape):
            yield


@asynccontextmanager
async def _relisted(system: System) -> AsyncIterator[None]:
    async with a_client() as client:

        async def expire() -> None:
            fault = {"kind": "gone", "resource": "pods"}
            assert (await client.post(f"{system.api}/standin/faults", json=fault)).status_code == 200

        async with _again(RELIST_EVERY, expire):
            yield


@asynccontextmanager
async def _explained(system: System) -> AsyncIterator[None]:
    await _create_waiting(system)
    async with buses.connect(BusSettings(url=system.nats), name="perf", telemetry=Telemetry()) as bus:
        await bus.wait_connected()
        async with _again(EXPLAIN_EVERY, lambda: _explain(bus)):
            yield


async def _create_waiting(system: System) -> None:
    """Create a pod that fits nowhere: every card of every node has a reason."""
    pod = caller.pod(0)
    asked = {"nvidia.com/gpu": str(fleets.CARDS), "nvidia.com/gpumem": str(fleets.MEMORY)}
    pod["metadata"] = {"name": WAITING}
    pod["spec"]["containers"][0]["resources"] = {"limits": asked}
    async with a_client() as client:
        answer = await client.post(f"{system.api}/api/v1/namespaces/{fleets.NAMESPACE}/pods", json=pod)
        assert answer.status_code in (201, 409), answer.text


async def _explain(bus: Bus) -> None:
    question = ExplainPod(namespace=fleets.NAMESPACE, name=WAITING)
    async with asyncio.timeout(10):
        while not isinstance(await bus.request(subjects.EXPLAIN, question, ExplainAnswer, timeout=10), Explanation):
            await asyncio.sleep(0.1)  # the watch has not shown the pod yet


MEANWHILE: Mapping[str, Callable[[System], object]] = {
    "while /metrics is read without a pause": _scraped,
    "while pods are listed anew every 3 s": _relisted,
    "with one explain a second": _explained,
}


# Losing the leader


async def _follow(system: System, name: str) -> None:
    """Start an allocator that follows, and give the leader time to hear of it."""
    follower = await system.start_allocator(name)
    await follower.wait_ready(READY)
    await asyncio.sleep(2 * BEAT_EVERY)


async def _fail_over(system: System, body: bytes) -> tuple[float, float]:
    """Return the seconds to the next answer after the leader was killed, and after the next one was stopped cleanly."""
    system.process("a").kill()
    killed = await system.wait_answered(body)
    await _follow(system, "c")
    stopping = asyncio.create_task(system.stop("b"))
    await asyncio.sleep(STOPPING)
    stopped = STOPPING + await system.wait_answered(body)
    await stopping
    return killed, stopped


def say(sentence: str) -> None:
    """Tell whoever waits how far it is."""
    sys.stdout.write(f"{sentence}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
