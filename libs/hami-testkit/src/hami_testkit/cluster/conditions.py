"""Webhooks' matchConditions: expressions in CEL over the request and the object.

One rule: a condition that cannot be understood is refused when the webhook is configured, not when a pod meets it.
Kubernetes' own additions to CEL (optional fields, authorizer, quantities, URLs) are not known here.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from functools import lru_cache
from typing import TYPE_CHECKING

from hami_testkit.cluster.status import Json

if TYPE_CHECKING:
    import cel

NOTHING: Json = {"object": {}, "oldObject": None, "request": {}}
"""What conditions know, empty."""


@lru_cache(maxsize=64)
def _compiled(expression: str) -> cel.Program:
    # two seconds to import: only who writes conditions pays them
    import cel  # noqa: PLC0415

    program = cel.compile(expression)
    with suppress(LookupError, TypeError, ValueError):
        program.execute(NOTHING)  # tells by RuntimeError of a variable or function that is unknown
    return program


def faults(path: str, condition: Json) -> Iterator[str]:
    """Say why the condition cannot be understood."""
    expression = condition.get("expression") or ""
    try:
        _compiled(expression)
    except (ValueError, RuntimeError) as error:
        yield f'{path}: Invalid value: "{expression}": compilation failed: {error}'


def all_hold(webhook: Json, request: Json) -> bool:
    """Say whether every condition holds; raise ``ValueError`` where none says no and one cannot be evaluated."""
    found = {"object": request["object"], "oldObject": request["oldObject"], "request": request}
    broken = ""
    for condition in webhook.get("matchConditions") or []:
        try:
            if _compiled(condition["expression"]).execute(found) is not True:
                return False
        except (LookupError, TypeError, ValueError, RuntimeError) as error:
            broken = f"expression '{condition['expression']}' resulted in error: {error}"
    if broken:
        raise ValueError(broken)
    return True
