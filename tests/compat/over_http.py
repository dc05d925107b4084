"""The recorded cases, played over HTTP against the running services and the stand-in cluster.

One rule: it does what kube-apiserver, kube-scheduler and a device plugin would do, and reads answers where they would.
"""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import httpx
import yaml
from hami_testkit.cluster.access import connect
from hami_testkit.cluster.client import ApiClient
from hami_testkit.cluster.status import ApiError
from hami_testkit.stack import Stack

from tests.compat import rules

Json = dict[str, Any]

SEEN = {"Node": "nodes", "Pod": "pods", "ResourceQuota": "quotas"}
"""Kinds, and what /readyz calls them."""
NAMESPACES = ("team-a", "team-b")
NOT_FOUND, CONFLICT = 404, 409
DEADLINE = 20.0
"""Seconds for the services to take note of what was written."""

LOCKS = ("hami.io/mutex.lock", "cambricon.com/dsmlu.lock")
CONFIRMATION = {"hami.io/bind-phase": "success"}
CAMBRICON_CONFIRMATION = {"CAMBRICON_DSMLU_ASSIGNED": "true"}
BIND_TIMEOUT = "7s"
"""Short, so that a bind that waits in vain for a lock does so for one second."""

FLAGS = {
    "node-scheduler-policy": "HAMI_NODE_SCHEDULER_POLICY",
    "gpu-scheduler-policy": "HAMI_GPU_SCHEDULER_POLICY",
    "force-overwrite-default-scheduler": "HAMI_FORCE_OVERWRITE_DEFAULT_SCHEDULER",
}


def environment(settings: Mapping[str, Any], config_file: Any) -> dict[str, str]:
    """Write a case's settings as environment and device config."""
    defaults = yaml.safe_load((rules.VECTORS / "settings" / "device-config.yaml").read_text())
    config_file.write_text(yaml.safe_dump(rules.merged_config(defaults, settings.get("config", {}))))
    flags = {FLAGS[name]: value for name, value in settings.get("flags", {}).items()}
    return {"HAMI_DEVICE_CONFIG": str(config_file), "HAMI_BIND_TIMEOUT": BIND_TIMEOUT, **flags}


