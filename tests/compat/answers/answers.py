"""What one vendor answers where HAMi's recorded answer is a known weakness."""

from collections.abc import Mapping
from typing import Any

from msgspec import Struct


class Answers(Struct, frozen=True, kw_only=True):
    """By name of the case; a case of ``differences/``, or of ``overruled``, stands in exactly one of its kind."""

    placed: Mapping[str, Mapping[str, Any]] = {}
    """Placing: at the first step that differs, annotations, ``error``, or reasons by node."""
    overruled: frozenset[str] = frozenset()
    """Placing: recorded cases that stand among HAMi's right answers, and are weaknesses too; ours is in ``placed``."""
    placed_alike: frozenset[str] = frozenset()
    """Placing: weaknesses that do not show there, or that are kept."""
    admitted: Mapping[str, Mapping[str, Any]] = {}
    """Admission: the changes of the pod."""
    denied: Mapping[str, tuple[int, str]] = {}
    """Admission: code, and how the text begins."""
