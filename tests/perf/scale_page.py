"""What was measured on a big cluster, as a page for people.

One rule: every number stands beside its aim, HAMi's figure and the conditions it was measured under.
"""

import statistics
from collections.abc import Iterator, Mapping

from msgspec import Struct

from tests.perf import report
from tests.perf.cluster import HOLDERS, OTHERS
from tests.perf.report import Budget, Load


class Filtered(Struct, frozen=True):
    """The milliseconds of each call of one run, and the allocator's milliseconds of CPU time a call."""

    calls: tuple[float, ...]
    cpu: float

    @property
    def p50(self) -> float:
        """Return the median."""
        return statistics.median(self.calls)

    @property
    def p99(self) -> float:
        """Return what 99 of 100 calls stayed under."""
        return sorted(self.calls)[int(len(self.calls) * 0.99)]


class Start(Struct, frozen=True, kw_only=True):
    """A start from nothing to the first answer: seconds, of CPU time too, and MiB afterwards."""

    seconds: float
    cpu: float
    cluster_cpu: float
    memory: float


class BigCluster(Struct, frozen=True, kw_only=True):
    """All that was measured. ``memory``: MiB at the end, and at most. Times of losing the leader in seconds."""

    nodes: int
    small: Filtered
    filtered: Mapping[str, Filtered]
    start: Start
    bare: float
    memory: tuple[float, float]
    killed: float
    stopped: float
    load: Load


class _Line(Struct, frozen=True):
    what: str
    value: float
    unit: str
    key: str = ""
    """Its name in ``budget.toml``; empty where there is no aim."""


HEAD = """\
# A big cluster

{nodes} nodes of 8 cards, {holders} running pods that hold devices and {others} that hold none, through the running
services. Written by `make perf`; a new run replaces it.
[Where the time goes](../explanations/performance.md).
"""

HOW = """\
## How

- The cluster is the stand-in API server with objects as large as real ones: 5 KB a pod, 10 KB a node. What it costs
  itself is in the table; it shares the machine with the services, NATS and the caller.
- Start: from starting the allocator's process, its imports included, to the first `/filter` that names a node.
- Filter: as in [filter latency](filter-latency.md), all nodes offered, fleet half full. Idle is the quietest of three
  runs; the others are one run of 8 s each. The allocator is alone, but for the last run: a follower then explains.
- Losing the leader: a second allocator follows warm; the clock runs from the signal to the next `/filter` that names a
  node. After SIGKILL the Lease has to expire first: 10 s.
- HAMi's figures are those of HAMi 2.10 on this kind of machine, taken once and not in this run.
"""


def page(found: BigCluster, budget: Budget) -> str:
    """Return the whole page."""
    head = HEAD.format(nodes=found.nodes, holders=found.nodes * HOLDERS, others=found.nodes * OTHERS)
    return "\n".join([head, table(found, budget), "", report.conditions([found.load]), "", HOW])


def table(found: BigCluster, budget: Budget) -> str:
    """Return the numbers beside their aims."""
    aims, theirs = budget.aims["scale"], budget.hami["scale"]
    rows = [
        f"| {line.what} | {line.value:.{2 if line.value < 100 else 0}f} {line.unit} | {_known(aims, line)} "
        f"| {_met(aims, line)} | {_known(theirs, line)} |"
        for line in _lines(found)
    ]
    return "\n".join(["| what | measured | aim | met | HAMi 2.10 |", "| --- | ---: | ---: | --- | ---: |", *rows])


def _known(figures: Mapping[str, float], line: _Line) -> str:
    return f"{figures[line.key]:g}" if line.key in figures else "–"


def _met(aims: Mapping[str, float], line: _Line) -> str:
    if line.key not in aims:
        return ""
    return "yes" if line.value <= aims[line.key] else "no"


def _lines(found: BigCluster) -> Iterator[_Line]:
    idle, start = found.filtered["idle"], found.start
    yield _Line("filter p50, 10 nodes", found.small.p50, "ms")
    yield _Line("filter p50", idle.p50, "ms", "p50_ms")
    yield _Line("filter p50, times that at 10 nodes", idle.p50 / found.small.p50, "×", "p50_ratio")
    yield _Line("filter p99", idle.p99, "ms")
    yield _Line("allocator's CPU time a filter", idle.cpu, "ms")
    for name, during in found.filtered.items():
        if during is not idle:
            yield _Line(f"filter p50 {name}", during.p50, "ms")
            yield _Line(f"filter p99 {name}", during.p99, "ms")
    yield _Line("start to first answer", start.seconds, "s", "start_s")
    yield _Line("of which CPU time of the allocator", start.cpu, "s")
    yield _Line("of which CPU time of the stand-in API server", start.cluster_cpu, "s")
    yield _Line("the same lists, read by a client that only reads", found.bare, "s")
    yield _Line("leader killed to next answer", found.killed, "s", "killed_s")
    yield _Line("leader stopped to next answer", found.stopped, "s", "stopped_s")
    yield _Line("resident memory after the start", start.memory, "MiB", "memory_mib")
    yield _Line("resident memory at most, all of the above included", found.memory[1], "MiB", "memory_mib")
