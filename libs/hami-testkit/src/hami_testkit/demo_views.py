"""What the demo prints: each pod as it happens, then tables, then one trace."""

import asyncio
import re
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from hami_testkit.check import check_settled
from hami_testkit.demo_cluster import DEADLINE, DemoCluster, DemoError, Json, System, is_running, refusal
from hami_testkit.demo_report import PlacedPod, Report
from hami_testkit.processes import BIN

SHOWN_ENV = ("NVIDIA_VISIBLE_DEVICES", "CUDA_DEVICE_", "ASCEND_", "NPU_", "CAMBRICON_", "VIRTUAL_DEVICES")
HIDDEN_ENV = ("CUDA_DEVICE_MEMORY_SHARED_CACHE",)
SHORT_ID = re.compile(r"^(GPU-[0-9a-f]{8})-.*$")


async def run_pods(console: Console, cluster: DemoCluster, files: Sequence[Path]) -> list[Json]:
    """Apply the manifests and tell what becomes of each pod as it happens; return the pods as they then are."""
    names: list[str] = []
    told: set[str] = set()
    for file in files:
        pods, warnings = await cluster.apply(file)
        names += [pod["metadata"]["name"] for pod in pods]
        console.print(f"[bold]apply[/] {file.parent.name}/{file.name}", highlight=False)
        for warning in warnings:
            console.print(f"  [yellow]warning[/] {warning}", highlight=False, soft_wrap=True)
        # one manifest after another, so that every run places alike
        await _settle(console, cluster, set(names), told)
    found = {pod["metadata"]["name"]: pod for pod in await cluster.pods()}
    return [found[name] for name in names if name in found]


async def _settle(console: Console, cluster: DemoCluster, names: set[str], told: set[str]) -> None:
    """Tell each pod's fate once it is known."""
    try:
        async with asyncio.timeout(DEADLINE):
            while names - told:
                for pod in await cluster.pods():
                    name = pod["metadata"]["name"]
                    if name in names - told and (line := _fate(pod)):
                        told.add(name)
                        console.print(f"  {line}", highlight=False, soft_wrap=True)
                await asyncio.sleep(0.05)
    except TimeoutError as e:
        waiting = ", ".join(sorted(names - told))
        raise DemoError(f"{waiting}: neither running nor refused within {DEADLINE:g} s") from e


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
    """Show who got which slice of which card, what each container sees of it, and why the others wait."""
    slices = _table("POD", "NODE", "CONTAINER", "CARD", "MEMORY MiB", "CORES %")
    sees = _table("POD", "CONTAINER", "ENVIRONMENT AND DEVICE FILES")
    for pod in report.placed:
        for i, got in enumerate(pod.devices):
            head = (pod.name, pod.node) if i == 0 else ("", "")
            slices.add_row(*head, got.container, got.id, str(got.memory_mib), str(got.cores))
        for i, container in enumerate(dict.fromkeys([*pod.env, *pod.files])):
            sees.add_row(pod.name if i == 0 else "", container, _seen(pod, container))
    _show(console, "Who got which slice of which card", slices)
    _show(console, "What the containers see (… stands for the rest of the card's id)", sees)
    for refused in report.refused:
        why = _table("NODE", "CARD", "REASON")
        for node, cards in refused.nodes.items():
            for i, (card, reason) in enumerate(cards.items()):
                why.add_row(node if i == 0 else "", "(none that was asked for)" if card == "*" else card, reason)
        _show(console, f"Why {refused.name} waits", why)


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, justify="right" if column in {"MEMORY MiB", "CORES %"} else "left", overflow="fold")
    return table


def _show(console: Console, title: str, table: Table) -> None:
    console.print(f"\n[bold]{title}[/]", highlight=False)
    console.print(table)


def _seen(pod: PlacedPod, container: str) -> str:
    """Return device files, and the variables that make the slice, or all if none does; cards' ids cut short."""
    env = pod.env.get(container, {})
    shown = {k: v for k, v in env.items() if k.startswith(SHOWN_ENV) and k not in HIDDEN_ENV} or env
    text = " ".join([*(f"{k}={v}" for k, v in sorted(shown.items())), *pod.files.get(container, ())])
    for device in pod.devices:
        text = text.replace(device.id, SHORT_ID.sub(r"\1…", device.id))
    return text


async def checked(console: Console, system: System) -> None:
    """Say what the checker finds in nodes and pods; it has to be nothing."""
    if wrong := await check_settled(system.at.kubeconfig):
        raise DemoError("the checker found: " + "; ".join(map(str, wrong)))
    console.print("\nThe checker read every node, pod and lock, and found nothing wrong.", highlight=False)


async def one_trace(console: Console, system: System, report: Report) -> None:
    """Show one pod's way as ``hamictl trace`` does: the first one that our agent served with two containers, or any."""
    agents = {agent.node for agent in system.plan.agents}
    served = [pod for pod in report.placed if pod.node in agents]
    if not served or not system.at.traces:
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
