"""Kubernetes quantities as the API server stores them: parsed, and written back in canonical form.

One rule: the same amount in the same family of suffixes has one spelling (``3000`` becomes ``3k``).
"""

from __future__ import annotations

import re
from fractions import Fraction

from hami_testkit.cluster.status import bad_request

_FORM = re.compile(r"^([+-]?(?:\d+\.?\d*|\.\d+))(n|u|m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei|[eE][+-]?\d+)?$")
_DECIMAL = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY = ("Ki", "Mi", "Gi", "Ti", "Pi", "Ei")
_REGEX = "^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$"


def parse(quantity: object) -> Fraction:
    """Return the exact amount; what is no quantity is refused with the API server's words."""
    return _split(quantity)[0]


def canonical(quantity: object) -> str:
    """Return the one spelling that the API server keeps."""
    amount, suffix = _split(quantity)
    if suffix in _BINARY and abs(amount) >= 1024:
        return _binary(amount)
    nano = amount * 10**9
    whole = -((-nano.numerator) // nano.denominator)  # finer than nano is rounded up
    if not whole:
        return "0"
    exponent = next(e for e in range(18, -12, -3) if e == -9 or not whole % 10 ** (e + 9))
    mantissa = whole // 10 ** (exponent + 9)
    if suffix[:1] in ("e", "E") and len(suffix) > 1 and suffix not in _BINARY:
        return f"{mantissa}e{exponent}" if exponent else str(mantissa)
    return f"{mantissa}{next(s for s, e in _DECIMAL.items() if e == exponent)}"


def _binary(amount: Fraction) -> str:
    whole = -((-amount.numerator) // amount.denominator)
    power = 0
    while power < len(_BINARY) and not whole % 1024:
        whole //= 1024
        power += 1
    return f"{whole}{_BINARY[power - 1] if power else ''}"


def _split(quantity: object) -> tuple[Fraction, str]:
    match = None if isinstance(quantity, bool) else _FORM.match(str(quantity).strip())
    if match is None:
        raise bad_request(f"{quantity!r} is no quantity: quantities must match the regular expression '{_REGEX}'")
    number, suffix = Fraction(match[1]), match[2] or ""
    if suffix in _BINARY:
        return number * 1024 ** (_BINARY.index(suffix) + 1), suffix
    if suffix in _DECIMAL:
        return number * Fraction(10) ** _DECIMAL[suffix], suffix
    return number * Fraction(10) ** int(suffix[1:]), suffix
