"""``make demo``: a small cluster in processes, real manifests from admission to allocated devices.

One rule: it is a user. It applies the manifests in ``examples/`` to the API server, and what it shows it reads from
where users would: the API, the bus, the containers' environment, the traces.
"""

import argparse
import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path

import httpx
import msgspec
import yaml
from hami_kit.cancelling import cancel_until_done
from hami_kit.errors import BoundaryError
from msgspec import structs
from rich.console import Console
from rich.markup import escape

from hami_testkit import demo_keep, demo_report, demo_takeover, demo_views
from hami_testkit.demo_cluster import DemoCluster, DemoError, System
from hami_testkit.demo_compose import ComposeStack
from hami_testkit.demo_real import a_real_fleet
from hami_testkit.processes import Processes, ProcessFailedError
from hami_testkit.stack import Agent, Plan, Stack, start

FIRST = ("nvidia", "ascend", "cambricon")
"""The vendors of a demo that names none."""
ALL = "all"
Begin = Callable[[Console, Plan, Processes], AbstractAsyncContextManager[System]]
"""Starts or finds the system that the demo runs on; what it starts among these processes, others stop."""
REPOSITORY = Path(__file__).resolve().parents[4]


class _Console(Console):
    def on_broken_pipe(self) -> None:
        # rich would end the process here, in the middle of a task
        raise BrokenPipeError


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="A small cluster in processes: from manifests to allocated devices")
    parser.add_argument("--keep", action="store_true", help="leave everything running and say how to talk to it")
    parser.add_argument("--stop", action="store_true", help="stop what an earlier --keep left running")
    parser.add_argument("--report", type=Path, help="write the result as JSON to this file too")
    parser.add_argument("--examples", type=Path, default=REPOSITORY / "examples", help="folder with the manifests")
    parser.add_argument(
        "--allocators",
        type=_at_least_one,
        default=1,
        help="how many run; with several the leader is killed",
    )
    parser.add_argument(
        "--cluster",
        choices=("processes", "compose", "real"),
        default="processes",
        help="where it runs: processes of its own, the stack that docker compose runs, Kubernetes' binaries",
    )
    parser.add_argument(
        "--binaries", type=Path, metavar="DIR", help="with --cluster real: etcd, kube-apiserver and kube-scheduler"
    )
    parser.add_argument("--vendor", default="", help=f"a folder of the examples, or {ALL}: one mixed fleet of them all")
    return parser


def main() -> None:
    """Run the demo from the command line."""
    parser = _parser()
    options = parser.parse_args()
    console = _Console(width=None if sys.stdout.isatty() else 160)
    if options.stop:
        demo_keep.stop(console)
        return
    if options.report and not os.access(options.report.parent, os.W_OK):
        parser.error(f"--report {options.report}: its folder is not there or cannot be written to")
    if options.keep and demo_keep.is_left_running():
        console.print("[red]a demo already runs:[/] use it, or stop it first with  make demo STOP=1", highlight=False)
        sys.exit(1)
    folders = {found.name: found for found in example_folders(options.examples.resolve())}
    if options.vendor not in ("", ALL, *folders):
        parser.error(f"--vendor {options.vendor}: there are no such examples; write one of {', '.join(folders)}, {ALL}")
    chosen = folders if options.vendor == ALL else [options.vendor] if options.vendor else [*filter(folders.get, FIRST)]
    shown = [folders[name] for name in chosen]
    planned = partial(plan, examples=shown, allocators=options.allocators)
    if options.cluster == "compose" and (options.vendor or options.keep or options.allocators > 1):
        parser.error("--cluster compose: the stack's own fleet and allocators run; leave the other options out")
    if options.cluster == "real" and (options.keep or options.binaries is None):
        parser.error("--cluster real: name Kubernetes' binaries with --binaries, and leave --keep out")
    begin: dict[str, Begin] = {
        "processes": _started,
        "compose": _found,
        "real": partial(_real, binaries=options.binaries),
    }
    try:
        code = asyncio.run(
            _demo(console, planned, begin[options.cluster], manifests(shown), options.report, keep=options.keep)
        )
    except (ProcessFailedError, DemoError, BoundaryError, httpx.HTTPError, TimeoutError) as e:
        console.print(f"[red]the demo failed:[/] {escape(str(e) or type(e).__name__)}", highlight=False)
        sys.exit(1)
    except BrokenPipeError:
        os._exit(1)  # everything is stopped, and nobody reads on
    # end at once: the handles of asyncio would kill what is kept when they are collected
    sys.stdout.flush()
    os._exit(code)


def _at_least_one(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f'"{text}" is no number of allocators; write 1, 2 or more')
    return int(text)


