"""The HTTP face of the stand-in API server: one handler for every resource, sub-resources as a table.

One rule: it reads requests and writes answers; what a write means is the registry's, what a watch says the hub's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, cast

import msgspec
from aiohttp import web

from hami_testkit.cluster import discovery, patches
from hami_testkit.cluster.faults import Call, Fault, Faults
from hami_testkit.cluster.objects import Key, Stored
from hami_testkit.cluster.registry import Registry
from hami_testkit.cluster.resources import BINDINGS, BY_PATH, PODS, Resource
from hami_testkit.cluster.selectors import Selection
from hami_testkit.cluster.status import ApiError, Json, bad_request, success
from hami_testkit.cluster.tables import table
from hami_testkit.cluster.watch import Watch, bookmark, error_line

VERBS = {"GET": "get", "POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
PATCHES: dict[str, Callable[[Json, Any], Json]] = {
    "application/json-patch+json": patches.json_patch,
    "application/merge-patch+json": patches.merge,
    "application/strategic-merge-patch+json": patches.strategic,
}


class Target(msgspec.Struct, frozen=True):
    """What a path names."""

    resource: Resource
    namespace: str
    name: str
    subresource: str

    @property
    def key(self) -> Key:
        """Return the key of the named object."""
        return self.namespace, self.name

    @property
    def words(self) -> str:
        """Return resource and sub-resource as ``pods/binding``."""
        return f"{self.resource.name}/{self.subresource}" if self.subresource else self.resource.name


def target_of(path: str) -> Target:
    """Return what an API path names; what is not served is refused with 404."""
    parts = [part for part in path.split("/") if part]
    if parts[:1] == ["api"]:
        group, version, rest = "", parts[1] if len(parts) > 1 else "", parts[2:]
    elif parts[:1] == ["apis"] and len(parts) > 2:
        group, version, rest = parts[1], parts[2], parts[3:]
    else:
        raise ApiError(404, "the server could not find the requested resource")
    namespace = ""
    if rest[:1] == ["namespaces"] and len(rest) > 2 and rest[2] != "status":
        namespace, rest = rest[1], rest[2:]
    resource = BY_PATH.get((group, version, rest[0] if rest else ""))
    if resource is None or len(rest) > 3 or (len(rest) == 3 and rest[2] not in resource.subresources):
        raise ApiError(404, "the server could not find the requested resource")
    name, subresource, *_ = [*rest[1:], "", ""]
    return Target(resource, namespace, name, subresource)


class Api:
    """Answers the requests of all clients."""

    def __init__(self, registry: Registry, faults: Faults, *, bookmark_seconds: float = 30) -> None:
        self._registry = registry
        self._store = registry.store
        self._faults = faults
        self._bookmark_seconds = bookmark_seconds

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer one request."""
        try:
            if request.path.startswith("/standin/"):
                return await self._switch(request)
            if (page := discovery.answer(request.path)) is not None:
                await self._faults.running()
                return _json(page)
            return await self._serve(request, target_of(request.path))
        except ApiError as refusal:
            return _json(refusal.status(), code=refusal.code)

    async def _serve(self, request: web.Request, target: Target) -> web.StreamResponse:
        verb = _verb(request, target)
        call = Call(verb, target.words, target.name)
        await self._faults.before(call)
        answers: dict[str, Callable[[web.Request, Target], Awaitable[web.StreamResponse]]] = {
            "list": self._list, "watch": self._watch, "get": self._get, "create": self._create,
            "update": self._update, "patch": self._patch, "delete": self._delete,
            "deletecollection": self._delete_all,
        }  # fmt: skip
        if verb not in answers:
            raise ApiError(405, "the server does not allow this method on the requested resource")
        answer = await answers[verb](request, target)
        if self._faults.drops(call) and request.transport:
            request.transport.abort()
        await self._faults.running()
        return answer

    async def _get(self, request: web.Request, target: Target) -> web.StreamResponse:
        stored = self._registry.get(target.resource, target.key)
        if _wants_table(request):
            return _json(table(target.resource, [stored], revision=stored.revision))
        return _object(target.resource, stored)

    async def _list(self, request: web.Request, target: Target) -> web.StreamResponse:
        selection = _selection(request, target)
        query = request.query
        limit = _number(query.get("limit", "0"))
        page, token = self._store.page(target.resource, selection, limit=limit, token=query.get("continue", ""))
        if _wants_table(request):
            return _json(table(target.resource, page.items, revision=page.revision, token=token))
        meta: Json = {"resourceVersion": str(page.revision)}
        if token:
            meta |= {"continue": token, "remainingItemCount": len(page.rest)}
        head = {"kind": f"{target.resource.kind}List", "apiVersion": target.resource.api_version, "metadata": meta}
        body = msgspec.json.encode(head)[:-1] + b',"items":[' + b",".join(b"{" + s.body for s in page.items) + b"]}"
        return _bytes(body)

    async def _watch(self, request: web.Request, target: Target) -> web.StreamResponse:
        collection = self._store.of(target.resource)
        watch = collection.hub.open(_selection(request, target))
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        try:
            self._begin_watch(request, target, watch)
            await response.prepare(request)
            await self._tell(request, target, watch, response)
        except ConnectionResetError:
            pass  # the reader left: nothing to tell and nobody to tell it to
        finally:
            collection.hub.close(watch)
        return response

    def _begin_watch(self, request: web.Request, target: Target, watch: Watch) -> None:
        collection = self._store.of(target.resource)
        since = request.query.get("resourceVersion") or "0"
        if since == "0" or request.query.get("sendInitialEvents") == "true":
            for stored in collection.select(watch.selection):
                watch.say(b'{"type":"ADDED","object":%s%s}\n' % (target.resource.head, stored.body))
            if request.query.get("sendInitialEvents") == "true":
                watch.say(bookmark(target.resource, self._store.revision, initial_end=True))
            return
        try:
            for change in collection.changes_since(_number(since)):
                if line := change.seen_by(watch.selection):
                    watch.say(line)
        except ApiError as refusal:
            if refusal.code != 410:
                raise
            watch.end(error_line(refusal))

    async def _tell(self, request: web.Request, target: Target, watch: Watch, response: web.StreamResponse) -> None:
        clock = asyncio.get_running_loop().time
        end = clock() + float(request.query.get("timeoutSeconds") or 1800)
        collection = self._store.of(target.resource)
        since = collection.revision  # a bookmark tells of a change while the watch was open, never of rest
        marks = request.query.get("allowWatchBookmarks") in ("true", "1")
        while (left := end - clock()) > 0 or watch.is_silent:
            chunk = await watch.chunk(min(max(left, 1), self._bookmark_seconds))
            await self._faults.running()
            if chunk is None:
                return
            if not chunk and marks and not watch.is_quiet and collection.revision > since:
                chunk = bookmark(target.resource, collection.revision)
            if chunk:
                await response.write(chunk)

    async def _create(self, request: web.Request, target: Target) -> web.StreamResponse:
        body, dry_run = await _body(request), _is_dry(request)
        if target.words in ("pods/binding", "bindings"):
            name = target.name or (body.get("metadata") or {}).get("name", "")
            self._registry.bind(target.namespace, name, body, dry_run=dry_run)
            return _json(success(201), code=201)
        if target.words == "pods/eviction":
            self._registry.delete(PODS, target.key, body.get("deleteOptions") or {}, dry_run=dry_run)
            return _json(success(201), code=201)
        if target.name or (target.resource.namespaced and not target.namespace):
            raise ApiError(405, "the server does not allow this method on the requested resource")
        stored, warnings = await self._registry.create(
            target.resource, body, namespace=target.namespace, dry_run=dry_run
        )
        return _object(target.resource, stored, code=201, warnings=warnings)

    async def _update(self, request: web.Request, target: Target) -> web.StreamResponse:
        body, dry_run = await _body(request), _is_dry(request)
        if target.resource.create_on_update and self._store.get(target.resource, target.key) is None:
            body["metadata"] = {**(body.get("metadata") or {}), "name": target.name}
            made, _ = await self._registry.create(target.resource, body, namespace=target.namespace, dry_run=dry_run)
            return _object(target.resource, made, code=201)
        status = target.subresource == "status"
        stored = self._registry.update(target.resource, target.key, body, status=status, dry_run=dry_run)
        return _object(target.resource, stored)

    async def _patch(self, request: web.Request, target: Target) -> web.StreamResponse:
        apply = PATCHES.get(request.content_type)
        if apply is None:
            known = ", ".join(PATCHES)
            raise ApiError(415, f"the body of the request was in an unknown format - accepted media types: {known}")
        change = await _body(request)
        stored = self._registry.patch(
            target.resource, target.key, lambda obj: apply(obj, change),
            status=target.subresource == "status", dry_run=_is_dry(request),
        )  # fmt: skip
        return _object(target.resource, stored)

    async def _delete(self, request: web.Request, target: Target) -> web.StreamResponse:
        options = await _options(request)
        stored = self._registry.delete(target.resource, target.key, options, dry_run=_is_dry(request))
        if target.resource == PODS:
            return _object(PODS, stored)
        details = {"name": target.name, "kind": target.resource.name, "uid": stored.object["metadata"]["uid"]}
        return _json(success(details=details))

    async def _delete_all(self, request: web.Request, target: Target) -> web.StreamResponse:
        options = await _options(request)
        for stored in self._store.of(target.resource).select(_selection(request, target)):
            self._registry.delete(target.resource, stored.key, options, dry_run=_is_dry(request))
        return _json(success())

    async def _switch(self, request: web.Request) -> web.StreamResponse:
        if request.path != "/standin/faults":
            raise ApiError(404, "the stand-in's switches are under /standin/faults")
        if request.method == "POST":
            try:
                self._faults.set(msgspec.json.decode(await request.read(), type=Fault))
            except msgspec.DecodeError as error:
                raise bad_request(f"the fault cannot be read: {error}") from error
        elif request.method == "DELETE":
            self._faults.clear()
        return _bytes(msgspec.json.encode(self._faults.active))


