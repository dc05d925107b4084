"""What we rely on from an API server that calls a mutating webhook, one behaviour per test.

The stand-in answers by default; with HAMI_TEST_KUBECONFIG set, the same tests ask the real server it leads to.
"""

import asyncio
import base64
import json
import shutil
import subprocess
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from hami_testkit.cluster.client import ApiClient
from hami_testkit.cluster.status import ApiError

from tests.integration.contract import CORE, HOOKS, REAL, Json, a_pod, refusal

Review = Callable[[Json], Json]


def allow(request: Json, *, patch: list[Json] | None = None, **more: Any) -> Json:
    response = {"uid": request["uid"], "allowed": True, **more}
    if patch is not None:
        response |= {"patchType": "JSONPatch", "patch": base64.b64encode(json.dumps(patch).encode()).decode()}
    return response


class Hook:
    """A webhook of one test: what it was asked, and what it answers."""

    def __init__(self, api: ApiClient, namespace: str, client: Json) -> None:
        self.asked: list[Json] = []
        self.answer: Review = allow
        self.hangs = asyncio.Event()
        self.hangs.set()
        self.code = 200
        self.name = f"{namespace}.contract.hami.io"
        self._api, self._namespace, self._client = api, namespace, client

    async def handle(self, request: web.Request) -> web.Response:
        review = await request.json()
        self.asked.append({**review, "query": dict(request.query)})
        await self.hangs.wait()
        answer = {
            "apiVersion": review["apiVersion"],
            "kind": review["kind"],
            "response": self.answer(review["request"]),
        }
        return web.json_response(answer, status=self.code)

    async def register(self, policy: str, *, conditions: Sequence[str] = (), probe: Json | None = None) -> None:
        """Have the server call it; ``probe`` is a pod of which it is asked, where the conditions leave some out."""
        rule = {"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}
        webhook = {
            "name": self.name, "admissionReviewVersions": ["v1"], "sideEffects": "None", "rules": [rule],
            "failurePolicy": policy, "timeoutSeconds": 1, "clientConfig": self._client,
            "namespaceSelector": {"matchLabels": {"contract": self._namespace}},
            "matchConditions": [{"name": f"c{n}", "expression": text} for n, text in enumerate(conditions)],
        }  # fmt: skip
        await self._api.create(HOOKS, {"metadata": {"name": self._namespace}, "webhooks": [webhook]})
        if REAL:  # a real server learns of a new webhook a little later
            await self._wait_called(probe or a_pod("probe"))

    async def _wait_called(self, probe: Json) -> None:
        path = f"{CORE}/namespaces/{self._namespace}/pods"
        async with asyncio.timeout(20):
            while not self.asked:
                with suppress(ApiError):  # what the webhook answers is the test's business
                    await self._api.create(path, probe, query={"dryRun": "All"})
        self.asked.clear()


@pytest.fixture
async def hook(request: pytest.FixtureRequest, api: ApiClient, namespace: str, tmp_path: Path) -> AsyncIterator[Hook]:
    """A webhook on a free port; with TLS where the test wants it, or the server is real, which takes no other."""
    client: Json = {}
    tls = _certificate(tmp_path) if REAL or hasattr(request, "param") else None
    app = web.Application()
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    hook = Hook(api, namespace, client)
    app.router.add_post("/webhook", hook.handle)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
    await site.start()
    scheme = "https" if tls else "http"
    client["url"] = f"{scheme}://127.0.0.1:{runner.addresses[0][1]}/webhook"
    if tls:
        client["caBundle"] = base64.b64encode((tmp_path / "tls.crt").read_bytes()).decode()
    yield hook
    hook.hangs.set()
    with suppress(ApiError):  # a test may have tried one that was refused
        await api.delete(f"{HOOKS}/{namespace}")
    await runner.cleanup()


def _certificate(folder: Path) -> Any:
    import ssl  # noqa: PLC0415 - only where a real server asks for it

    key, crt = folder / "tls.key", folder / "tls.crt"
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=h -addext subjectAltName=IP:127.0.0.1"
    subprocess.run([*command.split(), "-keyout", key, "-out", crt], check=True, capture_output=True)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(crt, key)
    return context


async def test_a_webhook_sees_the_pod_as_kubernetes_shows_it(
    api: ApiClient, namespace: str, pods: str, hook: Hook
) -> None:
    """The review has the pod with its kind, its namespace, no uid yet, and the timeout in the query."""
    await hook.register("Fail")

    await api.create(pods, a_pod(limits={"nvidia.com/gpu": 1}))

    review, request = hook.asked[0], hook.asked[0]["request"]
    assert ("admission.k8s.io/v1", "AdmissionReview") == (review["apiVersion"], review["kind"])
    assert "1s" == review["query"]["timeout"]
    assert ("CREATE", namespace, "p0") == (request["operation"], request["namespace"], request["name"])
    assert {"group": "", "version": "v1", "kind": "Pod"} == request["kind"]
    assert {"group": "", "version": "v1", "resource": "pods"} == request["resource"]
    assert ("Pod", "v1") == (request["object"]["kind"], request["object"]["apiVersion"])
    assert "uid" not in request["object"]["metadata"]
    assert (None, False) == (request["oldObject"], request["dryRun"])


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
@pytest.mark.parametrize("hook", ["TLS"], indirect=True)
async def test_a_webhook_is_trusted_by_its_bundle_alone(api: ApiClient, pods: str, hook: Hook) -> None:
    """A certificate that no authority of the machine signed is good where caBundle holds it."""
    await hook.register("Fail")

    await api.create(pods, a_pod())

    assert ["p0"] == [review["request"]["name"] for review in hook.asked]


async def test_a_webhook_sees_no_name_where_one_is_generated(api: ApiClient, pods: str, hook: Hook) -> None:
    """With generateName neither request nor object has a name."""
    await hook.register("Fail")
    pod = a_pod()
    pod["metadata"] = {"generateName": "job-"}

    await api.create(pods, pod)

    request = hook.asked[0]["request"]
    assert (False, False) == ("name" in request, "name" in request["object"]["metadata"])


async def test_a_webhooks_patch_and_warnings_arrive(api: ApiClient, pods: str, hook: Hook) -> None:
    """The pod is stored as patched, defaults included, and the client is warned."""
    limits = {"op": "add", "path": "/spec/containers/0/resources/limits", "value": {"nvidia.com/gpumem": "3000"}}
    scheduler = {"op": "replace", "path": "/spec/schedulerName", "value": "hami-scheduler"}
    hook.answer = lambda request: allow(request, patch=[limits, scheduler], warnings=["quota was not asked"])
    await hook.register("Fail")

    made = await api.send("POST", pods, a_pod())

    resources = made.object["spec"]["containers"][0]["resources"]
    assert ("hami-scheduler", "3k") == (
        made.object["spec"]["schedulerName"],
        resources["requests"]["nvidia.com/gpumem"],
    )
    assert '299 - "quota was not asked"' == made.headers["Warning"]


async def test_a_denial_reaches_the_user_in_its_own_words(api: ApiClient, pods: str, hook: Hook) -> None:
    """Code and message of a denial are the webhook's."""
    hook.answer = lambda request: {
        "uid": request["uid"], "allowed": False, "status": {"code": 422, "message": "gpumem is no number"},
    }  # fmt: skip
    await hook.register("Ignore")

    async with refusal(422, f'admission webhook "{hook.name}" denied the request: gpumem is no number'):
        await api.create(pods, a_pod())


@pytest.mark.parametrize("fault", ["code 500", "another uid", "silence"])
@pytest.mark.parametrize("policy", ["Ignore", "Fail"])
async def test_a_failing_webhook_is_passed_over_or_fatal(
    api: ApiClient, pods: str, hook: Hook, *, fault: str, policy: str
) -> None:
    """With failurePolicy Ignore the pod is admitted unchanged, with Fail it is refused with 500."""
    await hook.register(policy)
    if fault == "code 500":
        hook.code = 500
    elif fault == "another uid":
        hook.answer = lambda request: allow({**request, "uid": "other"})
    else:
        hook.hangs.clear()

    if policy == "Ignore":
        await api.create(pods, a_pod())
    else:
        async with refusal(500, f'failed calling webhook "{hook.name}"'):
            await api.create(pods, a_pod())


async def test_a_patch_that_does_not_apply_is_fatal_even_when_ignored(api: ApiClient, pods: str, hook: Hook) -> None:
    """A broken patch refuses the pod whatever the failurePolicy says."""
    broken = [{"op": "replace", "path": "/spec/nowhere/deeper", "value": 1}]
    hook.answer = lambda request: allow(request, patch=broken)
    await hook.register("Ignore")

    async with refusal(500):
        await api.create(pods, a_pod())


# Conditions

ASKS_FOR_DEVICES = (
    "(object.spec.containers + (has(object.spec.initContainers) ? object.spec.initContainers : [])).exists(c, "
    "has(c.resources) && has(c.resources.limits) && c.resources.limits.exists(n, n.startsWith('nvidia.com/')))"
)


async def test_a_webhook_sees_only_pods_that_meet_its_conditions(api: ApiClient, pods: str, hook: Hook) -> None:
    """The condition that our manifests carry: some container, or init container, has a limit of the vendor's."""
    limits = {"nvidia.com/gpu": 1}
    await hook.register("Fail", conditions=[ASKS_FOR_DEVICES], probe=a_pod("probe", limits=limits))
    init = {"name": "init", "image": "busybox", "resources": {"limits": limits}}

    await api.create(pods, a_pod("plain", limits={"cpu": "1"}))
    await api.create(pods, a_pod("device", limits=limits))
    await api.create(pods, a_pod("init", initContainers=[init]))

    assert ["device", "init"] == [review["request"]["name"] for review in hook.asked]


async def test_all_conditions_must_hold(api: ApiClient, namespace: str, pods: str, hook: Hook) -> None:
    """They know the request and the object, and one that says no is enough."""
    conditions = [f'request.namespace == "{namespace}" && oldObject == null', 'object.metadata.name != "spared"']
    await hook.register("Fail", conditions=conditions)

    for name in ("spared", "met"):
        await api.create(pods, a_pod(name))

    assert ["met"] == [review["request"]["name"] for review in hook.asked]


@pytest.mark.parametrize("policy", ["Ignore", "Fail"])
async def test_a_condition_that_cannot_be_evaluated_follows_the_policy(
    api: ApiClient, pods: str, hook: Hook, policy: str
) -> None:
    """A field that is not there: passed over with Ignore, refused with Fail, and the webhook is not asked."""
    probe = a_pod("probe")
    probe["metadata"]["labels"] = {"team": "a"}
    await hook.register(policy, conditions=['object.metadata.labels.team == "a"'], probe=probe)

    if policy == "Ignore":
        await api.create(pods, a_pod())
    else:
        async with refusal(403, "is forbidden"):
            await api.create(pods, a_pod())
    assert [] == hook.asked


@pytest.mark.parametrize("expression", ["object.spec.(", "nobody.knows == 1"])
async def test_a_condition_that_makes_no_sense_is_refused_at_once(hook: Hook, expression: str) -> None:
    """Not when a pod meets it, but when the webhook is configured."""
    async with refusal(422, "webhooks[0].matchConditions[0].expression: Invalid value"):
        await hook.register("Fail", conditions=[expression])
