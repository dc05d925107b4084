"""The documentation leads somewhere: every relative link exists, and names only what is in the repository."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LINK = re.compile(r"\]\(([^()\s]+)\)")
CODE = re.compile(r"```.*?```|`[^`\n]*`", re.DOTALL)
OUTSIDE = tuple("/".join(parts) for parts in (("", "work", ""), ("shared", "design"), ("shared", "spec")))
"""Folders that nobody has who has only the repository."""


def repository_files() -> list[Path]:
    """Return the files that belong to the repository, or that are about to."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if listed.returncode:
        pytest.skip("this is no git checkout")
    return [path for line in listed.stdout.splitlines() if (path := ROOT / line).is_file()]


def test_every_relative_link_leads_to_a_file() -> None:
    """Whoever follows a link in a page finds the file and, in it, the heading."""
    dead = [
        f"{page.relative_to(ROOT)}: {target}"
        for page in repository_files()
        if page.suffix == ".md"
        for target in LINK.findall(CODE.sub("", page.read_text()))
        if not target.startswith(("http://", "https://", "mailto:")) and not leads(page, target)
    ]

    assert [] == dead


def leads(page: Path, target: str) -> bool:
    """Say whether the target is there, seen from the page."""
    path, _, anchor = target.partition("#")
    file = (page.parent / path).resolve() if path else page
    return file.exists() and (not anchor or anchor in headings(file))


def headings(page: Path) -> set[str]:
    """Return the anchors of a page, spelt as GitHub does."""
    lines = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL).splitlines()
    titles = [line.lstrip("#").strip().lower() for line in lines if line.startswith("#")]
    return {re.sub(r"[^\w\- ]", "", title).replace(" ", "-") for title in titles}


def test_nothing_points_outside_the_repository() -> None:
    """No file names a folder of the machine that it was written on."""
    naming = [
        f"{path.relative_to(ROOT)}: {name}"
        for path in repository_files()
        for name in OUTSIDE
        if name in path.read_text(errors="ignore")
    ]

    assert [] == naming
