"""Hypothesis strategies that tests share.

One rule: what is drawn is what JSON can carry, so that whatever differs after a journey differs because of the journey.
"""

from enum import Enum
from functools import cache
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from hypothesis import strategies as st
from msgspec import Struct

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
INTEGERS = st.integers(-(2**31), 2**53)
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
SCALARS = {str: TEXT, int: INTEGERS, float: FLOATS, bool: st.booleans(), NoneType: st.none()}
ANYTHING = st.none() | st.booleans() | INTEGERS | TEXT | st.lists(INTEGERS, max_size=2)
"""For fields of type ``object``: what JSON gives back as it was."""

MOST_ITEMS = 2


@cache
def values_of(kind: Any) -> st.SearchStrategy[Any]:
    """Draw values of a type as messages use it: Structs, enums, scalars; lists, tuples, dicts and unions of these."""
    if kind in SCALARS:
        return SCALARS[kind]
    if kind in (object, Any):
        return ANYTHING
    if isinstance(kind, type) and issubclass(kind, Enum):
        return st.sampled_from(kind)
    if isinstance(kind, type) and issubclass(kind, Struct):
        return st.builds(kind, **{name: values_of(hint) for name, hint in _fields(kind).items()})
    match get_origin(kind), get_args(kind):
        case origin, args if origin in (UnionType, Union):
            return st.one_of(*map(values_of, args))
        case origin, (item, *_) if origin is list:
            return st.lists(values_of(item), max_size=MOST_ITEMS)
        case origin, (item, second) if origin is tuple and second is Ellipsis:
            return st.lists(values_of(item), max_size=MOST_ITEMS).map(tuple)
        case origin, args if origin is tuple:
            return st.tuples(*map(values_of, args))
        case origin, (key, value) if origin is dict:
            return st.dictionaries(values_of(key), values_of(value), max_size=MOST_ITEMS)
    raise TypeError(f"no strategy for {kind}: add one to hami_testkit.strategies")


def _fields(kind: type[Struct]) -> dict[str, Any]:
    hints = get_type_hints(kind)
    return {name: hints[name] for name in kind.__struct_fields__}
