"""What the objects are made of, field by field, as a kube-apiserver described it: ``schemas.json``.

One rule: that file is recorded, never edited. ``python -m hami_testkit.cluster.schemas KUBECONFIG`` asks a real server
and writes it anew, without the descriptions, which are most of it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from hami_testkit.cluster.access import connect
from hami_testkit.cluster.client import ApiClient
from hami_testkit.cluster.resources import RESOURCES, Resource
from hami_testkit.cluster.status import Json

FILE = Path(__file__).with_name("schemas.json")
KINDS = "x-kubernetes-group-version-kind"
_PREFIX = "#/components/schemas/"
_LEFT_OUT = ("description", "default", "format")

SCHEMAS: dict[str, Json] = msgspec.json.decode(FILE.read_bytes())
"""Every schema by its name."""


def kind_of(resource: Resource) -> Json:
    """Return how documents name the kind of a resource."""
    return {"group": resource.group, "kind": resource.kind, "version": resource.version}


def name_of(resource: Resource, schemas: dict[str, Json] = SCHEMAS) -> str:
    """Return the name of a resource's schema."""
    kind = kind_of(resource)
    return next(name for name, schema in schemas.items() if kind in schema.get(KINDS, ()))


def needed(names: Iterable[str], schemas: dict[str, Json] = SCHEMAS) -> dict[str, Json]:
    """Return schemas with all that they are made of, in alphabetical order."""
    found: dict[str, Json] = {}
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found[name] = schemas[name]
            waiting += _references(schemas[name])
    return dict(sorted(found.items()))


def _references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"].removeprefix(_PREFIX)
        for inner in value.values():
            yield from _references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _references(inner)


def unknown_fields(resource: Resource, obj: Json) -> list[str]:
    """Return the fields of an object, or of a patch of one, that its kind does not have."""
    return list(_unknown(SCHEMAS[name_of(resource)], obj, ""))


def _unknown(schema: Json, value: Any, path: str) -> Iterator[str]:
    for reference in [schema, *schema.get("allOf", ())]:
        if "$ref" in reference:
            yield from _unknown(SCHEMAS[reference["$ref"].removeprefix(_PREFIX)], value, path)
    if isinstance(value, list):
        for index, item in enumerate(value):
            yield from _unknown(schema.get("items", {}), item, f"{path}[{index}]")
    elif isinstance(value, dict):
        yield from _unknown_members(schema, value, f"{path}." if path else "")


def _unknown_members(schema: Json, value: Json, prefix: str) -> Iterator[str]:
    fields, others = schema.get("properties"), schema.get("additionalProperties")
    for name, inner in value.items():
        if fields is None:
            yield from _unknown(others or {}, inner, f"{prefix}{name}")
        elif name in fields:
            yield from _unknown(fields[name], inner, f"{prefix}{name}")
        elif not name.startswith("$"):  # a directive of a strategic merge patch
            yield f"{prefix}{name}"


async def record(api: ApiClient) -> dict[str, Json]:
    """Return the schemas of all that the stand-in serves, as a server tells them."""
    told: dict[str, Json] = {}
    for root in sorted({resource.root for resource in RESOURCES}):
        told |= (await api.get(f"/openapi/v3{root}"))["components"]["schemas"]
    named = needed([name_of(resource, told) for resource in RESOURCES], told)
    return {name: _bare(schema) for name, schema in named.items()}


def _bare(value: Any, *, is_schema: bool = True) -> Any:
    """Return a schema without the words that no check reads; names of fields may be such words."""
    if isinstance(value, list):
        return [_bare(item) for item in value]
    if not isinstance(value, dict):
        return value
    kept = (name for name in value if not is_schema or name not in _LEFT_OUT)
    return {name: _bare(value[name], is_schema=name != "properties" or not is_schema) for name in kept}


def _text(schemas: dict[str, Json]) -> str:
    """Return the file's text: a schema a line."""
    lines = (f"{json.dumps(name)}: {json.dumps(schema, sort_keys=True)}" for name, schema in schemas.items())
    return "{\n" + ",\n".join(lines) + "\n}\n"


async def _write(kubeconfig: Path) -> None:
    async with connect(kubeconfig) as api:
        recorded = await record(api)
    await asyncio.to_thread(FILE.write_text, _text(recorded))


def main() -> None:
    """Record the schemas of a kube-apiserver of the version that is stood in for."""
    parser = argparse.ArgumentParser(prog="python -m hami_testkit.cluster.schemas", description=main.__doc__)
    parser.add_argument("kubeconfig", type=Path, help="leads to that server")
    asyncio.run(_write(parser.parse_args().kubeconfig))


if __name__ == "__main__":
    main()
