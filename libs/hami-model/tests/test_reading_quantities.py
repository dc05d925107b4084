"""Every form of a Kubernetes quantity, as the API server may send it."""

import pytest
from hami_model.units import INT64_MAX, canonical, plain_integer, rounded_up
from hypothesis import given
from hypothesis import strategies as st


@pytest.mark.parametrize(
    ("written", "plain", "rounded"),
    [
        ("1", 1, 1),
        ("1k", 1000, 1000),
        ("1e3", 1000, 1000),
        ("1E3", 1000, 1000),
        ("2Ki", 2048, 2048),
        ("16Gi", 17179869184, 17179869184),
        ("+3", 3, 3),
        ("5.", 5, 5),
        ("1.0", None, 1),
        ("1.5", None, 2),
        ("16.0Gi", None, 17179869184),
        ("1.5Gi", None, 1610612736),
        ("1.5k", 1500, 1500),
        ("1.50k", 1500, 1500),
        ("0.5k", 500, 500),
        ("1.5e3", 1500, 1500),
        ("1.0001k", None, 1001),
        ("-1.5k", -1500, -1500),
        ("1000m", None, 1),
        ("0.5", None, 1),
        (".5", None, 1),
        ("100m", None, 1),
        ("1n", None, 1),
        ("10e-1", None, 1),
        ("-1", -1, -1),
        ("-1m", None, -1),
        ("1E", 10**18, 10**18),
        ("10E", None, None),
        ("1e30", None, None),
        (10**30, None, None),
        (3000, 3000, 3000),
        (3000.0, 3000, 3000),
        (1.5, None, 2),
        (float("nan"), None, None),
        (float("inf"), None, None),
    ],
)
def test_a_quantity_is_a_plain_integer_or_rounds_up(
    written: str | float, plain: int | None, rounded: int | None
) -> None:
    """A fraction is never plain, whatever its value; rounding goes away from zero; 64 bits are the end."""
    assert plain == plain_integer(written)
    assert rounded == rounded_up(written)


@pytest.mark.parametrize("written", ["", " 1", "1 ", "1e", "e3", "k", "1K", "1ki", "1MB", "0x10", "--1", "1,000", "٣"])
def test_what_is_no_quantity_is_no_number(written: str) -> None:
    """What the API server would refuse is not read as something near it."""
    assert plain_integer(written) is None
    assert rounded_up(written) is None


def test_integers_are_written_as_the_api_server_writes_them() -> None:
    """Thousands become suffixes, other numbers stay digits."""
    assert ["0", "3k", "3072", "16384", "1M", "-2k", "10k"] == [
        canonical(n) for n in (0, 3000, 3072, 16384, 10**6, -2000, 10000)
    ]


@given(st.integers(-INT64_MAX, INT64_MAX))
def test_what_is_written_is_read_back(number: int) -> None:
    """The canonical form of every 64-bit integer means that integer."""
    assert number == plain_integer(canonical(number))


@given(st.integers(0, 10**6), st.sampled_from(["", "k", "M", "Ki", "Mi", "Gi"]), st.integers(0, 999))
def test_rounding_is_at_most_one_above(whole: int, suffix: str, thousandths: int) -> None:
    """A decimal fraction rounds up by less than one, and a plain reading agrees with the rounded one."""
    written = f"{whole}{suffix}"
    exact = plain_integer(written)

    assert exact is not None
    assert exact == rounded_up(written)
    below = rounded_up(f"{exact}.{thousandths:03}")
    assert below == exact + (1 if thousandths else 0)
