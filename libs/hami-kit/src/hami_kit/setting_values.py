"""From a setting's text to its value: one small reader for each type, each with a sentence for what it cannot read.

One rule: what is not understood is refused, never guessed.
"""

import math
import re
from collections.abc import Callable
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, NewType, Union, get_args, get_origin

from msgspec import Struct

from hami_kit.errors import SettingsError

Duration = NewType("Duration", float)
"""Seconds; written as Go does: ``28s``, ``5m``, ``1m30s``, ``250ms``."""

Timeout = NewType("Timeout", float)
"""A duration that leaves some time."""

ObjectName = NewType("ObjectName", str)
"""What Kubernetes takes for a name: a DNS subdomain."""

_LONGEST = 2**63 / 1e9
"""Seconds that a duration of Go can hold: 292 years."""
_OBJECT_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_PART = re.compile(r"([0-9]+\.?[0-9]*|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h)")
_TRUE = frozenset({"1", "t", "true", "yes", "on"})
_FALSE = frozenset({"0", "f", "false", "no", "off"})


class Address(Struct, frozen=True):
    """A host and a port to listen on; port 0 takes a free one."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def read_duration(text: str) -> Duration:
    """Read a duration as Go writes it; raise ValueError."""
    body = text.removeprefix("+")
    if body == "0":
        return Duration(0.0)
    parts = _PART.findall(body)
    seconds = math.fsum(float(number) * _UNITS[unit] for number, unit in parts)
    if not parts or "".join(number + unit for number, unit in parts) != body or seconds >= _LONGEST:
        raise ValueError("is no duration; write it as Go does, such as 28s, 5m or 1m30s")
    return Duration(seconds)


def read_timeout(text: str) -> Timeout:
    """Read a duration above zero; raise ValueError."""
    seconds = read_duration(text)
    if not seconds:
        raise ValueError("leaves no time at all; write one such as 28s")
    return Timeout(seconds)


def read_object_name(text: str) -> ObjectName:
    """Read the name of a node or a namespace; raise ValueError."""
    if not _OBJECT_NAME.fullmatch(text):
        raise ValueError("is no name of a Kubernetes object; write one such as node-1")
    return ObjectName(text)


def read_address(text: str) -> Address:
    """Read ``host:port``, ``:port`` (every interface) or ``[v6]:port``; raise ValueError."""
    host, colon, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError("is no address; write host:port, an IPv6 host in brackets, such as [::1]:8443")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ValueError("is no address; write host:port with a port up to 65535, such as 0.0.0.0:8443")
    return Address(host or "0.0.0.0", int(port))


def read_bool(text: str) -> bool:
    """Read a yes or no; raise ValueError."""
    word = text.lower()
    if word not in _TRUE | _FALSE:
        raise ValueError("is neither true nor false; write one of the two")
    return word in _TRUE


def _read_int(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ValueError("is no whole number; write digits only") from None


def _read_float(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError("is no number; write one such as 0.5")
    return value


_READERS: dict[Any, Callable[[str], Any]] = {
    str: str,
    bool: read_bool,
    int: _read_int,
    float: _read_float,
    Path: Path,
    Duration: read_duration,
    Timeout: read_timeout,
    ObjectName: read_object_name,
    Address: read_address,
}


def read_value(kind: Any, text: str, where: str) -> Any:
    """Read a value of the field's type; raise SettingsError that names ``where``."""
    try:
        return _reader(kind)(text)
    except ValueError as e:
        raise SettingsError(where, f'"{text}" {e}') from None


def written(kind: Any, value: Any) -> str:
    """Write a value as it could have been given: durations as Go does, words in lower case."""
    if kind is bool:
        return str(value).lower()
    if kind not in (Duration, Timeout):
        return str(value)
    minutes, seconds = divmod(value, 60)
    hours, minutes = divmod(int(minutes), 60)
    parts = (f"{hours}h" * bool(hours), f"{minutes}m" * bool(minutes), f"{round(seconds, 9):g}s" * bool(seconds))
    return "".join(parts) or "0s"


def _reader(kind: Any) -> Callable[[str], Any]:
    origin = get_origin(kind)
    if origin in (Union, UnionType):
        (kind,) = [arm for arm in get_args(kind) if arm is not NoneType]
        return _reader(kind)
    if origin is Literal:
        return lambda text: _choose(text, get_args(kind))
    if origin in (tuple, list):
        read = _reader(get_args(kind)[0])
        return lambda text: origin(read(part.strip()) for part in text.split(",") if part.strip())
    return _READERS[kind]


def _choose(text: str, choices: tuple[str, ...]) -> str:
    if text not in choices:
        raise ValueError(f"is not known; write one of {', '.join(choices)}")
    return text
