"""What was measured, as a page for people.

One rule: every number stands beside the conditions it was measured under.
"""

import os
import platform
import re
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from msgspec import Struct

MS = 1000.0
STEAL = 7
"""Where the kernel's line of times has what the host gave to other machines."""


class Load(Struct, frozen=True):
    """What else the machine was doing: processes that wanted to run, in the minute before and in that after."""

    before: float
    after: float
    stolen: float
    """The share of the time that the machine's host gave to other machines meanwhile."""


class Watch:
    """What the machine does from now on."""

    def __init__(self) -> None:
        self._before, self._ticks = os.getloadavg()[0], _ticks()

    def load(self) -> Load:
        """Return what it did until now."""
        spent = [now - then for now, then in zip(_ticks(), self._ticks, strict=True)]
        return Load(self._before, os.getloadavg()[0], stolen=spent[STEAL] / max(sum(spent), 1))


def _ticks() -> list[int]:
    """Return how the machine has spent its time so far, as the kernel counts it."""
    return [int(ticks) for ticks in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]


class Measured(Struct, frozen=True, kw_only=True):
    """One row: so many nodes, so many of them offered; milliseconds of each call."""

    nodes: int
    offered: int
    runs: tuple[tuple[float, ...], ...]
    per_second: float
    cpu: Mapping[str, float]
    """Milliseconds of CPU time a call, by service."""
    fullness: float
    load: Load

    @property
    def best(self) -> tuple[float, ...]:
        """Return the quietest run, by its median."""
        return min(self.runs, key=statistics.median)

    @property
    def p50(self) -> float:
        """Return the median of the quietest run."""
        return statistics.median(self.best)

    @property
    def p99(self) -> float:
        """Return what 99 of 100 calls of the quietest run stayed under."""
        return sorted(self.best)[int(len(self.best) * 0.99)]

    @property
    def worst_p50(self) -> float:
        """Return the median of the least quiet run."""
        return max(statistics.median(run) for run in self.runs)


class Budget(Struct, frozen=True):
    """``budget.toml``: our aims and HAMi's figures, by number of nodes."""

    aims: Mapping[str, Mapping[str, float]]
    hami: Mapping[str, Mapping[str, float]]

    def aim(self, row: Measured) -> float | None:
        """Return the aim for a row that offers every node."""
        return self.aims["p50_ms"].get(str(row.nodes)) if row.offered == row.nodes else None

    def theirs(self, row: Measured) -> float | None:
        """Return HAMi's figure for a row that offers every node."""
        return self.hami["p50_ms"].get(str(row.nodes)) if row.offered == row.nodes else None


HEAD = """\
# Filter latency

How long one `/filter` call takes through the running services: HTTP to the extender, NATS to the allocator, decision
and reservation there, and back. Written by `make perf`; a new run replaces it.
"""

COLUMNS = (
    "nodes", "offered", "p50 ms", "p99 ms", "calls/s, one caller", "calls/s, eight callers", "CPU ms a call: extender",
    "allocator", "HAMi 2.10 p50 ms", "HAMi / ours", "aim ms", "p50 / aim",
)  # fmt: skip

HOW = """\
## How

- Every node has 8 NVIDIA cards of 80 GiB, registered by annotation, and two bound pods that hold half of the memory and
  cores on average. The allocator charges them from their annotations; `half full` is read back from its books.
- Each call offers a pending pod of one container (1 card, 1000 MiB, 1 % of the cores) and reserves devices for it. 200
  pods take turns; one asked about again first gives back what it had: each call is one release and one reservation.
- One caller with one kept connection calls like kube-scheduler, one call after another; its own time (`http.client`
  in Python) is in the numbers. The services, NATS, the stand-in API server and the caller share the machine.
- Of several runs the quietest counts, by its median; the least quiet one is in the last table. The CPU time a call
  costs each service, read from the kernel over all runs, depends less on what else the machine does.
- HAMi's figures are those of HAMi 2.10 on this kind of machine, taken once and not in this run: see the ratio as an
  order of magnitude.
"""


def page(rows: Sequence[Measured], budget: Budget) -> str:
    """Return the whole page."""
    head = [f"| {' | '.join(COLUMNS)} |", f"|{' ---: |' * len(COLUMNS)}"]
    table = [*head, *(_row(row, budget) for row in rows)]
    return "\n".join([HEAD, *table, "", _conditions(rows), "", HOW, _runs(rows), ""])


def sentence(row: Measured) -> str:
    """Say one row in a line."""
    cpu = ", ".join(f"{name} {spent:.2f}" for name, spent in row.cpu.items())
    times = f"p50 {row.p50:.2f} ms, p99 {row.p99:.2f} ms"
    return f"{row.nodes} nodes, {row.offered} offered: {times}, CPU ms {cpu}, load {row.load.after:.1f}"


def verdicts(rows: Sequence[Measured], budget: Budget) -> list[str]:
    """Say for each aim whether it was met."""
    found = [(row, budget.aim(row)) for row in rows]
    return [
        f"{row.nodes} nodes: p50 {row.p50:.2f} ms, {row.p50 / aim:.2f} of the aim of {aim:g} ms"
        for row, aim in found
        if aim is not None
    ]


def _row(row: Measured, budget: Budget) -> str:
    theirs, aim = budget.theirs(row), budget.aim(row)
    cells = [
        str(row.nodes),
        str(row.offered),
        f"{row.p50:.2f}",
        f"{row.p99:.2f}",
        f"{MS / statistics.mean(row.best):.0f}",
        f"{row.per_second:.0f}",
        f"{row.cpu['extender']:.2f}",
        f"{row.cpu['allocator']:.2f}",
        f"{theirs:g}" if theirs else "–",
        f"{theirs / row.p50:.0f}×" if theirs else "–",
        f"{aim:g}" if aim else "–",
        f"{row.p50 / aim:.2f}" if aim else "–",
    ]
    return f"| {' | '.join(cells)} |"


def conditions(measured: Sequence[Load], **more: str) -> str:
    """Return the conditions as a table."""
    queues = [load for both in measured for load in (both.before, both.after)]
    facts = {
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "CPU": f"{_cpu()}, {os.cpu_count()} cores",
        "load of the machine": f"{min(queues):.1f} to {max(queues):.1f} in the minutes around the runs, these included",
        "taken by other machines of the host": f"up to {max(load.stolen for load in measured):.0%} of the time (steal)",
        "Python": f"{platform.python_implementation()} {platform.python_version()}, {platform.system()}",
        **more,
    }
    return "\n".join(["| condition | |", "| --- | --- |", *(f"| {key} | {value} |" for key, value in facts.items())])


def _conditions(rows: Sequence[Measured]) -> str:
    full = " and ".join(sorted({f"{row.fullness:.1%}" for row in rows}))
    return conditions([row.load for row in rows], **{"half full": f"{full} of the memory booked"})


def _runs(rows: Sequence[Measured]) -> str:
    lines = ["| nodes | offered | samples (best run) | runs | p50 of the least quiet run, ms | load before, after |"]
    lines.append("| ---: | ---: | ---: | ---: | ---: | --- |")
    for row in rows:
        load = f"{row.load.before:.1f}, {row.load.after:.1f}"
        count, runs = len(row.best), len(row.runs)
        lines.append(f"| {row.nodes} | {row.offered} | {count} | {runs} | {row.worst_p50:.2f} | {load} |")
    return "\n".join(lines)


def _cpu() -> str:
    names = re.findall(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return names[0] if names else platform.machine()
