"""Filter latency through the running services, written to docs/reference/filter-latency.md.

One rule: it measures what a user would run, started by the console commands, and compares with budget.toml.
"""

import argparse
import asyncio
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import msgspec
from hami_kit import bus as buses
from hami_kit.bus import BusSettings
from hami_kit.telemetry import Telemetry
from hami_testkit.stack import Plan, Stack, stack

from tests.perf import caller, fleets, report
from tests.perf.report import Budget, Measured
from tests.perf.system import cpu_of

SIZES = (10, 100, 1000, 5000)
SOME = 500
"""kube-scheduler stops looking for nodes when it has found some: it offers about so many of a large cluster."""

RUNS = 5
RUN_SECONDS = 4.0
RUN_CALLS = 600
WARM_UP = 300
CALLERS = 8

HERE = Path(__file__).parent
PAGE = HERE.parents[1] / "docs" / "reference" / "filter-latency.md"


def main() -> None:
    """Measure, write the page, say how the aims were met."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, metavar="NODES")
    parser.add_argument("--runs", type=int, default=RUNS)
    parser.add_argument("--out", type=Path, default=PAGE, metavar="FILE")
    options = parser.parse_args()
    budget = msgspec.toml.decode((HERE / "budget.toml").read_text(), type=Budget)
    rows = asyncio.run(measure(options.sizes, runs=options.runs))
    options.out.write_text(report.page(rows, budget))
    sys.stdout.write("\n".join([*report.verdicts(rows, budget), f"written: {options.out}", ""]))


async def measure(sizes: Sequence[int], *, runs: int) -> list[Measured]:
    """Return one row for each size and each number of names offered."""
    rows: list[Measured] = []
    for size in sizes:
        with tempfile.TemporaryDirectory(prefix="hami-perf-") as folder:
            async with stack(Plan(folder=Path(folder), schedules=False)) as system:
                rows += await _measure_one(system, size, runs=runs)
    return rows


async def _measure_one(system: Stack, size: int, *, runs: int) -> list[Measured]:
    say(f"{size} nodes: creating them with {size * fleets.PODS_PER_NODE} bound pods …")
    await fleets.fill(system.at, size)
    async with buses.connect(BusSettings(url=system.at.nats), name="perf", telemetry=Telemetry()) as bus:
        await bus.wait_connected()
        full = await fleets.fullness(bus)
    assert 0.45 < full < 0.55, f"{full:.1%} of the memory is booked: the fleet is not half full"
    rows = []
    for offered in dict.fromkeys((size, min(size, SOME))):
        row = await asyncio.to_thread(_row, system, size, offered, full=full, runs=runs)
        say(report.sentence(row))
        rows.append(row)
    return rows


def _row(system: Stack, size: int, offered: int, *, full: float, runs: int) -> Measured:
    url, names = system.at.extender, [fleets.name_of(at * size // offered) for at in range(offered)]
    bodies = caller.bodies(names)
    watch = report.Watch()
    caller.one_by_one(url, bodies, seconds=RUN_SECONDS, most=WARM_UP)
    spent = _cpu_seconds(system)
    found = [caller.one_by_one(url, bodies, seconds=RUN_SECONDS, most=RUN_CALLS) for _ in range(runs)]
    spent = {name: after - spent[name] for name, after in _cpu_seconds(system).items()}
    assert {call.node for run in found for call in run} <= set(names)
    together = max(caller.side_by_side(url, bodies, callers=CALLERS, seconds=1.5) for _ in range(2))
    return Measured(
        nodes=size,
        offered=offered,
        runs=tuple(tuple(call.seconds * report.MS for call in run) for run in found),
        per_second=together,
        cpu={name: seconds * report.MS / sum(map(len, found)) for name, seconds in spent.items()},
        fullness=full,
        load=watch.load(),
    )


def _cpu_seconds(system: Stack) -> dict[str, float]:
    """Return the CPU time that each service has taken so far."""
    return {name: cpu_of(system.process(name).pid) for name in ("extender", "allocator", "nats")}


def say(sentence: str) -> None:
    """Tell whoever waits how far it is."""
    sys.stdout.write(f"{sentence}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
