"""Answers as people read them: tables and trees. ``-o json`` prints the messages themselves instead."""

from collections.abc import Iterable

from hami_kit.traces import Branch
from hami_model.bus.events import CloudEvent
from hami_model.bus.messages import Booking, Explanation, NodeUse, NodeVerdict
from rich.console import Console
from rich.table import Table
from rich.tree import Tree


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        right = column in {"SLOTS", "MEMORY MiB", "CORES %"}
        table.add_column(column, justify="right" if right else "left", overflow="fold")
    return table


def nodes(console: Console, uses: Iterable[NodeUse]) -> None:
    """Show every card of every node with what is booked on it."""
    table = _table("NODE", "CARD", "MODEL", "SLOTS", "MEMORY MiB", "CORES %", "STATE", "TOLD BY")
    for use in uses:
        for i, card in enumerate(use.devices):
            device = card.device
            state = "ok" if device.healthy and use.ready else "unhealthy" if use.ready else "node silent"
            table.add_row(
                use.node if i == 0 else "",
                device.id,
                device.model,
                f"{card.used_slots}/{device.slots}",
                f"{card.used_memory}/{device.memory}",
                f"{card.used_cores}/{device.cores}",
                state,
                use.source if i == 0 else "",
            )
    _show(console, table, "no node has told of any card yet")


def pods(console: Console, bookings: Iterable[Booking]) -> None:
    """Show who holds which slice of which card."""
    table = _table("NAMESPACE", "POD", "STATE", "NODE", "CONTAINER", "CARD", "MEMORY MiB", "CORES %")
    for booking in sorted(bookings, key=lambda b: (b.allocation.pod.namespace, b.allocation.pod.name)):
        pod, first = booking.allocation.pod, True
        for container in booking.allocation.containers:
            for grant in container.grants:
                head = (pod.namespace, pod.name, booking.state, booking.allocation.node) if first else ("",) * 4
                table.add_row(*head, container.name, grant.uuid, str(grant.memory), str(grant.cores))
                first = False
    _show(console, table, "no pod holds a device")


def explanation(console: Console, why: Explanation) -> None:
    """Say where the pod is, and each node's and card's verdict."""
    console.print(f"[bold]{why.pod}[/]  {why.state or 'no allocation'}", highlight=False)
    if why.summary:
        console.print(why.summary, highlight=False)
    if why.allocation is not None:
        for container in why.allocation.containers:
            for grant in container.grants:
                console.print(
                    f"  {container.name}: {grant.memory} MiB, {grant.cores} % of {grant.uuid} on {why.allocation.node}",
                    highlight=False,
                )
    table = _table("NODE", "VERDICT", "CARD", "WHY", "WANTED", "HAD")
    for verdict in why.nodes:
        _add_verdict(table, verdict)
    if table.row_count:
        console.print(table)


def _add_verdict(table: Table, verdict: NodeVerdict) -> None:
    word = "fits" if verdict.fits else verdict.text
    if not verdict.cards:
        table.add_row(verdict.node, word, "", "", "", "")
    for i, card in enumerate(verdict.cards):
        head = (verdict.node, word) if i == 0 else ("", "")
        table.add_row(*head, card.device, card.reason or "fits", card.wanted, card.had)


def event(console: Console, told: CloudEvent) -> None:
    """Show one event on one line."""
    facts = "  ".join(f"{key}={value}" for key, value in told.data.items())
    kind = told.type.removeprefix("io.hami.").removesuffix(".v1")
    console.print(f"{told.time}  [bold]{kind}[/]  {told.subject}  {facts}", highlight=False, soft_wrap=True)


def trace(console: Console, roots: Iterable[Branch]) -> None:
    """Show a trace as a tree with each span's beginning and duration in milliseconds."""
    for root in roots:
        top = Tree(_span(root))
        _grow(top, root)
        console.print(top, highlight=False)


def _grow(tree: Tree, branch: Branch) -> None:
    for child in branch.children:
        _grow(tree.add(_span(child)), child)


def _span(branch: Branch) -> str:
    marks = ("  [red]failed[/]" if branch.failed else "") + ("  (its parent has not arrived)" if branch.orphan else "")
    return f"[bold]{branch.name}[/]  {branch.ms:.1f} ms  [dim]at +{branch.after_ms:.1f} ms, {branch.service}[/]{marks}"


def _show(console: Console, table: Table, nothing: str) -> None:
    if table.row_count:
        console.print(table)
    else:
        console.print(nothing)
