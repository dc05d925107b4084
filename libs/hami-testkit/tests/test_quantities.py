"""How the stand-in spells quantities: as a real API server gives them back."""

from fractions import Fraction

import pytest
from hami_testkit.cluster.quantities import canonical, parse
from hami_testkit.cluster.status import ApiError
from hypothesis import given
from hypothesis import strategies as st


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        (3000, "3k"), ("3000", "3k"), ("3k", "3k"), ("1", "1"), (0, "0"), ("0.5", "500m"), (0.5, "500m"),
        ("1500m", "1500m"), ("2000m", "2"), ("16Gi", "16Gi"), ("16384Mi", "16Gi"), ("1000Ki", "1000Ki"),
        ("0.5Gi", "512Mi"), ("0.5Ki", "512"), ("1e3", "1e3"), ("1000000", "1M"), ("12345678", "12345678"),
        ("+5", "5"), ("-1000", "-1k"), ("1n", "1n"), ("0.1n", "1n"), ("10E", "10E"), (".5", "500m"), ("5.", "5"),
    ],
)  # fmt: skip
def test_every_quantity_has_one_spelling(written: object, kept: str) -> None:
    """The suffix family stays, the mantissa is the shortest whole number."""
    assert kept == canonical(written)


@pytest.mark.parametrize("text", ["", "a lot", "1 Gi", "1.2.3", "Gi", "1KB", True, None])
def test_what_is_no_quantity_is_refused(text: object) -> None:
    """The refusal shows the expression that Kubernetes shows."""
    with pytest.raises(ApiError, match="quantities must match the regular expression"):
        parse(text)


@given(st.integers(0, 2**53), st.sampled_from(["", "k", "M", "Ki", "Mi", "Gi"]))
def test_the_spelling_never_changes_the_amount(number: int, suffix: str) -> None:
    """Reading the canonical spelling gives the amount that was written, and spelling it again changes nothing."""
    written = f"{number}{suffix}"

    assert Fraction(parse(written)) == parse(canonical(written))
    assert canonical(written) == canonical(canonical(written))
