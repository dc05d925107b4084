"""CPU time of one decision for every shape of pod, written to docs/reference/filter-shapes.md.

One rule: only the decision is timed, in this process and without services; what it answers is checked beforehand.
"""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
from hami_model.demands import pod_demand
from hami_model.fleet import Fleet
from hami_model.place import Placement, place
from hami_model.policies import Policies, for_pod
from msgspec import Struct

from tests.perf import made, report
from tests.perf.made import KINDS, Shape
from tests.perf.report import MS, Budget, Load, Watch

SIZE = 5000
REPEATS = 7

HERE = Path(__file__).parent
PAGE = HERE.parents[1] / "docs" / "reference" / "filter-shapes.md"
AIM = "shape_cpu_ms"


class Timed(Struct, frozen=True):
    """One shape: the least milliseconds of CPU time that a decision took, by kind of fleet."""

    shape: Shape
    spent: tuple[float, ...]


def main() -> None:
    """Measure, write the page, say which shapes are beyond the aim."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=SIZE)
    parser.add_argument("--out", type=Path, default=PAGE, metavar="FILE")
    options = parser.parse_args()
    budget = msgspec.toml.decode((HERE / "budget.toml").read_text(), type=Budget)
    watch = Watch()
    rows = measure(options.nodes)
    aim = budget.aims[AIM].get(str(options.nodes))
    options.out.write_text(page(rows, options.nodes, aim, watch.load()))
    beyond = [row.shape.name for row in rows if aim is not None and max(row.spent) > aim]
    sys.stdout.write(f"beyond the aim of {aim} ms: {', '.join(beyond) or 'none'}\nwritten: {options.out}\n")


def measure(nodes: int) -> list[Timed]:
    """Return the time of every shape on every kind of fleet."""
    shapes = list(made.shapes())
    spent: dict[str, list[float]] = {shape.name: [] for shape in shapes}
    for kind in KINDS:
        for vendors in dict.fromkeys(shape.vendors for shape in shapes):
            fleet = made.fleet(nodes, vendors, kind)
            for shape in (shape for shape in shapes if shape.vendors == vendors):
                spent[shape.name].append(_least(_decision(fleet, shape)))
        sys.stdout.write(f"{kind.name}: {max(times[-1] for times in spent.values()):.1f} ms at most\n")
    return [Timed(shape, tuple(spent[shape.name])) for shape in shapes]


def _decision(fleet: Fleet, shape: Shape) -> Callable[[], object]:
    pod, names = shape.pod.pod(), list(fleet.nodes)
    demand, policies = pod_demand(pod, fleet.catalog), for_pod(pod, Policies())

    def decide() -> object:
        return place(fleet, pod, demand, names, policies=policies, quota=shape.quota)

    answer = decide()
    assert shape.fits is isinstance(answer, Placement), f"{shape.name}: {str(answer)[:300]}"
    return decide


def _least(work: Callable[[], object]) -> float:
    times = []
    for _ in range(REPEATS):
        started = time.process_time()
        work()
        times.append((time.process_time() - started) * MS)
    return min(times)


HEAD = """\
# What a pod's shape costs

Milliseconds of CPU time of one decision in the allocator, all nodes offered: a pod that fits nowhere makes it look at
every card of every node and say why not. Written by `make perf`; a new run replaces it.
"""

HOW = """\
## How

- Every node has 8 cards (in the last fleet 1 to 8) of 80 GiB, each with one pod that holds 30 to 70 % of it. Two
  vendors: 8 cards of each.
- The decision alone, in process: reading the call, reserving and answering are in the latency of whole calls, which
  `make perf` measures too. The least of 7 runs counts; CPU time depends less than the clock on what else runs.
- `ratio` is the dearest of the three fleets over the plain pod on the same fleet.
"""


def page(rows: Sequence[Timed], nodes: int, aim: float | None, load: Load) -> str:
    """Return the whole page."""
    columns = ("pod", "fits", *(kind.name for kind in KINDS), "ratio")
    head = [f"| {' | '.join(columns)} |", "| --- | --- |" + " ---: |" * (len(columns) - 2)]
    conditions = report.conditions(
        [load], nodes=str(nodes), aim="none" if aim is None else f"no shape takes more than {aim:g} ms"
    )
    return "\n".join([HEAD, *head, *(_row(row, rows[0]) for row in rows), "", conditions, "", HOW])


def _row(row: Timed, plain: Timed) -> str:
    ratio = max(spent / least for spent, least in zip(row.spent, plain.spent, strict=True))
    cells = [row.shape.name, "yes" if row.shape.fits else "no", *(f"{ms:.1f}" for ms in row.spent), f"{ratio:.1f}"]
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