async def _demo(
    console: Console,
    planned: Callable[[Path], Plan],
    begin: Begin,
    files: list[Path],
    report_file: Path | None,
    *,
    keep: bool,
) -> int:
    """Run the whole and stop it again, whatever happens in between; return the exit code."""
    began = time.monotonic()
    told = _signals()
    async with AsyncExitStack() as cleaning:
        folder = demo_keep.make_folder()
        cleaning.callback(demo_keep.remove, folder)
        started = Processes(folder)
        cleaning.push_async_callback(started.stop_all)
        work = asyncio.create_task(_show(console, begin(console, planned(folder), started), files, report_file))
        # the cleaning is not part of what is cancelled, so that an impatient second signal leaves nothing behind
        await _until_done_or_told(work, told)
        if told.empty():
            if work.exception() is not None:
                # their logs go with the folder
                console.print("\n".join(started.complaints()), markup=False, highlight=False, soft_wrap=True)
            system = work.result()
            if keep and isinstance(system, Stack):
                demo_keep.keep(console, system)
                cleaning.pop_all()
                return 0
    if not told.empty():
        _ = work.cancelled() or work.exception()  # seen: nobody is told of it any more
        console.print("interrupted; stopped everything")
        return 128 + told.get_nowait()
    stopped = "the stack runs on" if begin is _found else "stopped everything"
    console.print(f"{stopped}; the whole took {time.monotonic() - began:.1f} s", highlight=False)
    return 0


def _signals() -> "asyncio.Queue[signal.Signals]":
    """Return where the signals arrive that ask for an end."""
    told: asyncio.Queue[signal.Signals] = asyncio.Queue()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, told.put_nowait, number)
    return told


async def _until_done_or_told(work: "asyncio.Task[System]", told: "asyncio.Queue[signal.Signals]") -> None:
    async def watch() -> None:
        while told.empty():
            await asyncio.sleep(0.05)
        await cancel_until_done([work])

    watching = asyncio.create_task(watch())
    await asyncio.wait([work])
    watching.cancel()


@asynccontextmanager
async def _started(console: Console, plan: Plan, started: Processes) -> AsyncIterator[System]:
    """Start the system in processes of its own."""
    began = time.monotonic()
    with _doing(console, "starting NATS, the stand-in cluster, the four services and the node-agents …"):
        system = await start(plan, started)
    console.print(f"started {len(started.running)} processes in {time.monotonic() - began:.1f} s", highlight=False)
    yield system


@asynccontextmanager
async def _real(console: Console, plan: Plan, _started: Processes, *, binaries: Path) -> AsyncIterator[System]:
    """Run the system on Kubernetes' own control plane, for the length of the demo."""
    console.print("starting etcd, kube-apiserver, kube-scheduler, NATS and the four services …", highlight=False)
    async with a_real_fleet(plan, binaries) as system:
        yield system


@asynccontextmanager
async def _found(console: Console, plan: Plan, _started: Processes) -> AsyncIterator[System]:
    """Find the stack that docker compose runs."""
    system = ComposeStack.find(REPOSITORY, plan)
    console.print(f"using the stack of compose.yaml: API server {system.at.api}", highlight=False)
    yield system


async def _show(
    console: Console, running: AbstractAsyncContextManager[System], files: list[Path], report_file: Path | None
) -> System:
    """Wait for the system, apply the manifests, show what became of them."""
    began = time.monotonic()
    async with running as system, DemoCluster.connect(system) as cluster:
        await cluster.clear()
        with _doing(console, "waiting until every node has told of its devices …"):
            await cluster.wait_devices()
        shown = await demo_views.run_pods(console, cluster, files)
        with _doing(console, "collecting what everyone got, why the others wait, and the traces …"):
            report = await demo_report.collect(cluster, shown, seconds=lambda: time.monotonic() - began)
        demo_views.result(console, report)
        await demo_views.checked(console, system)
        await demo_views.one_trace(console, system, report)
        if isinstance(system, Stack) and system.plan.allocators > 1:
            change = await demo_takeover.kill_the_leader(console, cluster, system)
            report = structs.replace(report, leader_change=change)
            await demo_views.checked(console, system)
    if report_file is not None:
        report_file.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=1))
        console.print(f"wrote {report_file}", highlight=False)
    return system


@contextmanager
def _doing(console: Console, what: str) -> Iterator[None]:
    """Say what is going on: a spinner on a terminal, a line elsewhere."""
    if console.is_terminal:
        with console.status(what):
            yield
    else:
        console.print(what, highlight=False)
        yield


def example_folders(examples: Path) -> list[Path]:
    """Return each vendor's folder: those with a fleet, ``nodes.yaml``."""
    return sorted(file.parent for file in examples.glob("*/nodes.yaml"))


def plan(folder: Path, examples: Sequence[Path], *, allocators: int = 1) -> Plan:
    """Return the demo's cluster: the nodes of every folder, and an agent for each node with a file in ``cards/``."""
    nodes = [node for each in examples for node in yaml.safe_load((each / "nodes.yaml").read_text())["items"]]
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "nodes.yaml"
    file.write_text(yaml.safe_dump({"apiVersion": "v1", "kind": "NodeList", "items": nodes}))
    return Plan(
        folder=folder,
        nodes=file,
        agents=[
            Agent(node=cards.stem, cards=cards) for each in examples for cards in sorted(each.glob("cards/*.yaml"))
        ],
        allocators=allocators,
        traces=True,
    )


def manifests(examples: Sequence[Path]) -> list[Path]:
    """Return the manifests to apply, in order."""
    return [file for each in examples for file in sorted(each.glob("*.yaml")) if file.name != "nodes.yaml"]


if __name__ == "__main__":
    main()