class Player:
    """Plays one case after another on one running system."""

    def __init__(self, system: Stack, api: ApiClient, http: httpx.AsyncClient) -> None:
        self._at = system.at
        self.api = api
        self._http = http

    @classmethod
    @asynccontextmanager
    async def on(cls, system: Stack) -> AsyncIterator["Player"]:
        """Open the connections to a running system for the length of a block."""
        # verify=False: it speaks to the loopback, and the certificates of the world take long to load
        plain = httpx.AsyncClient(timeout=DEADLINE, trust_env=False, verify=False)  # noqa: S501
        async with connect(system.at.kubeconfig) as api, plain as http:
            yield cls(system, api, http)

    # What the API server is told

    async def clear(self) -> None:
        """Remove every pod, node and quota that the case before has left."""
        for kind in ("pods", "resourcequotas"):
            for item in (await self.api.get(f"/api/v1/{kind}"))["items"]:
                meta = item["metadata"]
                await self._remove(f"/api/v1/namespaces/{meta['namespace']}/{kind}/{meta['name']}")
        for item in (await self.api.get("/api/v1/nodes"))["items"]:
            await self._remove(f"/api/v1/nodes/{item['metadata']['name']}")

    async def begin(self, case: Json) -> None:
        """Set a case's stage and wait until the allocator has seen it."""
        await self.clear()
        for namespace in NAMESPACES:
            await self._make_namespace(namespace)
        await self._touch()
        for node in case.get("nodes", []):
            await self.api.create("/api/v1/nodes", {"apiVersion": "v1", "kind": "Node", **node})
        for i, quota in enumerate(case.get("quotas", [])):
            await self.set_quota(quota, f"quota-{i}")
        await self.wait_seen()

    async def set_quota(self, quota: Json, name: str = "quota-0") -> None:
        """Create or replace the quota of a namespace."""
        namespace = quota.get("metadata", {}).get("namespace") or quota["namespace"]
        hard = quota.get("spec", {}).get("hard") or quota.get("hard") or {}
        name = quota.get("metadata", {}).get("name", name)
        path = f"/api/v1/namespaces/{namespace}/resourcequotas"
        body = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": name}, "spec": {"hard": hard}}
        await self._remove(f"{path}/{name}")
        await self.api.create(path, body)

    async def wait_seen(self) -> None:
        """Wait until everything that was written from here is in the allocator's books.

        Its watches must have passed it and its letters be opened: a filter overtakes news.
        """
        wanted = {name: self.api.written[kind] for kind, name in SEEN.items() if kind in self.api.written}
        async with asyncio.timeout(DEADLINE):
            while wanted and not await self._has_seen(wanted):
                await asyncio.sleep(0.01)

    async def _make_namespace(self, name: str) -> None:
        """Make a namespace where a server has none before it is made; the stand-in asks for none."""
        try:
            await self.api.create("/api/v1/namespaces", {"metadata": {"name": name}})
        except ApiError as e:
            if e.code != CONFLICT:
                raise

    async def _remove(self, path: str) -> None:
        """Delete an object at once, if it is there."""
        try:
            await self.api.delete(path, {"gracePeriodSeconds": 0})
        except ApiError as e:
            if e.code != NOT_FOUND:
                raise

    async def _has_seen(self, wanted: Mapping[str, int]) -> bool:
        seen = _versions((await self._http.get(f"{self._at.allocator}/readyz")).json())
        return not seen["waiting"] and all(int(seen.get(name) or 0) >= version for name, version in wanted.items())

    # The steps

    async def admit(self, pod: Json) -> Json:
        """Ask the webhook; return what a vector's ``expect`` holds."""
        namespace = pod.get("metadata", {}).get("namespace", "")
        request = {"uid": "u-1", "operation": "CREATE", "namespace": namespace, "object": pod}
        review = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}
        answer = (await self._http.post(f"{self._at.webhook}/webhook", json=review)).json()["response"]
        assert answer["uid"] == "u-1"
        if not answer["allowed"]:
            status = answer["status"]
            return {"allowed": False, "code": status["code"], "message": status["message"]}
        patch = json.loads(base64.b64decode(answer.get("patch", "W10=")))
        return {"allowed": True, "pod_changes": rules.pod_changes(pod, rules.patched(pod, patch))}

    async def create(self, pod: Json) -> Json:
        """Create a pod and return it as stored."""
        path = f"/api/v1/namespaces/{pod['metadata']['namespace']}/pods"
        stored = await self.api.create(path, {"apiVersion": "v1", "kind": "Pod", **_with_images(pod)})
        await self.wait_seen()
        return stored

    async def filter(self, pod: Json, *, names: list[str] | None = None, nodes: list[Json] | None = None) -> Json:
        """Ask the extender as kube-scheduler does."""
        pod = {key: value for key, value in pod.items() if key not in {"kind", "apiVersion"}}
        listed = None if nodes is None else {"metadata": {}, "items": nodes}
        body = {"Pod": pod, "Nodes": listed, "NodeNames": names}
        answer: Json = (await self._http.post(f"{self._at.extender}/filter", json=body)).json()
        return answer

    async def bind(self, pod: Json, node: str) -> str:
        """Bind through the extender and return its error, empty when bound."""
        meta = pod["metadata"]
        body = {"PodName": meta["name"], "PodNamespace": meta["namespace"], "PodUID": meta["uid"], "Node": node}
        answer: Json = (await self._http.post(f"{self._at.extender}/bind", json=body)).json()
        return str(answer["Error"])

    async def pod(self, meta: Json) -> Json:
        """Read a pod."""
        return await self.api.get(f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}")

    async def locks(self, node: str) -> dict[str, str]:
        """Return the lock annotations of a node."""
        notes = (await self.api.get(f"/api/v1/nodes/{node}"))["metadata"].get("annotations") or {}
        return {key: notes[key] for key in LOCKS if key in notes}

    async def confirm(self, pod: Json) -> None:
        """Do what the node's device plugin does after it has served the pod."""
        stored = await self.pod(pod["metadata"])
        meta = stored["metadata"]
        notes = dict(CONFIRMATION)
        if "CAMBRICON_DSMLU_ASSIGNED" in (meta.get("annotations") or {}):
            notes |= CAMBRICON_CONFIRMATION
        path = f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}"
        await self.api.patch(path, {"metadata": {"annotations": notes}})
        node = stored["spec"]["nodeName"]
        await self.api.patch(f"/api/v1/nodes/{node}", {"metadata": {"annotations": dict.fromkeys(LOCKS)}})
        await self.wait_seen()

    async def delete(self, meta: Json) -> None:
        """Delete a pod at once."""
        path = f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}"
        await self._remove(path)
        await self._touch()

    async def _touch(self) -> None:
        """Write something that the watch of pods shows, and wait for it: all before it has then been seen."""
        path = "/api/v1/namespaces/team-a/pods"
        body: Json = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "mark"}}
        body["spec"] = {"schedulerName": "nobody", "containers": [{"name": "c", "image": "i"}]}
        await self.api.create(path, body)
        await self.wait_seen()
        await self._remove(f"{path}/mark")

    async def set_status(self, meta: Json, status: Json) -> None:
        """Write a pod's status as the kubelet does."""
        path = f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}/status"
        await self.api.patch(path, {"status": status})
        await self.wait_seen()


def _with_images(pod: Json) -> Json:
    """Return a recorded pod with what a real API server requires and the records leave out."""
    of_kind = {kind: pod["spec"][kind] for kind in ("initContainers", "containers") if kind in pod["spec"]}
    named = {kind: [{"image": "recorded", **c} for c in containers] for kind, containers in of_kind.items()}
    return {**pod, "spec": {**pod["spec"], **named}}


def _versions(ready: Json) -> Json:
    """Find the resourceVersions in an answer of /readyz."""
    found: Json = ready["checks"]["synced"]
    return found
