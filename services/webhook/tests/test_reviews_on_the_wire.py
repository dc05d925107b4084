"""AdmissionReview in, AdmissionReview out: what the API server sees of every outcome."""

import base64
import json
from typing import Any

import pytest
from hami_webhook.review import MAX_BODY

HAMI = "hami-scheduler"
BAD_BODIES = {
    "empty": b"",
    "cut short": b'{"apiVersion": "admission.k8s.io/v1", "kind": "Adm',
    "no object": b"[]",
    "null": b"null",
    "bytes that are no text": b'{"kind": "\xff"}',
    "nested without end": b'{"x": ' + b"[" * 100_000,
    "a field of a wrong type": b'{"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": 7}',
}
NOT_PODS = {
    "null": b"null",
    "a list": b"[]",
    "containers of a wrong type": b'{"spec": {"containers": "many"}}',
    "a container that is null": b'{"spec": {"containers": [null]}}',
    "bytes that are no text": b'{"metadata": {"name": "\xff"}}',
    "half a surrogate pair": b'{"metadata": {"name": "\\ud800"}}',
    "a number beyond all": b'{"spec": {"containers": [{"resources": {"limits": {"nvidia.com/gpu": 1e999}}}]}}',
    "nested without end": b'{"x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
}


@pytest.mark.parametrize("version", ["v1", "v1beta1"])
async def test_the_answer_is_in_the_version_of_the_question(api: Any, a_pod: Any, version: str) -> None:
    """Both versions are read; the answer carries the question's version, kind and uid."""
    answer = await api.review(a_pod(limits={"nvidia.com/gpu": 1}), version=version)

    assert f"admission.k8s.io/{version}" == answer["apiVersion"]
    assert "AdmissionReview" == answer["kind"]
    assert ("r-1", True) == (answer["response"]["uid"], answer["response"]["allowed"])


async def test_a_device_pod_gets_a_json_patch(api: Any, a_pod: Any) -> None:
    """The patch is base64 of a JSON patch, and names our scheduler."""
    response = (await api.review(a_pod(limits={"nvidia.com/gpu": 1})))["response"]

    assert "JSONPatch" == response["patchType"]
    patch = json.loads(base64.b64decode(response["patch"]))
    assert {"op": "add", "path": "/spec/schedulerName", "value": HAMI} in patch
    assert {"code": 200} == response["status"]


async def test_what_we_do_not_know_of_a_pod_survives(api: Any, a_pod: Any, changes: Any) -> None:
    """The patch touches only what admission changes, never a field of tomorrow's Kubernetes."""
    pod = a_pod(limits={"nvidia.com/gpu": 1, "nvidia.com/gpumem": 3000}, fieldOfTomorrow={"x": [1]})

    assert {"/spec/schedulerName": HAMI} == changes(await api.ask(pod))


async def test_without_a_change_there_is_no_patch(api: Any, a_pod: Any) -> None:
    """A pod without devices passes; patch and patchType are absent."""
    assert {"uid": "r-1", "allowed": True, "status": {"code": 200}} == await api.ask(a_pod())


async def test_reviews_are_counted_by_their_outcome(api: Any, a_pod: Any) -> None:
    """A cluster whose manifests are refused, or whose API server sends nonsense, shows on a dashboard."""
    await api.ask(a_pod(limits={"nvidia.com/gpu": 1}))
    await api.ask(a_pod())
    await api.ask(a_pod(limits={"nvidia.com/gpu": "-1"}))
    await api.post(b"[]")
    await api.review(None)

    assert [1, 1, 1, 2] == [api.counted(outcome) for outcome in ("admitted", "skipped", "denied", "malformed")]


NOT_OURS: dict[str, Any] = {
    "UPDATE of Pod": {"operation": "UPDATE"},
    "DELETE of Pod": {"operation": "DELETE", "object": None},
    "CREATE of Deployment": {"kind": {"group": "apps", "version": "v1", "kind": "Deployment"}, "object": {"spec": {}}},
    "CREATE of Pod/ephemeralcontainers": {"subResource": "ephemeralcontainers"},
}


@pytest.mark.parametrize(("what", "facts"), NOT_OURS.items(), ids=NOT_OURS)
async def test_only_the_creation_of_pods_is_looked_at(api: Any, a_pod: Any, what: str, facts: Any) -> None:
    """A configuration that sends more than it should stops nobody: a pod's limits are decided when it is made."""
    kind = {"group": "", "version": "v1", "kind": "Pod"}
    request = {"uid": "r-1", "operation": "CREATE", "kind": kind, "object": a_pod(limits={"nvidia.com/gpu": "-1"})}
    review = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {**request, **facts}}

    response = (await api.post(json.dumps(review).encode()))["response"]

    message = f"only the creation of pods is looked at, this is {what}"
    assert {"uid": "r-1", "allowed": True, "status": {"code": 200, "message": message}} == response


async def test_another_scheduler_is_left_alone(api: Any, a_pod: Any) -> None:
    """A pod of another scheduler passes untouched, and the message says so."""
    response = await api.ask(a_pod(limits={"nvidia.com/gpu": 1}, schedulerName="other"))

    assert {"code": 200, "message": "pod already has different scheduler assigned"} == response["status"]
    assert "patch" not in response


async def test_the_default_scheduler_is_replaced_only_where_that_is_wished(start: Any, a_pod: Any) -> None:
    """With HAMI_FORCE_OVERWRITE_DEFAULT_SCHEDULER off, default-scheduler counts as another one."""
    async with start(force=False) as api:
        response = await api.ask(a_pod(limits={"nvidia.com/gpu": 1}, schedulerName="default-scheduler"))

    assert "pod already has different scheduler assigned" == response["status"]["message"]


