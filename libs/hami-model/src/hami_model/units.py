"""Kubernetes quantities as integers.

One rule: a quantity is either a plain integer or it is not; nobody guesses at fractions. Every form that the API server
accepts is read (``3k``, ``1e3``, ``2Ki``, ``1.5``, ``100m``, ``-1``), and numbers as JSON may carry them.
"""

import re
from decimal import Decimal

Quantity = str | int | float

MIB = 2**20
INT32_MAX = 2**31 - 1
INT64_MAX = 2**63 - 1

TRUE_WORDS = frozenset({"1", "t", "T", "true", "TRUE", "True"})
FALSE_WORDS = frozenset({"0", "f", "F", "false", "FALSE", "False"})
"""What HAMi reads as true and as false."""

_NUMBER = re.compile(
    r"(?P<number>[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+))(?:(?P<suffix>[numkMGTPE]|[KMGTPE]i)|[eE](?P<exponent>[+-]?[0-9]{1,4}))?"
)
_TENS = {"n": -9, "u": -6, "m": -3, **{suffix: 3 * power for power, suffix in enumerate("kMGTPE", start=1)}}
_BINARY = {f"{suffix}i": Decimal(1024**power) for power, suffix in enumerate("KMGTPE", start=1)}
_DECIMAL_SUFFIXES = ("", "k", "M", "G", "T", "P", "E")


def plain_integer(quantity: Quantity) -> int | None:
    """Read a quantity that is written as an integer, or return None.

    HAMi compat: ``1.0``, ``1000m`` and ``1.5Gi`` are written as fractions and are not plain, whatever their value;
    the decimals of ``1.5k`` and ``1.5e3`` are used up by the thousands.
    """
    parsed = _parse(quantity)
    if parsed is None:
        return None
    value, is_fraction = parsed
    if is_fraction or abs(value) > INT64_MAX:
        return None
    return int(value)


def rounded_up(quantity: Quantity) -> int | None:
    """Read any quantity, rounding a fraction away from zero; None for no quantity, or one beyond 64 bits."""
    parsed = _parse(quantity)
    if parsed is None or abs(parsed[0]) > INT64_MAX:
        return None
    value = parsed[0]
    whole = int(value)
    return whole if whole == value else whole + (1 if value > 0 else -1)


def canonical(number: int) -> str:
    """Write an integer as the API server would: ``3000`` is ``3k``, ``3072`` stays."""
    step = 0
    while number and number % 1000 == 0 and step < len(_DECIMAL_SUFFIXES) - 1:
        number //= 1000
        step += 1
    return f"{number}{_DECIMAL_SUFFIXES[step]}"


def _parse(quantity: Quantity) -> tuple[Decimal, bool] | None:
    """Return the exact value, and whether it is written as a fraction."""
    if isinstance(quantity, int):
        return Decimal(quantity), False
    if isinstance(quantity, float):
        # JSON has one kind of number: 3000.0 came from a writer that means 3000.
        return (Decimal(quantity), not quantity.is_integer()) if abs(quantity) < float("inf") else None
    match = _NUMBER.fullmatch(quantity)
    if match is None:
        return None
    number, suffix = match["number"], match["suffix"] or ""
    decimals = len(number.partition(".")[2])
    if suffix in _BINARY:
        return Decimal(number) * _BINARY[suffix], decimals > 0
    tens = _TENS.get(suffix, int(match["exponent"] or 0))
    return Decimal(number) * Decimal(f"1e{tens}"), decimals > tens
