"""What the demo prints: each pod as it happens, then tables, then one trace."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from hami_testkit.demo_cluster import DEADLINE, DemoCluster, Json, is_running, refusal
from hami_testkit.demo_report import PlacedPod, Report
from hami_testkit.processes import BIN
from hami_testkit.stack import Stack

SHOWN_ENV = ("NVIDIA_VISIBLE_DEVICES", "CUDA_DEVICE_", "ASCEND_", "NPU_", "CAMBRICON_")
HIDDEN_ENV = ("CUDA_DEVICE_MEMORY_SHARED_CACHE",)


async def run_pods(console: Console, cluster: DemoCluster, files: Sequence[Path]) -> list[Json]:
    """Apply the manifests and tell what becomes of each pod as it happens; return the pods as they then are."""
    names: set[str] = set()
    told: set[str] = set()
    for file in files:
        pods, warnings = await cluster.apply(file)
        names |= {pod["metadata"]["name"] for pod in pods}
        console.print(f"[bold]apply[/] {file.parent.name}/{file.name}", highlight=False)
        for warning in warnings:
            console.print(f"  [yellow]warning[/] {warning}", highlight=False)
        # one manifest after another, so that every run places alike
        await _settle(console, cluster, names, told)
    return [pod for pod in await cluster.pods() if pod["metadata"]["name"] in names]


async def _settle(console: Console, cluster: DemoCluster, names: set[str], told: set[str]) -> None:
    """Tell each pod's fate once it is known."""
    async with asyncio.timeout(DEADLINE):
        while names - told:
            for pod in await cluster.pods():
                name = pod["metadata"]["name"]
                if name in names - told and (line := _fate(pod)):
                    told.add(name)
                    console.print(f"  {line}", highlight=False)
            await asyncio.sleep(0.05)


def _fate(pod: Json) -> str:
    """Return what became of the pod, empty while it is on its way."""
    name = pod["metadata"]["name"]
    if is_running(pod):
        return f"[green]runs[/]  {name} on {pod['spec']['nodeName']}"
    if pod["status"].get("phase") == "Failed":
        return f"[red]failed[/]  {name}: {pod['status'].get('message', '')}"
    if why := refusal(pod):
        return f"[yellow]waits[/] {name}: {why}"
    return ""


def result(console: Console, report: Report) -> None:
    """Show who got which slice of which card, and why the others wait."""
    table = Table(title="Who got what", title_justify="left", box=None, pad_edge=False, header_style="bold")
    for column in ("POD", "NODE", "CONTAINER", "DEVICE", "MEMORY MiB", "CORES %", "ENV OF THE CONTAINER"):
        table.add_column(column, justify="right" if column in {"MEMORY MiB", "CORES %"} else "left", overflow="fold")
    for pod in report.placed:
        _add_pod(table, pod)
    console.print()
    console.print(table)
    for refused in report.refused:
        console.print(f"\n[bold]Why {refused.name} waits[/]")
        why = Table(box=None, pad_edge=False, header_style="bold")
        for column in ("NODE", "CARD", "REASON"):
            why.add_column(column, overflow="fold")
        for node, cards in refused.nodes.items():
            for i, (card, reason) in enumerate(cards.items()):
                why.add_row(node if i == 0 else "", card, reason)
        console.print(why)


def _add_pod(table: Table, pod: PlacedPod) -> None:
    told: set[str] = set()
    for i, got in enumerate(pod.devices):
        env = {} if got.container in told else pod.env.get(got.container, {})
        told.add(got.container)
        shown = " ".join(f"{k}={v}" for k, v in sorted(env.items()) if k.startswith(SHOWN_ENV) and k not in HIDDEN_ENV)
        head = (pod.name, pod.node) if i == 0 else ("", "")
        table.add_row(*head, got.container, got.id, str(got.memory_mib), str(got.cores), shown)


async def one_trace(console: Console, system: Stack, report: Report) -> None:
    """Show one pod's way as ``hamictl trace`` does: the first one that our agent served with two containers, or any."""
    agents = {agent.node for agent in system.plan.agents}
    served = [pod for pod in report.placed if pod.node in agents]
    if not served:
        return
    pod = max(served, key=lambda p: len({d.container for d in p.devices}))
    process = await asyncio.create_subprocess_exec(
        str(BIN / "hamictl"),
        "trace",
        pod.name,
        env=system.environment(),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    out, _ = await process.communicate()
    console.print(f"\n[bold]The way of {pod.name}[/] (hamictl trace {pod.name})")
    console.print(Text.from_ansi(out.decode()))
