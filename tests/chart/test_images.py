"""The images that ``make images`` builds are those that the chart runs."""

import re

from tests.chart.rendering import CHART, render

MAKEFILE = (CHART.parents[2] / "Makefile").read_text()


def test_make_builds_what_the_chart_runs_with_the_port_that_is_asked() -> None:
    """Each of our images, by its name, its command and where its health is told."""
    built = dict(re.findall(r"^PORT_(\S+) := (\d+)$", MAKEFILE, re.MULTILINE))
    ours = [c for _, spec in render().pods() for c in spec["containers"] if c["image"].startswith("hami/")]

    assert {name: ([f"hami-{name}"], int(port)) for name, port in built.items()} == {
        c["image"].partition("/")[2].partition(":")[0]: (
            c["command"],
            next(p["containerPort"] for p in c["ports"] if p["name"] == "metrics"),
        )
        for c in ours
    }