def _verb(request: web.Request, target: Target) -> str:
    verb = VERBS.get(request.method, "")
    if target.resource == BINDINGS and verb != "create":
        return ""
    if not target.name and verb == "delete":
        return "deletecollection"
    if verb != "get":
        return verb if target.name or verb == "create" else ""
    if request.query.get("watch") in ("true", "1"):
        return "watch"
    return "get" if target.name else "list"


def _selection(request: web.Request, target: Target) -> Selection:
    query = request.query
    fields = query.get("fieldSelector", "")
    if target.name:  # a watch of one object by its path
        fields = f"metadata.name={target.name}"
    labels = query.get("labelSelector", "")
    return Selection(target.resource, namespace=target.namespace, labels=labels, fields=fields)


def _number(text: str) -> int:
    if not text.isdigit():
        raise bad_request(f'"{text}" is no number')
    return int(text)


def _is_dry(request: web.Request) -> bool:
    return request.query.get("dryRun") == "All"


def _wants_table(request: web.Request) -> bool:
    return "as=Table" in request.headers.get("Accept", "")


async def _body(request: web.Request) -> Any:
    if "protobuf" in request.content_type:
        raise ApiError(415, "the stand-in reads JSON only; set the content type of your client to application/json")
    try:
        return msgspec.json.decode(await request.read())
    except msgspec.DecodeError as error:
        raise bad_request(f"the object provided is unrecognized (must be of type Object): {error}") from error


async def _options(request: web.Request) -> Json:
    options = cast("Json", await _body(request)) if request.can_read_body else {}
    if "gracePeriodSeconds" in request.query:
        options["gracePeriodSeconds"] = _number(request.query["gracePeriodSeconds"])
    return options


def _object(resource: Resource, stored: Stored, *, code: int = 200, warnings: list[str] | None = None) -> web.Response:
    response = _bytes(resource.head + stored.body, code=code)
    for warning in warnings or ():
        escaped = warning.replace("\\", "\\\\").replace('"', '\\"')
        response.headers.add("Warning", f'299 - "{escaped}"')
    return response


def _json(value: Json, *, code: int = 200) -> web.Response:
    return _bytes(msgspec.json.encode(value), code=code)


def _bytes(body: bytes, *, code: int = 200) -> web.Response:
    return web.Response(body=body, status=code, content_type="application/json")
