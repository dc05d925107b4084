"""Webhook call-outs: what every MutatingWebhookConfiguration in the store says about a new object.

One rule: a webhook that fails is passed over or fatal as its failurePolicy says; a patch that does not apply is
always fatal. CEL matchConditions are not evaluated; the annotation ``ONLY_FOR`` of the configuration stands for the
one condition that the chart writes: the pod names one of these resources.
"""

from __future__ import annotations

import asyncio
import base64
import ssl
import uuid
from typing import Any

import aiohttp
import msgspec

from hami_testkit.cluster import patches
from hami_testkit.cluster.resources import NAMESPACES, WEBHOOKS, Resource
from hami_testkit.cluster.selectors import has_labels, label_selector
from hami_testkit.cluster.status import ApiError, Json
from hami_testkit.cluster.store import Store

ONLY_FOR = "standin.hami.io/only-for-resources"
USER = {"username": "system:admin", "groups": ["system:masters", "system:authenticated"]}


class Unanswered(Exception):
    """The webhook gave no usable answer; the failurePolicy decides what that means."""


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
            only = (stored.object["metadata"].get("annotations") or {}).get(ONLY_FOR, "")
            if only and not names_resource(obj, frozenset(only.split(","))):
                continue
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
        name = webhook["name"]
        try:
            response = await self._ask(webhook, _review(resource, obj, dry_run=dry_run))
        except Unanswered as error:
            if webhook.get("failurePolicy", "Fail") == "Ignore":
                return obj
            text = f'Internal error occurred: failed calling webhook "{name}": {error}'
            raise ApiError(500, text) from error
        warnings += response.get("warnings") or []
        if not response.get("allowed"):
            raise _denial(name, response.get("status") or {})
        return _patched(obj, response)

    async def _ask(self, webhook: Json, review: Json) -> Json:
        config, seconds = webhook["clientConfig"], webhook.get("timeoutSeconds", 10)
        url = config.get("url") or "https://{name}.{namespace}.svc:{port}{path}".format(
            **{"port": 443, "path": "/"} | config["service"]
        )
        try:
            async with asyncio.timeout(seconds):
                answer = await self._post(f"{url}?timeout={seconds}s", review, config.get("caBundle"))
        except TimeoutError as error:
            raise Unanswered(
                f'failed to call webhook: Post "{url}?timeout={seconds}s": context deadline exceeded'
            ) from error
        except (aiohttp.ClientError, OSError, ssl.SSLError) as error:
            raise Unanswered(f'failed to call webhook: Post "{url}?timeout={seconds}s": {error}') from error
        try:
            response: Json = msgspec.json.decode(answer)["response"]
        except (msgspec.DecodeError, LookupError, TypeError) as error:
            raise Unanswered(f"received invalid webhook response: {error}") from error
        wanted = review["request"]["uid"]
        if response.get("uid") != wanted:
            raise Unanswered(f'received invalid webhook response: expected response.uid="{wanted}"')
        return response

    async def _post(self, url: str, review: Json, bundle: str | None) -> bytes:
        if self._session is None:
            self._session = aiohttp.ClientSession()
        trust: Any = True
        if bundle:
            trust = ssl.create_default_context(cadata=base64.b64decode(bundle).decode())
        headers = {"Content-Type": "application/json", "Accept": "application/json, */*"}
        body = msgspec.json.encode(review)
        async with self._session.post(url, data=body, headers=headers, ssl=trust) as answer:
            content = await answer.read()
            if answer.status != 200:
                raise Unanswered(
                    f"an error on the server ({content[:200]!r}) has prevented the request from succeeding"
                )
            return content


def names_resource(pod: Json, names: frozenset[str]) -> bool:
    """Say whether a container or init container of the pod asks for one of the resources, in requests or limits."""
    spec = pod.get("spec") or {}
    containers = [*(spec.get("initContainers") or []), *(spec.get("containers") or [])]
    parts = [part for c in containers for part in (c.get("resources") or {}).values() if isinstance(part, dict)]
    return any(not names.isdisjoint(part) for part in parts)


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
    except (LookupError, ValueError, TypeError, msgspec.DecodeError) as error:
        raise ApiError(500, f"Internal error occurred: {error}") from error
