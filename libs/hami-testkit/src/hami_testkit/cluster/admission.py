"""Webhook call-outs: what every MutatingWebhookConfiguration in the store says about a new object.

One rule: a webhook that fails is passed over or fatal as its failurePolicy says; a patch that does not apply is
always fatal.
"""

from __future__ import annotations

import asyncio
import base64
import ssl
import uuid

import aiohttp
import msgspec

from hami_testkit.cluster import conditions, patches
from hami_testkit.cluster.resources import NAMESPACES, WEBHOOKS, Resource
from hami_testkit.cluster.selectors import has_labels, label_selector
from hami_testkit.cluster.status import ApiError, Json
from hami_testkit.cluster.store import Store

USER = {"username": "system:admin", "groups": ["system:masters", "system:authenticated"]}


class _Review(msgspec.Struct):
    response: Json


class Unanswered(ApiError):
    """The webhook gave no usable answer: what the client is told where the failurePolicy does not ignore that."""


class Webhooks:
    """Calls the webhooks that the store's configurations name, in the order of their names."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """Close the connections to the webhooks."""
        if self._session:
            await self._session.close()

    async def admit(self, resource: Resource, obj: Json, *, dry_run: bool) -> tuple[Json, list[str]]:
        """Return the object as the webhooks change it, and their warnings; a denial is raised."""
        warnings: list[str] = []
        for _, stored in sorted(self._store.of(WEBHOOKS).objects.items()):
            for webhook in stored.object.get("webhooks") or []:
                if self._is_asked(webhook, resource, obj):
                    obj = await self._call(webhook, resource, obj, dry_run=dry_run, warnings=warnings)
        return obj, warnings

    def _is_asked(self, webhook: Json, resource: Resource, obj: Json) -> bool:
        meta = obj["metadata"]
        namespace = self._store.get(NAMESPACES, ("", meta.get("namespace", "")))
        known = {"kubernetes.io/metadata.name": meta.get("namespace", "")}
        labels = (namespace.object["metadata"].get("labels") or {}) if namespace else known
        return (
            any(_is_about(rule, resource) for rule in webhook.get("rules") or [])
            and has_labels(meta.get("labels") or {}, label_selector(webhook.get("objectSelector")))
            and (not resource.namespaced or has_labels(labels, label_selector(webhook.get("namespaceSelector"))))
        )

    async def _call(self, webhook: Json, resource: Resource, obj: Json, *, dry_run: bool, warnings: list[str]) -> Json:
        review = _review(resource, obj, dry_run=dry_run)
        try:
            if not _conditions_hold(webhook, review["request"]):
                return obj
            response = await self._ask(webhook, review)
        except Unanswered:
            if webhook.get("failurePolicy") == "Ignore":
                return obj
            raise
        warnings += response.get("warnings") or []
        if not response.get("allowed"):
            raise _denial(webhook["name"], response.get("status") or {})
        return _patched(obj, response)

    async def _ask(self, webhook: Json, review: Json) -> Json:
        seconds, url = webhook.get("timeoutSeconds") or 10, _url(webhook["clientConfig"])
        try:
            async with asyncio.timeout(seconds):
                answer = await self._post(f"{url}?timeout={seconds}s", review, webhook["clientConfig"].get("caBundle"))
            response: Json = msgspec.json.decode(answer, type=_Review).response
        except TimeoutError as error:
            raise _failed(webhook, f'Post "{url}?timeout={seconds}s": context deadline exceeded') from error
        except (aiohttp.ClientError, OSError, ValueError) as error:  # no way there, no bundle, no answer
            raise _failed(webhook, f'Post "{url}?timeout={seconds}s": {error}') from error
        if response.get("uid") != review["request"]["uid"]:
            raise _failed(webhook, f'expected response.uid="{review["request"]["uid"]}"')
        return response

    async def _post(self, url: str, review: Json, bundle: str | None) -> bytes:
        if self._session is None:
            self._session = aiohttp.ClientSession(raise_for_status=True)
        trust = ssl.create_default_context(cadata=base64.b64decode(bundle).decode()) if bundle else True
        headers = {"Content-Type": "application/json", "Accept": "application/json, */*"}
        async with self._session.post(url, data=msgspec.json.encode(review), headers=headers, ssl=trust) as answer:
            return await answer.read()


def _conditions_hold(webhook: Json, request: Json) -> bool:
    try:
        return conditions.all_hold(webhook, request)
    except ValueError as error:
        named = f'{request["resource"]["resource"]} "{request.get("name", "")}"'
        raise Unanswered(403, f"{named} is forbidden: {error}") from error


def _failed(webhook: Json, why: str) -> Unanswered:
    return Unanswered(500, f'Internal error occurred: failed calling webhook "{webhook["name"]}": {why}')


def _url(config: Json) -> str:
    service = {"port": 443, "path": "/"} | (config.get("service") or {})
    return config.get("url") or "https://{name}.{namespace}.svc:{port}{path}".format(**service)


def _is_about(rule: Json, resource: Resource) -> bool:
    def names(field: str, value: str) -> bool:
        return not {"*", value}.isdisjoint(rule.get(field) or [])

    scope = {"*": True, "Namespaced": resource.namespaced, "Cluster": not resource.namespaced}
    return (
        names("operations", "CREATE") and names("apiGroups", resource.group)
        and names("apiVersions", resource.version) and names("resources", resource.name)
        and scope[rule.get("scope", "*")]
    )  # fmt: skip


def _review(resource: Resource, obj: Json, *, dry_run: bool) -> Json:
    kind = {"group": resource.group, "version": resource.version, "kind": resource.kind}
    name = {"group": resource.group, "version": resource.version, "resource": resource.name}
    meta = {**obj["metadata"], "creationTimestamp": None}
    whole = {**obj, "kind": resource.kind, "apiVersion": resource.api_version, "metadata": meta}
    request: Json = {
        "uid": str(uuid.uuid4()), "kind": kind, "resource": name, "requestKind": kind, "requestResource": name,
        "operation": "CREATE", "userInfo": USER, "object": whole | {"status": {}}, "oldObject": None, "dryRun": dry_run,
        "options": {"kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1"},
    }  # fmt: skip
    request |= {field: meta[field] for field in ("name", "namespace") if meta.get(field)}
    return {"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "request": request}


def _denial(name: str, status: Json) -> ApiError:
    said = status.get("message") or status.get("reason")
    why = f": {said}" if said else " without explanation"
    code = max(int(status.get("code") or 0), 400)
    text = f'admission webhook "{name}" denied the request{why}'
    return ApiError(code, text, reason=status.get("reason") or ("" if code != 400 else "BadRequest"))


def _patched(obj: Json, response: Json) -> Json:
    if not response.get("patch"):
        return obj
    try:
        operations = msgspec.json.decode(base64.b64decode(response["patch"]))
        return patches.apply_json_patch(obj, operations)
    except ValueError as error:  # of base64, JSON or the patch itself
        raise ApiError(500, f"Internal error occurred: {error}") from error
