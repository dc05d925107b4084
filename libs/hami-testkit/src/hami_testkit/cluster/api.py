"""The HTTP face of the stand-in API server: one handler for every resource, sub-resources as a table.

One rule: it finds who answers and writes the answers; what a request says reads ``asked``, what a write means the
registry, what a watch says the hub.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec
from aiohttp import web

from hami_testkit.cluster import discovery, patches, reviews
from hami_testkit.cluster.asked import Asked
from hami_testkit.cluster.faults import Call, Fault, Faults
from hami_testkit.cluster.objects import Stored
from hami_testkit.cluster.registry import Registry
from hami_testkit.cluster.resources import (
    BINDINGS,
    COLLECTION,
    INTO_CONTAINERS,
    OBJECT,
    PODS,
    RESOURCES,
    SUBRESOURCES,
    Resource,
)
from hami_testkit.cluster.status import ApiError, Json, about, bad_request, success
from hami_testkit.cluster.tables import TableWatch, table
from hami_testkit.cluster.watch import Watch, bookmark, error_line

LARGEST_REQUEST = 3 * 1024 * 1024

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Api:
    """Answers the requests of all clients."""

    def __init__(self, registry: Registry, faults: Faults, *, bookmark_seconds: float = 30) -> None:
        self._registry = registry
        self.reviews = reviews.Reviews()
        self._store = registry.store
        self._faults = faults
        self._bookmark_seconds = bookmark_seconds
        self._answers: dict[str, Callable[[Asked], Awaitable[web.StreamResponse]]] = {
            "list": self._list, "watch": self._watch, "get": self._get, "create": self._create,
            "update": self._update, "patch": self._patch, "delete": self._delete,
            "deletecollection": self._delete_all,
        }  # fmt: skip

    def application(self) -> web.Application:
        """Return the application that serves every path of the API."""
        app = web.Application(client_max_size=LARGEST_REQUEST, middlewares=[_refusals])
        for path, page in discovery.pages().items():
            for spelled in (path, f"{path}/"):
                app.router.add_get(spelled, self._page(_json(page).body))
        for path in ("/healthz", "/livez", "/readyz"):
            app.router.add_get(path, self._page(b"ok"))
        app.router.add_route("*", "/standin/faults", self._switch)
        for name, kind in reviews.KINDS.items():
            app.router.add_post(f"{reviews.ROOT}/{name}", self._review(name, kind))
        for resource in RESOURCES:
            everywhere = inside = f"{resource.root}/{resource.name}"
            if resource.namespaced:
                inside = f"{resource.root}/namespaces/{{namespace}}/{resource.name}"
                self._serve(app, everywhere, resource, {"GET": "list"})
            if resource == BINDINGS:
                self._serve(app, inside, resource, {"POST": "create"})
                continue
            self._serve(app, inside, resource, COLLECTION)
            self._serve(app, f"{inside}/{{name}}", resource, OBJECT)
            for sub in resource.subresources:
                self._serve(app, f"{inside}/{{name}}/{sub}", resource, SUBRESOURCES[sub], sub)
            for sub in INTO_CONTAINERS if resource == PODS else ():
                app.router.add_route("*", f"{inside}/{{name}}/{sub}", self._refuse_container)
        return app

    async def _refuse_container(self, request: web.Request) -> web.Response:
        self._registry.get(PODS, Asked(request, PODS, "").key)
        text = "nothing runs in the containers of this stand-in: there is no log, and no process to talk to"
        raise ApiError(501, text, reason="NotImplemented")

    def _page(self, page: Any) -> Handler:
        async def answer(_: web.Request) -> web.Response:
            await self._faults.running()
            return web.Response(body=page, content_type="application/json")

        return answer

    def _review(self, name: str, kind: str) -> Handler:
        resource = Resource(name, kind, group="authorization.k8s.io", namespaced=False)

        async def answer(request: web.Request) -> web.Response:
            await self._faults.before(Call("create", name, ""))
            return _json(self.reviews.answer(kind, await Asked(request, resource, "").body()), code=201)

        return answer

    def _serve(self, app: web.Application, path: str, resource: Resource, verbs: dict[str, str], sub: str = "") -> None:
        for method, verb in verbs.items():
            app.router.add_route(method, path, self._handler(verb, resource, sub))

    def _handler(self, verb: str, resource: Resource, sub: str) -> Handler:
        async def answer(request: web.Request) -> web.StreamResponse:
            return await self._answer(verb, Asked(request, resource, sub))

        return answer

    async def _answer(self, verb: str, asked: Asked) -> web.StreamResponse:
        if verb in ("get", "list") and asked.says("watch"):
            verb = "watch"
        call = Call(verb, asked.words, asked.name)
        await self._faults.before(call)
        answer = await self._answers[verb](asked)
        if self._faults.drops(call) and asked.http.transport:
            asked.http.transport.abort()
        await self._faults.running()
        return answer

    async def _get(self, asked: Asked) -> web.StreamResponse:
        stored = self._registry.get(asked.resource, asked.key)
        if asked.wants_table:
            meta = {"resourceVersion": str(stored.revision)}
            return _json(table(asked.resource, [stored.object], meta, include=asked.included))
        return _object(asked.resource, stored)

    async def _list(self, asked: Asked) -> web.StreamResponse:
        limit, token = max(0, asked.number("limit")), asked.query.get("continue", "")
        page, token = self._store.page(asked.resource, asked.selection, limit=limit, token=token)
        meta: Json = {"resourceVersion": str(page.revision)}
        meta |= {"continue": token, "remainingItemCount": len(page.rest)} if token else {}
        if asked.wants_table:
            objects = [stored.object for stored in page.items]
            return _json(table(asked.resource, objects, meta, include=asked.included))
        return _listed(asked.resource, page.items, meta)

    async def _watch(self, asked: Asked) -> web.StreamResponse:
        seconds = asked.number("timeoutSeconds", 1800)
        hub = self._store.of(asked.resource).hub
        watch = hub.open(asked.selection)
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        try:
            self._begin_watch(asked, watch)
            await response.prepare(asked.http)
            await self._tell(asked, watch, response, seconds)
        except ConnectionResetError:
            pass  # the reader left: nothing to tell and nobody to tell it to
        finally:
            hub.close(watch)
        return response

    def _begin_watch(self, asked: Asked, watch: Watch) -> None:
        collection, since = self._store.of(asked.resource), asked.number("resourceVersion")
        if not since or asked.says("sendInitialEvents"):
            for stored in collection.select(watch.selection):
                watch.say(b'{"type":"ADDED","object":%s%s}\n' % (asked.resource.head, stored.body))
            if asked.says("sendInitialEvents"):
                watch.say(bookmark(asked.resource, self._store.revision, initial_end=True))
            return
        try:
            for change in collection.changes_since(since):
                if line := change.seen_by(watch.selection):
                    watch.say(line)
        except ApiError as gone:
            watch.end(error_line(gone))

    async def _tell(self, asked: Asked, watch: Watch, response: web.StreamResponse, seconds: int) -> None:
        clock = asyncio.get_running_loop().time
        end = clock() + seconds
        collection = self._store.of(asked.resource)
        since = collection.revision  # a bookmark tells of a change while the watch was open, never of rest
        marks = asked.says("allowWatchBookmarks")
        tables = TableWatch(asked.resource, asked.included) if asked.wants_table else None
        while (left := end - clock()) > 0 or watch.is_silent:
            chunk = await watch.chunk(min(max(left, 1), self._bookmark_seconds))
            await self._faults.running()
            if chunk is None:
                return
            if not chunk and marks and not watch.is_quiet and collection.revision > since:
                chunk = bookmark(asked.resource, collection.revision)
            if chunk:
                await response.write(tables.lines(chunk) if tables else chunk)

    async def _create(self, asked: Asked) -> web.StreamResponse:
        body, dry_run = await asked.body(), asked.is_dry()
        if asked.subresource == "binding" or asked.resource == BINDINGS:
            name = asked.name or (body.get("metadata") or {}).get("name", "")
            self._registry.bind(asked.namespace, name, body, dry_run=dry_run)
            return _json(success(code=201), code=201)
        return await self._made(asked, body, dry_run=dry_run)

    async def _made(self, asked: Asked, body: Json, *, dry_run: bool) -> web.StreamResponse:
        unknown = asked.warnings(body)
        made = self._registry.create(asked.resource, body, namespace=asked.namespace, dry_run=dry_run)
        stored, warnings = await made
        return _object(asked.resource, stored, [*unknown, *warnings], code=201)

    async def _update(self, asked: Asked) -> web.StreamResponse:
        body, dry_run = await asked.body(), asked.is_dry()
        if asked.resource.create_on_update and self._store.get(asked.resource, asked.key) is None:
            return await self._made(asked, body, dry_run=dry_run)
        status, warnings = asked.subresource == "status", asked.warnings(body)
        stored = self._registry.update(asked.resource, asked.key, body, status=status, dry_run=dry_run)
        return _object(asked.resource, stored, warnings)

    async def _patch(self, asked: Asked) -> web.StreamResponse:
        kind, status = asked.http.content_type, asked.subresource == "status"
        apply = patches.KINDS.get(kind)
        if apply is None:
            known = ", ".join(patches.KINDS)
            raise ApiError(415, f"the body of the request was in an unknown format - accepted media types: {known}")
        if kind == patches.APPLY and not asked.query.get("fieldManager"):
            raise ApiError(422, "fieldManager: Required value: is required for apply patch")
        change, dry_run = await asked.content(), asked.is_dry()
        if kind == patches.APPLY and not status and self._store.get(asked.resource, asked.key) is None:
            return await self._made(asked, await asked.body(), dry_run=dry_run)
        warnings = asked.warnings(change)
        stored = self._registry.patch(
            asked.resource, asked.key, lambda obj: apply(obj, change), status=status, dry_run=dry_run
        )
        return _object(asked.resource, stored, warnings)

    async def _delete(self, asked: Asked) -> web.StreamResponse:
        options = await asked.delete_options()
        dry_run = asked.is_dry(*options.get("dryRun") or ())
        stored = self._registry.delete(asked.resource, asked.key, options, dry_run=dry_run)
        if asked.resource.shows_deleted:
            return _object(asked.resource, stored)
        return _json(success(details=about(asked.resource, asked.name, uid=stored.object["metadata"]["uid"])))

    async def _delete_all(self, asked: Asked) -> web.StreamResponse:
        options = await asked.delete_options()
        dry_run = asked.is_dry(*options.get("dryRun") or ())
        found = self._store.of(asked.resource).select(asked.selection)
        deleted = [self._registry.delete(asked.resource, each.key, options, dry_run=dry_run) for each in found]
        return _listed(asked.resource, deleted, {"resourceVersion": str(self._store.revision)})

    async def _switch(self, request: web.Request) -> web.StreamResponse:
        if request.method == "POST":
            try:
                self._faults.set(msgspec.json.decode(await request.read(), type=Fault))
            except msgspec.DecodeError as error:
                raise bad_request(f"the fault cannot be read: {error}") from error
        elif request.method == "DELETE":
            self._faults.clear()
        return _bytes(msgspec.json.encode(self._faults.active))


@web.middleware
async def _refusals(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer every refusal with a Status, also those of the HTTP library."""
    try:
        return await handler(request)
    except ApiError as error:
        refusal = error
    except web.HTTPNotFound:
        refusal = ApiError(404, "the server could not find the requested resource")
    except web.HTTPMethodNotAllowed:
        refusal = ApiError(405, "the server does not allow this method on the requested resource")
    except web.HTTPException as error:
        refusal = ApiError(error.status, error.reason)
    return _json(refusal.status(), code=refusal.code)


def _object(resource: Resource, stored: Stored, warnings: Sequence[str] = (), *, code: int = 200) -> web.Response:
    response = _bytes(resource.head + stored.body, code=code)
    for warning in warnings:
        escaped = warning.replace("\\", "\\\\").replace('"', '\\"')
        response.headers.add("Warning", f'299 - "{escaped}"')
    return response


def _listed(resource: Resource, items: list[Stored], meta: Json) -> web.Response:
    head = {"kind": f"{resource.kind}List", "apiVersion": resource.api_version, "metadata": meta}
    return _bytes(msgspec.json.encode(head)[:-1] + b',"items":[' + b",".join(b"{" + s.body for s in items) + b"]}")


def _json(value: Json, *, code: int = 200) -> web.Response:
    return _bytes(msgspec.json.encode(value), code=code)


def _bytes(body: bytes, *, code: int = 200) -> web.Response:
    return web.Response(body=body, status=code, content_type="application/json")
