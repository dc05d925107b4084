"""One request, taken apart: what it is about, and what it brings.

One rule: whatever cannot be read is refused here; nothing is looked up and nothing written.
"""

from __future__ import annotations

from typing import Any

import msgspec
from aiohttp import web

from hami_testkit.cluster import patches, schemas, shapes
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

    @property
    def included(self) -> str:
        """Return how much of each object a table is to bring along."""
        return self.query.get("includeObject", "")

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
        if kind == "application/vnd.kubernetes.protobuf":
            # protobuf takes a while to import: only who is sent some pays it
            from hami_testkit.cluster import typed  # noqa: PLC0415

            return typed.decode(await self.http.read())
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

    def warnings(self, content: Any) -> list[str]:
        """Return a warning for each field that the kind does not have, or refuse them, as the query asks."""
        wish, is_apply = self.query.get("fieldValidation", ""), self.http.content_type == patches.APPLY
        if wish not in ("", "Ignore", "Strict", "Warn"):
            text = 'supported values: "", "Ignore", "Strict", "Warn"'
            raise ApiError(422, f'fieldValidation: Unsupported value: "{wish}": {text}')
        is_whole = isinstance(content, dict) and self.subresource in ("", "status")
        if not is_whole or not (is_apply or wish in ("Strict", "Warn")):
            return []
        unknown = schemas.unknown_fields(self.resource, content)
        if unknown and (is_apply or wish == "Strict"):
            raise self._no_fields(unknown)
        return [_unknown(path) for path in unknown]

    def _no_fields(self, unknown: list[str]) -> ApiError:
        """Return the refusal, in the words that each way of writing has for it."""
        kind, version = self.resource.kind, self.resource.api_version
        if self.http.content_type == patches.APPLY:
            where = f"{self.namespace}/{self.name}; {version}, Kind={kind}"
            faults = [f".{path}: field not declared in schema" for path in unknown]
            listed = faults[0] if len(faults) == 1 else "\n  ".join(["errors:", *faults])
            return ApiError(500, f"failed to create typed patch object ({where}): {listed}")
        text = f"strict decoding error: {', '.join(map(_unknown, unknown))}"
        if self.http.method == "PATCH":
            cause = {"reason": "FieldValueInvalid", "message": f"Invalid value: {text}", "field": "patch"}
            return ApiError(422, f' "" is invalid: patch: Invalid value: {text}', details={"causes": [cause]})
        return bad_request(f'{kind} in version "{version}" cannot be handled as a {kind}: {text}')

    async def delete_options(self) -> Json:
        """Return how to delete, from body and query."""
        options = await self.body() if await self.http.read() else {}
        if "gracePeriodSeconds" in self.query:
            options["gracePeriodSeconds"] = self.number("gracePeriodSeconds")
        shapes.check_delete_options(options)
        return options


def _unknown(path: str) -> str:
    return f'unknown field "{path}"'
