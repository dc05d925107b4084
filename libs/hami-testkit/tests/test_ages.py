"""Ages as kubectl's tables write them."""

import pytest
from hami_testkit.cluster.ages import human, since


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (-2, "<invalid>"), (-1, "0s"), (0, "0s"), (119, "119s"), (120, "2m"), (150, "2m30s"), (599, "9m59s"),
        (600, "10m"), (659, "10m"), (3 * 3600 - 1, "179m"), (3 * 3600, "3h"), (5 * 3600 + 90, "5h1m"), (8 * 3600, "8h"),
        (47 * 3600, "47h"), (48 * 3600, "2d"), (50 * 3600, "2d2h"), (8 * 86_400 + 3600, "8d"), (400 * 86_400, "400d"),
        (730 * 86_400, "2y"), (800 * 86_400, "2y70d"), (3000 * 86_400, "8y"),
    ],
)  # fmt: skip
def test_two_or_three_figures_are_told(seconds: int, said: str) -> None:
    """Each unit is kept until the next says as much."""
    assert said == human(seconds)


def test_a_moment_that_nobody_wrote_is_unknown() -> None:
    """Absent and null alike."""
    assert ["<unknown>", "<unknown>"] == [since(None), since("")]
