"""The commands of the pages, as a user reads them: in order, with what each prints there.

One rule: nothing is skipped. A block's lines that end in a backslash are one command; so is a loop.
"""

import re
from pathlib import Path

from msgspec import Struct

FOLDER = Path(__file__).parents[2] / "docs"


class Command(Struct, frozen=True):
    """A command, and the section that it stands in."""

    page: str
    section: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}, {self.section}: {self.text}"


def commands(page: str) -> list[Command]:
    """Return the commands of a page below ``docs``: of its console blocks, and those that stand in its tables."""
    found = []
    for part in (FOLDER / page).read_text().split("\n## "):
        section = part.partition("\n")[0].lstrip("# ")
        for block in re.findall(r"```console\n(.*?)```", part, re.DOTALL):
            lines = re.sub(r"\\\n\s*", "", _unindented(block)).splitlines()
            found += [Command(page, section, line) for line in map(_bare, lines) if line]
        found += [Command(page, section, cell) for cell in re.findall(r"\| `((?:kubectl|helm) [^`]*)`", part)]
    return found


def _unindented(block: str) -> str:
    """Take away the indent of a block that stands in a list."""
    indent = len(block) - len(block.lstrip(" "))
    return "\n".join(line[indent:] for line in block.splitlines())


def _bare(line: str) -> str:
    """Take away what is said about a command."""
    return re.sub(r"\s{2,}#.*$", "", line).strip()
