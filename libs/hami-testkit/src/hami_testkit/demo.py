"""``make demo``: a small cluster in processes, real manifests from admission to allocated devices.

One rule: it is a user. It applies the manifests in ``examples/`` to the API server, and what it shows it reads from
where users would: the API, the bus, the containers' environment, the traces.
"""

import argparse
import asyncio
import os
import signal
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path

import msgspec
from rich.console import Console

from hami_testkit import demo_keep, demo_report, demo_views
from hami_testkit.demo_cluster import DemoCluster
from hami_testkit.processes import Processes, ProcessFailedError
from hami_testkit.stack import Agent, Plan, Stack, start

EXAMPLES = ("nvidia", "ascend", "cambricon")
REPOSITORY = Path(__file__).resolve().parents[4]


def main() -> None:
    """Run the demo from the command line."""
    parser = argparse.ArgumentParser(description="A small cluster in processes: from manifests to allocated devices")
    parser.add_argument("--keep", action="store_true", help="leave everything running and say how to talk to it")
    parser.add_argument("--stop", action="store_true", help="stop what an earlier --keep left running")
    parser.add_argument("--report", type=Path, help="write the result as JSON to this file too")
    parser.add_argument("--examples", type=Path, default=REPOSITORY / "examples", help="folder with the manifests")
    options = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else 160)
    if options.stop:
        demo_keep.stop(console)
        return
    if options.keep and demo_keep.is_left_running():
        console.print("[red]a demo already runs:[/] use it, or stop it first with  make demo STOP=1", highlight=False)
        sys.exit(1)
    try:
        left = asyncio.run(_demo(console, options.examples.resolve(), options.report, keep=options.keep))
    except (ProcessFailedError, TimeoutError) as e:
        console.print(f"[red]the demo failed:[/] {e}", highlight=False)
        sys.exit(1)
    except (KeyboardInterrupt, asyncio.CancelledError):
        console.print("interrupted; stopped everything")
        sys.exit(130)
    if left is not None:
        # end at once: the handles of asyncio kill their processes when they are collected
        sys.stdout.flush()
        os._exit(0)


async def _demo(console: Console, examples: Path, report_file: Path | None, *, keep: bool) -> Stack | None:
    began = time.monotonic()
    if (me := asyncio.current_task()) is not None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, me.cancel)
    async with AsyncExitStack() as cleaning:
        folder = Path(tempfile.mkdtemp(prefix="hami-", dir="/tmp"))
        cleaning.callback(demo_keep.remove, folder)
        started = Processes(folder)
        cleaning.push_async_callback(started.stop_all)
        with console.status("starting NATS, the stand-in cluster, the four services and the node-agents …"):
            system = await start(plan(folder, examples), started)
        console.print(f"started {len(started.running)} processes in {time.monotonic() - began:.1f} s", highlight=False)
        async with DemoCluster.connect(system) as cluster:
            with console.status("waiting until every node has told of its devices …"):
                await cluster.wait_devices()
            shown = await demo_views.run_pods(console, cluster, manifests(examples))
            with console.status("collecting what everyone got, why the others wait, and the traces …"):
                report = await demo_report.collect(cluster, shown, seconds=lambda: time.monotonic() - began)
            demo_views.result(console, report)
            await demo_views.one_trace(console, system, report)
        if report_file is not None:
            report_file.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=1))
            console.print(f"wrote {report_file}", highlight=False)
        if keep:
            cleaning.pop_all()
            demo_keep.keep(console, system)
            return system
    console.print(f"stopped everything; the whole took {time.monotonic() - began:.1f} s", highlight=False)
    return None


def plan(folder: Path, examples: Path) -> Plan:
    """Return the demo's cluster: the nodes of ``examples/cluster`` and an agent for each with a file of cards."""
    cluster = examples / "cluster"
    cards = sorted(file for file in cluster.glob("*.yaml") if file.name != "nodes.yaml")
    return Plan(
        folder=folder,
        nodes=cluster / "nodes.yaml",
        agents=[Agent(node=file.stem, cards=file) for file in cards],
        traces=True,
    )


def manifests(examples: Path) -> list[Path]:
    """Return the manifests to apply, in order."""
    return [file for vendor in EXAMPLES for file in sorted((examples / vendor).glob("*.yaml"))]


if __name__ == "__main__":
    main()
