"""One request, taken apart: what it is about, and what it brings.

One rule: whatever cannot be read is refused here; nothing is looked up and nothing written.
"""

from __future__ import annotations

from typing import Any

import msgspec
from aiohttp import web

from hami_testkit.cluster import shapes
from hami_testkit.cluster.objects import Key
from hami_testkit.cluster.resources import Resource
from hami_testkit.cluster.selectors import Selection
from hami_testkit.cluster.status import ApiError, Json, bad_request


class Asked:
    """One request: what it is about, and what it brings."""

    def __init__(self, request: web.Request, resource: Resource, subresource: str) -> None:
        self.http = request
        self.query = request.query
        self.resource = resource
        self.subresource = subresource
        self.namespace = request.match_info.get("namespace", "")
        self.name = request.match_info.get("name", "")

    @property
    def key(self) -> Key:
        """Return the key of the named object."""
        return self.namespace, self.name

    @property
    def words(self) -> str:
        """Return resource and sub-resource as ``pods/binding``."""
        return f"{self.resource.name}/{self.subresource}" if self.subresource else self.resource.name

    @property
    def selection(self) -> Selection:
        """Return what the selectors of a list or watch hold; a path of one object selects that."""
        fields = f"metadata.name={self.name}" if self.name else self.query.get("fieldSelector", "")
        labels = self.query.get("labelSelector", "")
        return Selection(self.resource, namespace=self.namespace, labels=labels, fields=fields)

    @property
    def wants_table(self) -> bool:
        """Say whether the reader is kubectl about to print a table."""
        return "as=Table" in self.http.headers.get("Accept", "")

    def says(self, option: str) -> bool:
        """Say whether an option of the query is on: ``true``, ``True``, ``1``, and whatever else is no "no"."""
        return self.query.get(option, "false").lower() not in ("false", "0")

    def number(self, option: str, default: int = 0) -> int:
        """Return a number of the query."""
        text = self.query.get(option) or default
        try:
            return int(text)
        except ValueError as error:
            raise bad_request(f"{option}: {text!r} is no number") from error

    def is_dry(self, *more: str) -> bool:
        """Say whether nothing may be written; whatever is not ``All`` is refused."""
        asked = [*self.query.getall("dryRun", []), *more]
        if set(asked) - {"All"}:
            raise ApiError(422, f'dryRun: Unsupported value: {asked}: supported values: "All"')
        return bool(asked)

    async def content(self) -> Any:
        """Return the decoded body."""
        kind = self.http.content_type
        if "protobuf" in kind:
            raise ApiError(415, "the stand-in reads JSON only: send application/json, or give kubectl a file (-f)")
        decode = msgspec.yaml.decode if "yaml" in kind else msgspec.json.decode
        try:
            return decode(await self.http.read())
        except msgspec.DecodeError as error:
            raise bad_request(f"the object provided is unrecognized: {error}") from error

    async def body(self) -> Json:
        """Return the decoded body, which must be an object."""
        found = await self.content()
        if not isinstance(found, dict):
            raise bad_request(f"the object provided is unrecognized (must be of type {self.resource.kind})")
        return found

    async def delete_options(self) -> Json:
        """Return how to delete, from body and query."""
        options = await self.body() if await self.http.read() else {}
        if "gracePeriodSeconds" in self.query:
            options["gracePeriodSeconds"] = self.number("gracePeriodSeconds")
        shapes.check_delete_options(options)
        return options
