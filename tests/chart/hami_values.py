"""The values of HAMi's chart, and the page that says what each does here.

One rule: they stand in ``hami-values.yaml`` alone; ``python -m tests.chart.hami_values`` writes the page's tables.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from msgspec import Struct

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "chart-values.md"
DATA = Path(__file__).parent / "hami-values.yaml"
VALUES = Path(__file__).parents[2] / "deploy" / "chart" / "hami" / "values.yaml"
LONGEST = 60
"""Characters of a default that the page shows whole."""

FIRST, NEXT = "\n### ", "\n## Our own"
"""Between these the page's tables stand; the rest of it is written by hand."""


class HamiValue(Struct, frozen=True):
    """One value of HAMi's chart: its default there, and what is different here (empty: nothing)."""

    name: str
    default: Any
    here: str


SECTIONS: dict[str, list[HamiValue]] = {
    title: [HamiValue(*row) for row in rows] for title, rows in yaml.safe_load(DATA.read_text()).items()
}
HAMI_VALUES = [value for values in SECTIONS.values() for value in values]


def page() -> str:
    """Return the page with its tables as they should be."""
    text = PAGE.read_text()
    before, after = text.partition(FIRST)[0], text.partition(NEXT)[2]
    return f"{before}\n" + "\n".join(_lines()) + f"{NEXT}{after}"


def _lines() -> Iterator[str]:
    for title, values in SECTIONS.items():
        yield from (f"### {title}", "", "| value | in HAMi | here |", "| --- | --- | --- |")
        yield from (f"| `{value.name}` | {_shown(value.default)} | {value.here} |" for value in values)
        yield ""


def _shown(default: Any) -> str:
    text = json.dumps(default)
    return f"`{text if len(text) <= LONGEST else text[: LONGEST - 1] + '…'}`"


if __name__ == "__main__":
    PAGE.write_text(page())
