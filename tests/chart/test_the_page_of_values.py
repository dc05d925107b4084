"""The page about the chart's values leaves nothing out."""

import yaml

from tests.chart.hami_values import HAMI_VALUES, PAGE, VALUES, page


def test_the_pages_tables_are_those_of_the_data() -> None:
    """They are written by ``python -m tests.chart.hami_values``."""
    assert page() == PAGE.read_text()


def test_every_top_level_value_stands_in_the_page() -> None:
    """Whoever adds a value of ours describes it."""
    known = {value.name.partition(".")[0] for value in HAMI_VALUES}
    ours = [name for name in yaml.safe_load(VALUES.read_text()) if name not in known]

    assert [] == [name for name in ours if f"`{name}." not in page() and f"`{name}`" not in page()]
