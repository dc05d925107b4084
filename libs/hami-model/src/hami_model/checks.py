"""One rule, one line, for one card or for forty thousand: columns and a demand in, a mask of who passes out."""

from collections.abc import Callable
from typing import Any

from msgspec import Struct

from hami_model.reason import Reason


class Check(Struct, frozen=True):
    """A rule with the reason it gives; its place in the tuple is its priority."""

    reason: Reason
    passes: Callable[..., Any]