async def test_a_denial_is_forbidden_and_says_the_way_out(api: Any, a_pod: Any) -> None:
    """403 with reason Forbidden; the sentence begins with HAMi's words."""
    response = await api.ask(a_pod(limits={"nvidia.com/gpu": 1}, nodeName="gpu-a"))

    expected = "pod has node assigned: remove spec.nodeName, only the scheduler can give it devices"
    assert not response["allowed"]
    assert {"code": 403, "reason": "Forbidden", "message": expected} == response["status"]


async def test_a_vendors_refusal_is_an_error_of_500(api: Any, a_pod: Any) -> None:
    """HAMi compat: what a vendor's own check refuses has code 500 and no reason."""
    response = await api.ask(a_pod(limits={"nvidia.com/gpu": 1, "nvidia.com/gpumem-percentage": 200}))

    assert not response["allowed"]
    assert {"code", "message"} == set(response["status"])
    assert 500 == response["status"]["code"]
    assert "nvidia.com/gpumem-percentage value 200 in container main" in response["status"]["message"]


async def test_a_body_beyond_seven_mib_is_not_read(api: Any) -> None:
    """413 inside the review, with both numbers."""
    answer = await api.post(b" " * (MAX_BODY + 1))

    assert {"uid": "", "allowed": False} == {key: answer["response"][key] for key in ("uid", "allowed")}
    status = answer["response"]["status"]
    assert 413 == status["code"]
    assert f"has more than the {MAX_BODY} bytes that are read" in status["message"]


async def test_a_body_of_seven_mib_is_read(api: Any, a_pod: Any) -> None:
    """The limit itself is still allowed."""
    request = {"uid": "r-1", "object": a_pod()}
    review = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}

    answer = await api.post(json.dumps(review).encode().ljust(MAX_BODY))

    assert answer["response"]["allowed"]


@pytest.mark.parametrize("content_type", ["text/plain", "application/yaml", "application/json; charset=utf-8", ""])
async def test_another_content_type_is_not_read(api: Any, content_type: str) -> None:
    """400 inside the review; as HAMi, the type must be exactly application/json."""
    answer = await api.post(b"{}", content_type)

    expected = f"contentType={content_type}, expected application/json"
    assert {"code": 400, "message": expected} == answer["response"]["status"]


@pytest.mark.parametrize("body", BAD_BODIES.values(), ids=BAD_BODIES)
async def test_what_is_no_review_is_refused(api: Any, a_pod: Any, body: bytes) -> None:
    """400 inside the answer, which has neither version nor kind; the next pod is admitted as ever."""
    answer = await api.post(body)

    assert {"response"} == set(answer)
    assert ("", False) == (answer["response"]["uid"], answer["response"]["allowed"])
    assert 400 == answer["response"]["status"]["code"]
    assert answer["response"]["status"]["message"].startswith("the body is no AdmissionReview: ")
    assert (await api.ask(a_pod(limits={"nvidia.com/gpu": 1})))["allowed"]


@pytest.mark.parametrize(
    ("version", "kind"), [("admission.k8s.io/v2", "AdmissionReview"), ("v1", "Pod"), ("", "")], ids=str
)
async def test_another_kind_of_object_is_refused(api: Any, version: str, kind: str) -> None:
    """The sentence says what came and what is expected."""
    answer = await api.post(json.dumps({"apiVersion": version, "kind": kind}).encode())

    assert 400 == answer["response"]["status"]["code"]
    expected = (
        f"the body is '{version}/{kind}', expected AdmissionReview of admission.k8s.io/v1 or admission.k8s.io/v1beta1"
    )
    assert expected == answer["response"]["status"]["message"]


async def test_a_review_without_a_request_is_refused(api: Any) -> None:
    """There is nothing to decide about."""
    answer = await api.post(b'{"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview"}')

    assert {"code": 400, "message": "the AdmissionReview has no request"} == answer["response"]["status"]


@pytest.mark.parametrize("written", NOT_PODS.values(), ids=NOT_PODS)
async def test_an_object_that_is_no_pod_is_refused(api: Any, a_pod: Any, written: bytes) -> None:
    """400 with a sentence; the next pod is admitted as ever."""
    head = b'{"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {"uid": "r-1", "object": '

    answer = await api.post(head + written + b"}}")

    assert not answer["response"]["allowed"]
    assert 400 == answer["response"]["status"]["code"]
    assert answer["response"]["status"]["message"].startswith(("the object is no pod: ", "the body is no Admission"))
    assert (await api.ask(a_pod(limits={"nvidia.com/gpu": 1})))["allowed"]


async def test_a_pod_that_cannot_be_read_is_refused_by_its_uid(api: Any) -> None:
    """The review itself could be read, so the answer carries its uid, version and kind."""
    answer = await api.review({"spec": {"containers": "many"}})

    assert ("admission.k8s.io/v1", "AdmissionReview") == (answer["apiVersion"], answer["kind"])
    expected = "the object is no pod: Expected `array | null`, got `str` - at `$.spec.containers`"
    assert "r-1" == answer["response"]["uid"]
    assert {"code": 400, "message": expected} == answer["response"]["status"]


async def test_only_post_is_served(api: Any) -> None:
    """A GET gets 405, another path 404."""
    assert 405 == (await api.http.get("/webhook")).status_code
    assert 404 == (await api.http.post("/validate")).status_code
