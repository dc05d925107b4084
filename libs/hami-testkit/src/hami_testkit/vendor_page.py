"""``make vendors``: the page about what each vendor can do, written from the vendors themselves."""

from pathlib import Path

from hami_model.capabilities import Capability, capabilities

from hami_testkit.builders import a_catalog

PAGE = Path(__file__).resolve().parents[4] / "docs" / "reference" / "vendors.md"

HEAD = """# Vendors

What each vendor can do, as `hamictl vendors` shows it. This page is written by `make vendors` from the vendors'
modules, under the names of HAMi's chart; do not edit it.

*Shared by* `number`: whole cards, or as many users of a card as its plugin allows. *Plugin* `ours`: our
node-agent, where it runs; otherwise the vendor's own.

"""
COLUMNS = (
    "vendor", "count", "memory (unit)", "cores", "percentage", "shared by", "chosen by", "topology", "cut into",
    "node lock", "plugin",
)  # fmt: skip


def page() -> str:
    """Return the page's text."""
    rows = [COLUMNS, ("---",) * len(COLUMNS), *map(_cells, capabilities(a_catalog().vendors))]
    return HEAD + "".join(f"| {' | '.join(cells)} |\n" for cells in rows)


def _cells(row: Capability) -> tuple[str, ...]:
    memory = f"{_name(row.memory)} ({row.memory_unit_mib} MiB)" if row.memory else "–"
    return (
        row.word, _name(row.count), memory, _name(row.cores), _name(row.percentage), row.shared_by,
        ", ".join(row.chosen_by) or "–", row.topology or "–", row.partitions or "–", _name(row.lock), row.plugin,
    )  # fmt: skip


def _name(name: str) -> str:
    return f"`{name}`" if name else "–"


if __name__ == "__main__":
    PAGE.write_text(page())
