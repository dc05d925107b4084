"""The pages about findings and rights say what the code says: there is one source for each table."""

import re
from pathlib import Path

from hami_kit.kube.rights import RIGHTS
from hami_model import inspection
from hamictl.doctor import rules

DOCS = Path(__file__).parents[1] / "docs"
ALL = (*inspection.RULES, *rules.RULES)


def rows(text: str) -> list[list[str]]:
    """Return the cells of every row of every table."""
    return [
        [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        for line in text.splitlines()
        if line.startswith("|")
    ]


def test_the_page_has_every_rule_as_it_is() -> None:
    """Name, severity, meaning and way out, in the order of the code."""
    page = rows((DOCS / "reference" / "findings.md").read_text())
    told = [row for row in page if row[0].startswith("`")]

    assert [[f"`{rule.name}`", str(rule.severity), rule.means, rule.way_out] for rule in ALL] == told


def test_no_two_rules_share_a_name() -> None:
    """A name is what people search for, and what programs read."""
    assert len(ALL) == len({rule.name for rule in ALL})


def test_the_page_has_every_right_as_it_is() -> None:
    """Program, resource with its group, and verbs."""
    text = (DOCS / "how-to" / "run-the-services.md").read_text().partition("## Rights in Kubernetes")[2]
    told: dict[str, list[tuple[str, str, tuple[str, ...]]]] = {}
    program = ""
    for first, resource, verbs in rows(text.partition("\nAll but")[0])[2:]:
        program = first.strip("`") or program
        named = re.findall(r"`([^`]+)`", resource)
        if named:
            group = next((name for name in named[1:] if name.endswith(".k8s.io")), "")
            told.setdefault(program, []).append((named[0], group, tuple(verbs.split(", "))))

    assert {name: [(r.resource, r.group, r.verbs) for r in rights] for name, rights in RIGHTS.items()} == told
