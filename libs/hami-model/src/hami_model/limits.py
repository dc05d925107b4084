"""What a container writes in its resource limits, read strictly.

One rule: a value that cannot be meant is refused with the field, the value, the container and what to write instead.
HAMi reads such a value as "no request" and lets the pod run anywhere (spec REQ-1); here it never gets that far.
"""

from hami_model.errors import BadDemand
from hami_model.objects import Container
from hami_model.units import INT32_MAX, MIB, Quantity, plain_integer, rounded_up

MOST_MEMORY = 2**24
"""MiB; no card has 16 TiB, so a larger number was meant as bytes."""

_BYTE_SUFFIXES = ("Mi", "Gi", "Ti", "Pi", "Ei")


def limit(container: Container, name: str) -> Quantity | None:
    """Return a resource as written in the limits, or None."""
    limits = container.resources.limits if container.resources else None
    return limits.get(name) if name and limits else None


def asked(container: Container, name: str) -> Quantity | None:
    """Return a resource as written in the limits, else in the requests, else None."""
    written = limit(container, name)
    if written is not None or not name or container.resources is None:
        return written
    return (container.resources.requests or {}).get(name)


def count(container: Container, name: str) -> int | None:
    """Read how many cards are asked for; None when the resource is not mentioned."""
    return _whole(container, name, "cards", INT32_MAX)


def slices(container: Container, name: str) -> int | None:
    """Read how many slices of a card are asked for; None when the resource is not mentioned."""
    return _whole(container, name, "slices of a card", INT32_MAX)


def cores(container: Container, name: str) -> int | None:
    """Read the percentage of a card's cores asked for, as written; None when the resource is not mentioned."""
    return _whole(container, name, "percent of a card's cores", INT32_MAX)


def percentage(container: Container, name: str) -> int | None:
    """Read the percentage of a card's memory asked for; None when the resource is not mentioned."""
    return _whole(container, name, "percent", 100)


def memory(container: Container, name: str, *, factor: int = 1, rounds: bool = False, least: int = 1) -> int | None:
    """Read memory in MiB, where one unit of the resource is ``factor`` MiB; None when it is not mentioned.

    ``rounds``: a fraction is read as the next whole unit instead of being refused. ``least``: the smallest number of
    units to write instead of bytes.
    """
    written = asked(container, name)
    if written is None:
        return None
    unit = "MiB" if factor <= 1 else f"units of {factor} MiB"
    factor = max(factor, 1)
    value = rounded_up(written)
    if value is not None and value >= MIB and (_is_bytes(written) or value * factor >= MOST_MEMORY):
        meant = max(least, value // MIB // factor)
        raise BadDemand(
            f"{name} {written} in container {container.name} is too much: {name} counts {unit}: write {meant}"
        )
    most = (MOST_MEMORY - 1) // factor
    if rounds and value is not None and 0 <= value <= most:
        return value * factor
    units = _whole(container, name, unit, most)
    return None if units is None else units * factor


def _is_bytes(written: Quantity) -> bool:
    return isinstance(written, str) and written.endswith(_BYTE_SUFFIXES)


def _whole(container: Container, name: str, unit: str, highest: int) -> int | None:
    written = asked(container, name)
    if written is None:
        return None
    value = plain_integer(written)
    if value is None or not 0 <= value <= highest:
        nearest = min(max(rounded_up(written) or 0, 1), highest)
        raise BadDemand(
            f"{name} {written} in container {container.name} cannot be read: "
            f"write a whole number of {unit} from 0 to {highest}, such as {nearest}"
        )
    return value
