"""What other cards in the cluster cost a decision, written to docs/reference/mixed-fleet.md.

One rule: every fleet is asked the same question, in turns, so that whatever else the machine does meets all of them;
only ratios count.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import cycle, islice
from pathlib import Path
from statistics import median

import msgspec
import yaml
from hami_model.demands import pod_demand
from hami_model.device import MigProfile, Placement
from hami_model.fleet import Fleet
from hami_model.objects import Node
from hami_model.place import place
from hami_model.policies import Policies, for_pod
from hami_testkit.builders import a_catalog, a_node, a_pod
from msgspec import Struct, structs

from tests.perf import report
from tests.perf.fleets import CARDS, MEMORY, MODEL
from tests.perf.report import Budget, Load, Watch

CANDIDATES = 1000
ROUNDS = 9
CALLS = 200

HERE = Path(__file__).parent
EXAMPLES = HERE.parents[1] / "examples"
PAGE = HERE.parents[1] / "docs" / "reference" / "mixed-fleet.md"
US = 1e6
PROFILES = (
    MigProfile(
        name="1g.10gb",
        memory=9856,
        cores=15,
        slices=1,
        placements=tuple(Placement(start=at, size=1) for at in range(7)),
    ),
    MigProfile(name="7g.80gb", memory=80896, cores=100, slices=7, placements=(Placement(start=0, size=8),)),
)

Nodes = Sequence[Node]


class Case(Struct, frozen=True):
    """One fleet, and which of its nodes are offered."""

    name: str
    fleet: Fleet
    offered: tuple[str, ...]


def main() -> None:
    """Measure, write the page, say how the aim was met."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--out", type=Path, default=PAGE, metavar="FILE")
    options = parser.parse_args()
    budget = msgspec.toml.decode((HERE / "budget.toml").read_text(), type=Budget)
    watch, cases = Watch(), list(made(CANDIDATES))
    spent = measure(cases, options.rounds)
    aim = budget.aims["mixed"]["ratio"]
    options.out.write_text(page(cases, spent, aim, watch.load()))
    beyond = [case.name for case in cases if ratio(spent, case) > aim]
    sys.stdout.write(f"beyond the aim of {aim:g} times: {', '.join(beyond) or 'none'}\nwritten: {options.out}\n")


def made(count: int) -> Iterator[Case]:
    """Yield the fleets; each offers so many nodes, of which the pod fits on some at least."""
    ours, others, cut = gpus(count, "gpu"), list(islice(of_other_vendors(), count)), gpus(count, "mig", is_cut=True)
    half = count // 2
    yield case("these nodes alone", ours)
    yield case("as many nodes of twelve other vendors beside them", ours, others, offered=ours)
    yield case("half of the nodes are other vendors'", ours[:half], others[:half])
    yield case("half of the nodes are in MIG mode", ours[:half], cut[:half])


def case(name: str, *nodes: Nodes, offered: Nodes | None = None) -> Case:
    """Put a fleet together as the allocator would read it; all nodes are offered where nothing else is said."""
    fleet = Fleet(a_catalog())
    for node in (node for some in nodes for node in some):
        fleet.set_node(node)
        for vendor in fleet.catalog.vendors:
            fleet.set_devices(node.metadata.name, vendor.word, vendor.discover(vendor, node))
    return Case(name, fleet, fleet.nodes if offered is None else tuple(node.metadata.name for node in offered))


def gpus(count: int, name: str, *, is_cut: bool = False) -> list[Node]:
    """Make up NVIDIA nodes, shared by limits or cut with MIG."""
    facts = {"mode": "mig", "mig_profiles": PROFILES} if is_cut else {"mode": "hami-core"}
    nodes = (a_node(f"{name}-{at:05d}") for at in range(count))
    return [node.with_cards(CARDS, memory=MEMORY, model=MODEL, **facts).node() for node in nodes]


def of_other_vendors() -> Iterator[Node]:
    """Yield the nodes of the examples but NVIDIA's, over and over, each under a name of its own."""
    files = sorted(path for path in EXAMPLES.glob("*/nodes.yaml") if path.parent.name != "nvidia")
    known = [msgspec.convert(item, Node) for path in files for item in yaml.safe_load(path.read_text())["items"]]
    for at, node in enumerate(cycle(known)):
        yield structs.replace(node, metadata=structs.replace(node.metadata, name=f"other-{at:05d}"))


def measure(cases: Sequence[Case], rounds: int) -> dict[str, list[float]]:
    """Return the median microseconds of a decision by fleet, one for each round; the fleets take turns."""
    decisions = {case.name: decision(case) for case in cases}
    spent: dict[str, list[float]] = {case.name: [] for case in cases}
    for _ in range(rounds + 1):  # the first warms up
        times: dict[str, list[float]] = {case.name: [] for case in cases}
        for _ in range(CALLS):
            for name, decide in decisions.items():
                started = time.perf_counter()
                decide()
                times[name].append((time.perf_counter() - started) * US)
        for name, found in times.items():
            spent[name].append(median(found))
    return {name: found[1:] for name, found in spent.items()}


def decision(of: Case) -> Callable[[], object]:
    """Return what is timed: a pod that asks for a slice of one card shared by limits."""
    pod = a_pod("p").asking(gpu=1, gpumem=3000, gpucores=30).annotated({"nvidia.com/vgpu-mode": "hami-core"}).pod()
    demand, policies = pod_demand(pod, of.fleet.catalog), for_pod(pod, Policies())

    def decide() -> object:
        return place(of.fleet, pod, demand, of.offered, policies=policies)

    answer = decide()
    assert getattr(answer, "node", "").startswith("gpu-"), f"{of.name}: {str(answer)[:300]}"
    return decide


def ratio(spent: dict[str, list[float]], of: Case) -> float:
    """Return how many times as long a decision takes as on the first fleet, round by round."""
    plain = next(iter(spent.values()))
    return median(mine / least for mine, least in zip(spent[of.name], plain, strict=True))


HEAD = """\
# A mixed fleet

What other cards in the cluster cost a pod that asks for a slice of an NVIDIA card, while as many nodes are offered.
Written by `make perf`; a new run replaces it.

| fleet | µs a decision | ratio |
| --- | ---: | ---: |
"""

HOW = """\
## How

- The decision alone, in process. The fleets are asked in turns, and the ratio is the median over rounds of one fleet's
  median to the first one's.
- NVIDIA nodes have 8 idle cards of 80 GiB; the other vendors' are those of `examples/`, over and over.
"""


def page(cases: Sequence[Case], spent: dict[str, list[float]], aim: float, load: Load) -> str:
    """Return the whole page."""
    rows = [f"| {case.name} | {median(spent[case.name]):.0f} | {ratio(spent, case):.2f} |" for case in cases]
    facts = {"nodes offered": str(CANDIDATES), "calls": f"{len(spent[cases[0].name])} rounds of {CALLS}"}
    conditions = report.conditions([load], **facts, aim=f"no ratio is above {aim:g}")
    return "\n".join([HEAD + "\n".join(rows), "", conditions, "", HOW])


if __name__ == "__main__":
    main()
