"""The page that shows people the life of an allocation says what the table says."""

from pathlib import Path

from hami_model.allocation import TRANSITIONS

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "allocation-life.md"


def test_the_page_shows_every_step_and_no_other() -> None:
    """Each row of the page's first table is a step of the table in the code, and none is missing."""
    table = [(state or "–", step, after) for state, steps in TRANSITIONS.items() for step, after in steps.items()]

    assert table == rows(PAGE.read_text(), header="| from | step | to |")


def rows(text: str, *, header: str) -> list[tuple[str, ...]]:
    """Return the cells of the table under this header."""
    below = text.split(header, 1)[1].splitlines()[2:]
    found = []
    for line in below:
        if not line.startswith("|"):
            break
        found.append(tuple(cell.strip() for cell in line.strip("|").split("|")))
    return found
