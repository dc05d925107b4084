"""How long the kubelet waits for a container's devices, written to docs/reference/allocate.md.

One rule: what is timed are the kubelet's two calls to the agent's socket, GetPreferredAllocation and Allocate together:
while they last the kubelet admits no other pod of its node.
"""

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import msgspec
from hami_kit import bus as buses
from hami_kit.bus import BusSettings
from hami_kit.telemetry import Telemetry
from hami_model.allocation import Allocation
from hami_model.bus import subjects
from hami_model.bus.messages import PushAllocation
from hami_testkit.cluster.kubelet.endpoint import PluginEndpoint
from msgspec import Struct

from tests.perf import report
from tests.perf.footprint import NODE, Node, a_node
from tests.perf.report import MS, Load, Watch

PODS = 60
WARM_UP = 10

HERE = Path(__file__).parent
PAGE = HERE.parents[1] / "docs" / "reference" / "allocate.md"


class Waited(Struct, frozen=True):
    """One way in which the agent comes to know what a container was given: milliseconds for each one."""

    name: str
    times: tuple[float, ...]
    load: Load
    aim: float

    @property
    def p99(self) -> float:
        """Return what 99 of 100 stayed under."""
        return sorted(self.times)[int(len(self.times) * 0.99)]


class _Budget(Struct, frozen=True):
    aims: dict[str, dict[str, float]]


def main() -> None:
    """Measure, write the page, say how the aims were met."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pods", type=int, default=PODS)
    parser.add_argument("--out", type=Path, default=PAGE, metavar="FILE")
    options = parser.parse_args()
    aims = msgspec.toml.decode((HERE / "budget.toml").read_text(), type=_Budget).aims["allocate"]
    rows = [
        asyncio.run(measure("pushed before the Binding", options.pods, aims["pushed_ms"], is_pushed=True)),
        asyncio.run(measure("NATS down: by the pod", options.pods, aims["nats_down_ms"], is_pushed=False)),
    ]
    for row in rows:
        sys.stdout.write(f"{row.name}: p99 {row.p99:.1f} ms, {row.p99 / row.aim:.2f} of the aim of {row.aim:g} ms\n")
    options.out.write_text(page(rows))
    sys.stdout.write(f"written: {options.out}\n")


async def measure(name: str, pods: int, aim: float, *, is_pushed: bool) -> Waited:
    """Return how long the kubelet waits for each of so many containers."""
    times: list[float] = []
    with tempfile.TemporaryDirectory(prefix="ha-") as folder, timed(times):
        async with a_node(Path(folder)) as node, told(node, is_pushed=is_pushed):
            watch = Watch()
            for index in range(pods + WARM_UP):
                await node.run_pod(index)
    assert len(times) == pods + WARM_UP, f"{len(times)} containers were served, not {pods + WARM_UP}"
    return Waited(name, tuple(times[WARM_UP:]), watch.load(), aim)


@asynccontextmanager
async def told(node: Node, *, is_pushed: bool) -> AsyncIterator[None]:
    """Push allocations as the leader does, or have no bus at all."""
    if not is_pushed:
        await node.stop_nats()
        yield
        return
    async with buses.connect(BusSettings(url=node.nats), name="perf-push", telemetry=Telemetry()) as bus:
        await bus.wait_connected()

        async def push(allocation: Allocation) -> None:
            await bus.publish(subjects.of_node(NODE, "allocation"), PushAllocation(allocation=allocation, term="perf"))

        node.push = push
        yield


@contextmanager
def timed(times: list[float]) -> Iterator[None]:
    """Take the time of the kubelet's calls, one number for each container, in milliseconds."""
    preferred, allocate = PluginEndpoint.preferred, PluginEndpoint.allocate
    began: list[float] = []

    async def first(self: PluginEndpoint, *asked: Any) -> list[str]:
        began.append(time.perf_counter())
        return await preferred(self, *asked)

    async def second(self: PluginEndpoint, *asked: Any) -> Any:
        answer = await allocate(self, *asked)
        times.append((time.perf_counter() - began.pop()) * MS)
        return answer

    PluginEndpoint.preferred, PluginEndpoint.allocate = first, second  # type: ignore[method-assign]
    try:
        yield
    finally:
        PluginEndpoint.preferred, PluginEndpoint.allocate = preferred, allocate  # type: ignore[method-assign]


HEAD = """\
# How long the kubelet waits

Milliseconds that the kubelet waits for a container's devices: GetPreferredAllocation and Allocate together. Meanwhile
it admits no other pod of its node. Written by `make perf`; a new run replaces it.

| the agent knows by | p50 | p99 | most | aim | p99 / aim |
| --- | ---: | ---: | ---: | ---: | ---: |
"""

HOW = """\
## How

- `hami-node-agent` is a process of its own, with the scripted driver and eight cards; the kubelet is the stand-in. It
  speaks the real protocol over the real socket. Pods come one after the other.
- Pushed: the leader's message is sent before the Binding. NATS down: it was stopped before the first pod, so the agent
  knows a pod by its own watch of the API server.
"""


def page(rows: Sequence[Waited]) -> str:
    """Return the whole page."""
    table = [
        f"| {row.name} | {median(row.times):.1f} | {row.p99:.1f} | {max(row.times):.1f} | {row.aim:g} | "
        f"{row.p99 / row.aim:.2f} |"
        for row in rows
    ]
    conditions = report.conditions([row.load for row in rows], containers=f"{len(rows[0].times)} in each row")
    return "\n".join([HEAD + "\n".join(table), "", conditions, "", HOW])


if __name__ == "__main__":
    main()
