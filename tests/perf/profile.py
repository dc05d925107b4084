"""Where the time of an allocator goes, step by step, written to docs/reference/profile.md.

One rule: the steps are the allocator's own code on the objects of the big cluster, in this process and without
services; CPU time counts, the least of several runs where a step can be repeated.
"""

import argparse
import asyncio
import gc
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
from hami_allocator.agents import Agents
from hami_allocator.answers import Answers
from hami_allocator.bootstrap import new_world
from hami_allocator.desk import Desk
from hami_allocator.fleet_metrics import FleetPage
from hami_allocator.reconcile import Reconcile
from hami_allocator.settings import AllocatorSettings
from hami_allocator.world import World
from hami_allocator.writer import Writer
from hami_extender import protocol
from hami_kit.bus import wire
from hami_kit.clock import SystemClock
from hami_model.bus.messages import FilterAnswer, FilterPod, Placed
from hami_model.demands import pod_demand
from hami_model.explain import explain
from hami_model.fleet import Fleet
from hami_model.objects import Node, Pod
from hami_model.place import place
from hami_model.policies import for_pod
from hami_testkit.builders import a_pod
from msgspec import Struct

from tests.perf import caller, cluster, fleets, report
from tests.perf.report import MS, Watch

NODES = 5000
REPEATS = 5
HERE = Path(__file__).parent
PAGE = HERE.parents[1] / "docs" / "reference" / "profile.md"

Work = Callable[[], Any]


class Step(Struct, frozen=True):
    """One step: what it is, how often it is done, and milliseconds of CPU time for all of that."""

    part: str
    what: str
    times: str
    ms: float


