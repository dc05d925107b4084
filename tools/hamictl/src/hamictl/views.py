"""Answers as people read them: tables and trees. ``-o json`` prints the messages themselves instead.

One rule: what others wrote (models, reasons, names) is text and never markup, and a line is never broken where
somebody may search or copy it.
"""

import sys
from collections.abc import Iterable, Sequence

import msgspec
from hami_kit.traces import Branch
from hami_model.bus.events import CloudEvent
from hami_model.bus.messages import Booking, Explanation, NodeUse, NodeVerdict
from hami_model.capabilities import Capability
from hami_model.inspection import Finding, Severity
from rich.console import Console
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from hamictl.device_config import Checked

WIDE = 10_000
"""Columns of a console that never breaks a line; what is too long for a terminal, the terminal wraps."""


class _Console(Console):
    def on_broken_pipe(self) -> None:
        # rich would end the process here with 1
        raise BrokenPipeError


def _print(what: object) -> None:
    # made for each print: it looks at the stdout of this moment
    console = _Console(file=sys.stdout, width=WIDE, markup=False, emoji=False, highlight=False)
    console.print(what)


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        right = column in {"SLOTS", "MEMORY MiB", "UNIT MiB", "CORES %"}
        table.add_column(column, justify="right" if right else "left")
    return table


def nodes(uses: Sequence[NodeUse]) -> None:
    """Show every card of every node with what is booked on it, and what agents see that should not be."""
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
    _show(table, "no node has told of any card yet")
    for use in uses:
        for drift in use.drift:
            _print(Text.assemble(f"{use.node}: ", (drift.kind, "bold"), f": {drift.says}"))


def pods(bookings: Iterable[Booking], namespace: str) -> None:
    """Show who holds which slice of which card."""
    table = _table("NAMESPACE", "POD", "STATE", "NODE", "CONTAINER", "CARD", "MEMORY MiB", "CORES %")
    for booking in sorted(bookings, key=lambda b: (b.allocation.pod.namespace, b.allocation.pod.name)):
        pod, first = booking.allocation.pod, True
        for container in booking.allocation.containers:
            for grant in container.grants:
                head = (pod.namespace, pod.name, booking.state, booking.allocation.node) if first else ("",) * 4
                table.add_row(*head, container.name, grant.uuid, str(grant.memory), str(grant.cores))
                first = False
    _show(table, f"no pod of namespace {namespace} holds a device" if namespace else "no pod holds a device")


def explanation(why: Explanation) -> None:
    """Say where the pod is, and each node's and card's verdict."""
    _print(Text.assemble((str(why.pod), "bold"), f"  {why.state or 'no allocation'}"))
    if why.summary:
        _print(why.summary)
    if why.allocation is not None:
        for container in why.allocation.containers:
            for grant in container.grants:
                slice_ = f"{grant.memory} MiB, {grant.cores} % of {grant.uuid}"
                _print(f"  {container.name}: {slice_} on {why.allocation.node}")
    table = _table("NODE", "VERDICT", "CARD", "WHY", "WANTED", "HAD")
    for verdict in why.nodes:
        _add_verdict(table, verdict)
    if table.row_count:
        _print(table)


def _add_verdict(table: Table, verdict: NodeVerdict) -> None:
    word = "fits" if verdict.fits else verdict.text
    if not verdict.cards:
        table.add_row(verdict.node, word, "", "", "", "")
    for i, card in enumerate(verdict.cards):
        head = (verdict.node, word) if i == 0 else ("", "")
        table.add_row(*head, card.device, card.reason or "fits", card.wanted, card.had)


def event(told: CloudEvent) -> None:
    """Show one event on one line."""
    facts = "  ".join(f"{key}={_fact(value)}" for key, value in told.data.items())
    kind = told.type.removeprefix("io.hami.").removesuffix(".v1")
    words = (Text(word) for word in (told.subject, facts) if word)
    _print(Text("  ").join([Text(told.time), Text(kind, style="bold"), *words]))


def _fact(value: object) -> str:
    """Return a fact as people write it: text as it is, slices by container, anything else as JSON."""
    if isinstance(value, str):
        return value
    if isinstance(value, dict) and value and all(isinstance(grants, list) for grants in value.values()):
        return ",".join(f"{container}:{_grant(grant)}" for container, grants in value.items() for grant in grants)
    return msgspec.json.encode(value).decode()


def _grant(grant: object) -> str:
    match grant:
        case {"uuid": uuid, "memory": memory, "cores": cores}:
            return f"{uuid}({memory}MiB,{cores}%)"
        case _:
            return msgspec.json.encode(grant).decode()


def trace(roots: Iterable[Branch]) -> None:
    """Show a trace as a tree with each span's beginning and duration in milliseconds."""
    for root in roots:
        top = Tree(_span(root))
        _grow(top, root)
        _print(top)


def _grow(tree: Tree, branch: Branch) -> None:
    for child in branch.children:
        _grow(tree.add(_span(child)), child)


def _span(branch: Branch) -> Text:
    return Text.assemble(
        (branch.name, "bold"),
        f"  {branch.ms:.1f} ms  ",
        (f"at +{branch.after_ms:.1f} ms, {branch.service}", "dim"),
        ("  failed" if branch.failed else "", "red"),
        "  (its parent has not arrived)" if branch.orphan else "",
    )


def findings(found: Sequence[Finding]) -> None:
    """Show what is wrong and the way out, worst first."""
    order = list(Severity)
    for finding in sorted(found, key=lambda each: order.index(each.severity)):
        _print(Text.assemble((finding.severity, "bold"), "  ", (finding.rule, "bold")))
        _print(Text(f"  {finding.says}"))
        _print(Text(f"  way out: {finding.way_out}"))
    if not found:
        _print("nothing is wrong, and everything was checked")


def vendors(rows: Iterable[Capability]) -> None:
    """Show what each vendor can do."""
    columns = (
        "VENDOR", "COUNT", "MEMORY", "UNIT MiB", "CORES", "PERCENTAGE", "SHARED BY", "CHOSEN BY", "TOPOLOGY",
        "CUT INTO", "NODE LOCK", "PLUGIN",
    )  # fmt: skip
    table = _table(*columns)
    for row in rows:
        unit = "" if row.memory_unit_mib is None else str(row.memory_unit_mib)
        table.add_row(
            row.word, row.count, row.memory, unit, row.cores, row.percentage, row.shared_by, ", ".join(row.chosen_by),
            row.topology, row.partitions, row.lock, row.plugin,
        )  # fmt: skip
    _show(table, "the device config names no vendor")


def device_config(checked: Checked) -> None:
    """Say what is wrong with a device config, line by line, and then which vendors it names."""
    for problem in checked.problems:
        _print(Text(f"{checked.file}:{problem.line}: {problem.says}"))
    if not checked.problems:
        _print(Text(f"{checked.file}: nothing is wrong"))
    table = _table("VENDOR", "RESOURCES")
    for vendor in checked.vendors:
        table.add_row(vendor.word, " ".join(vendor.resources) or "none: no pod can ask for it")
    if table.row_count:
        _print(table)


def _show(table: Table, nothing: str) -> None:
    _print(table if table.row_count else nothing)
