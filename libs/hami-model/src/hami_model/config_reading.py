"""A decoded YAML tree read as a Struct: every value that cannot be meant and every key that nobody reads, by its path.

One rule: what HAMi's YAML library takes is taken here too (a number where a text is wanted), and nothing stops at the
first mistake, so that a file is mended in one go.
"""

from collections.abc import Callable, Mapping
from difflib import get_close_matches
from functools import cache
from typing import Any

from msgspec import Struct, inspect

Path = tuple[str | int, ...]
"""Where something stands: keys, and positions in lists."""


class Remark(Struct, frozen=True, kw_only=True):
    """One sentence about one place of the file."""

    path: Path
    sentence: str


class Reading(Struct, frozen=True, kw_only=True):
    """What a tree says: the values that can be used, what is wrong, and the keys that nobody reads."""

    values: object
    wrong: tuple[Remark, ...] = ()
    unread: tuple[Remark, ...] = ()


def read(tree: object, kind: type[Struct], example: object = None) -> Reading:
    """Read a tree; ``example`` is one of the same shape, whose values are shown where a wrong one stands."""
    reader = _Reader(example)
    values = reader.value(_shape(kind), tree, ())
    return Reading(values=values, wrong=tuple(reader.wrong), unread=tuple(reader.unread))


def written(path: Path) -> str:
    """Write a path as people do: ``vnpus.configs[0].commonWord``."""
    keys = [f"[{key}]" if isinstance(key, int) else f".{key}" for key in path]
    return "".join(keys).removeprefix(".")


@cache
def _shape(kind: type[Struct]) -> inspect.Type:
    return inspect.type_info(kind)


class _Reader:
    def __init__(self, example: object) -> None:
        self._example = example
        self.wrong: list[Remark] = []
        self.unread: list[Remark] = []

    def value(self, shape: inspect.Type, value: object, path: Path) -> object:
        """Return a value in the shape that is wanted; one that is wrong is complained of and left out (None)."""
        match shape:
            case inspect.UnionType(types=types):
                wanted = [one for one in types if not isinstance(one, inspect.NoneType)]
                return self.value(wanted[0] if len(wanted) == 1 else inspect.StrType(), value, path)
            case inspect.StructType():
                return self._struct(shape, value, path)
            case inspect.VarTupleType(item_type=item):
                return self._list(item, value, path)
            case _:
                return self._scalar(shape, value, path)

    def _struct(self, shape: inspect.StructType, value: object, path: Path) -> object:
        if not isinstance(value, dict):
            first = f"{shape.fields[0].encode_name}: …"
            return self._complain(path, f"{_shown(value)} is no section; write its keys below it, such as {first}")
        known = {field.encode_name: field for field in shape.fields}
        for key in value:
            if key not in known:
                self._tell_unread(str(key), list(known), path)
        given = {key: item for key, item in value.items() if key in known and item is not None}
        for name, field in known.items():
            if field.required and name not in given:
                self._complain(path, f"has no {name}; write one such as {name}: {self._such_as((*path, name)) or '…'}")
        return {key: self.value(known[key].type, item, (*path, key)) for key, item in given.items()}

    def _list(self, item: inspect.Type, value: object, path: Path) -> object:
        if not isinstance(value, list | tuple):
            return self._complain(path, f"{_shown(value)} is no list; write each entry on a line that begins with -")
        return [self.value(item, one, (*path, at)) for at, one in enumerate(value)]

    def _scalar(self, shape: inspect.Type, value: object, path: Path) -> object:
        wanted, takes = _KINDS[type(shape)]
        taken = takes(value)
        if taken is None:
            example = self._such_as(path)
            return self._complain(
                path, f"{_shown(value)} is {wanted}" + (f"; write one such as {example}" * bool(example))
            )
        low, high = getattr(shape, "ge", None), getattr(shape, "le", None)
        if isinstance(taken, int | float) and not (low is None or high is None or low <= taken <= high):
            return self._complain(path, f"{_shown(value)} is out of range; write {low} to {high}")
        return taken

    def _complain(self, path: Path, sentence: str) -> object:
        self.wrong.append(Remark(path=path, sentence=f"{written(path)}: {sentence}"))
        return None

    def _tell_unread(self, key: str, known: list[str], path: Path) -> None:
        close = get_close_matches(key, known, n=1)
        meant = f"did you mean {close[0]}?" if close else "nobody reads it: remove it"
        self.unread.append(Remark(path=(*path, key), sentence=f"unknown key {written((*path, key))}; {meant}"))

    def _such_as(self, path: Path) -> str:
        """Return what the example has in that place, or in the first entry of that list; numbers otherwise are 1."""
        found = self._example
        for key in path:
            if isinstance(found, Mapping):
                found = found.get(key)
            elif isinstance(found, list | tuple):
                found = found[0] if found else None
            else:
                return ""
        return "" if found is None or isinstance(found, bool | dict | list) else str(found)


def _shown(value: object) -> str:
    match value:
        case dict():
            return "a map"
        case list() | tuple():
            return "a list"
        case bool():
            return str(value).lower()
        case int() | float():
            return str(value)
        case _:
            return f'"{value}"'


def _text(value: object) -> str | None:
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, str | int | float) else None


def _truth(value: object) -> bool | None:
    return value if isinstance(value, bool) else None


def _whole(value: object) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return int(value) if value == value // 1 else None


def _number(value: object) -> float | None:
    return None if isinstance(value, bool) or not isinstance(value, int | float) else float(value)


_KINDS: Mapping[type, tuple[str, Callable[[object], Any]]] = {
    inspect.StrType: ("no text", _text),
    inspect.BoolType: ("neither true nor false", _truth),
    inspect.IntType: ("no whole number", _whole),
    inspect.FloatType: ("no number", _number),
}