def main() -> None:
    """Measure, write the page, print it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=NODES)
    parser.add_argument("--out", type=Path, default=PAGE, metavar="FILE")
    options = parser.parse_args()
    watch = Watch()
    steps = asyncio.run(_measure(options.nodes))
    text = page(steps, options.nodes, report.conditions([watch.load()]))
    options.out.write_text(text)
    sys.stdout.write(f"{text}written: {options.out}\n")


async def _measure(nodes: int) -> list[Step]:
    """Measure the start, then what is done on the books that it leaves."""
    allocator = Allocator()
    return [*allocator.start(nodes), *allocator.filter(nodes), *allocator.read()]


class Allocator:
    """The allocator's parts that hold and change the books, without what connects them to the outside."""

    def __init__(self) -> None:
        self.clock, self.writer = SystemClock(), Writer()
        self.world: World = new_world(AllocatorSettings(), self.clock)
        self.reconcile = Reconcile(self.world, self.writer, Agents(self.world, self.clock), self.clock)

    # Start

    def start(self, nodes: int) -> Iterator[Step]:
        """Read nodes and pods as lists bring them, and take them to the books."""
        raw_nodes = [msgspec.json.encode(cluster.node(index)) for index in range(nodes)]
        raw_pods = [msgspec.json.encode(pod) for pod in cluster.pods(nodes)]
        gc.collect()
        read_nodes, read_pods = msgspec.json.Decoder(Node).decode, msgspec.json.Decoder(Pod).decode
        spent, seen = _timed(lambda: [read_nodes(raw) for raw in raw_nodes])
        yield Step("start", "bytes of nodes to Structs", f"{nodes}", spent)
        before = _resident()
        spent, _ = _timed(lambda: [self.reconcile._saw_node(node) for node in seen])
        yield Step("start", "nodes to the books: cards of their annotations", f"{nodes}", spent)
        spent, kept = _timed(lambda: [pod for raw in raw_pods if self.reconcile.concerns(pod := read_pods(raw))])
        yield Step("start", "bytes of pods to Structs, those without devices dropped", f"{len(raw_pods)}", spent)
        spent, _ = _timed(lambda: [self.reconcile.saw(pod) for pod in kept])
        yield Step("start", "pods to the books: what their annotations say they hold", f"{len(kept)}", spent)
        grown = _resident() - before
        spent, _ = _timed(gc.collect)
        yield Step("start", "one full collection of garbage", "1", spent)
        gc.freeze()
        yield Step("start", "one full collection after gc.freeze()", "1", _least(gc.collect))
        yield Step("memory", "MiB more for cards and pods", f"{nodes} nodes, {len(kept)} pods", grown)

    # Filter

    def filter(self, nodes: int) -> Iterator[Step]:
        """Follow one filter call through extender and allocator."""
        names = [fleets.name_of(index) for index in range(nodes)]
        body = caller.bodies(names)[0]
        args = protocol.read_filter(body)
        question = FilterPod(pod=args.pod, nodes=names)
        message, desk = wire.encode(question), Desk(self.world, self.clock)
        answer = desk.filter(question)
        assert isinstance(answer, Placed), answer
        catalog, policies = self.world.catalog, for_pod(args.pod, self.world.policies)
        demand, fleet = pod_demand(args.pod, catalog), self.world.fleet
        quota = self.world.quotas.view(fleets.NAMESPACE)
        steps: list[tuple[str, Work]] = [
            ("extender: read the call", lambda: protocol.read_filter(body)),
            ("extender: what the pod asks for", lambda: pod_demand(args.pod, catalog)),
            ("extender: write the question", lambda: wire.encode(question)),
            ("allocator: read the question", lambda: wire.read_message("", message, FilterPod)),
            ("allocator: decide", lambda: place(fleet, args.pod, demand, names, policies=policies, quota=quota)),
            ("allocator: decide, give back and reserve", lambda: desk.filter(question)),
            ("extender: read and write the answer", lambda: _answer(answer)),
        ]
        for what, work in steps:
            yield Step("filter", what, f"{nodes} nodes offered", _least(work))

    # Reading

    def read(self) -> Iterator[Step]:
        """Make what is read aside: the metrics page and an explanation."""
        page_of = FleetPage(self.world, self.writer, self.clock, legacy=False)
        copy = page_of._copy()
        yield Step("reading", "copy of the books, in the writer's turn", "1", _least(page_of._copy))
        spent, packed = _timed(lambda: page_of._render(copy))
        size = f"{packed.size / 1e6:.0f} MB of text, {len(packed.blocks) / 1e6:.1f} MB kept"
        yield Step("reading", f"metrics page, in a thread: {size}", "1", spent)
        answers = Answers(self.world, self.writer, leader=str, is_synced=lambda: True)
        yield Step("reading", "copy for an explanation, in the writer's turn", "1", _least(lambda: answers._view("")))
        pod, names = a_pod().asking(gpu=fleets.CARDS, gpumem=fleets.MEMORY).pod(), self.world.nodes.names
        view: Fleet = self.world.fleet.snapshot()
        demand, policies = pod_demand(pod, self.world.catalog), for_pod(pod, self.world.policies)

        def judge() -> object:
            return explain(view, pod, demand, names, policies=policies, quota={})

        yield Step("reading", "explanation of a pod that fits nowhere, in a thread", "1", _least(judge))


def _answer(answer: Placed) -> bytes:
    found = wire.read_answer("", wire.encode(answer), FilterAnswer)
    return protocol.filter_result(node_names=[found.node])


def _timed(work: Work) -> tuple[float, Any]:
    started = time.process_time()
    found = work()
    return (time.process_time() - started) * MS, found


def _least(work: Work) -> float:
    return min(_timed(work)[0] for _ in range(REPEATS))


def _resident() -> float:
    text = Path("/proc/self/statm").read_text().split()
    return int(text[1]) * 4096 / 2**20


HEAD = """\
# Profile of an allocator

Milliseconds of CPU time of each step, on {nodes} nodes of 8 cards with {holders} pods that hold devices and {others}
that do not. [What follows from it](../explanations/performance.md). Written by `make perf`; a new run replaces it.
"""


def page(steps: list[Step], nodes: int, conditions: str) -> str:
    """Return the whole page."""
    head = HEAD.format(nodes=nodes, holders=nodes * cluster.HOLDERS, others=nodes * cluster.OTHERS)
    rows = [f"| {step.part} | {step.what} | {step.times} | {_shown(step.ms)} |" for step in steps]
    table = ["| part | step | how many | CPU ms |", "| --- | --- | ---: | ---: |", *rows]
    return "\n".join([head, *table, "", conditions, ""])


def _shown(value: float) -> str:
    return f"{value:.0f}" if value >= 10 else f"{value:.2f}"


if __name__ == "__main__":
    main()
