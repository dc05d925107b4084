"""What an API server refuses that a careless writer may send, one behaviour per test.

The stand-in answers by default; with HAMI_TEST_KUBECONFIG set, the same tests ask the real server it leads to.
"""

from typing import Any

import pytest
from hami_testkit.cluster.client import JSON_PATCH, MERGE, STRATEGIC, ApiClient

from tests.integration.contract import CORE, HOOKS, Json, a_binding, a_pod, refusal


def a_container(name: str = "main", **more: Any) -> Json:
    return {"name": name, "image": "busybox", **more}


@pytest.mark.parametrize(
    "body",
    [
        [1],
        "pod",
        {"metadata": {"name": "p0"}, "spec": {"containers": "main"}},
        {"metadata": {"name": "p0"}, "spec": {"containers": [a_container(resources={"limits": ["1"]})]}},
        {"metadata": {"name": "p0"}, "spec": {"containers": [a_container(resources={"limits": {"cpu": True}})]}},
        {**a_pod(), "metadata": {"name": "p0", "annotations": {"number": 1}}},
        {**a_pod(), "kind": "Node", "apiVersion": "v1"},
        {**a_pod(), "kind": "Pod", "apiVersion": "v2"},
    ],
)
async def test_what_is_no_pod_is_a_bad_request(api: ApiClient, pods: str, body: Any) -> None:
    """Another kind, or a value of a type that a pod cannot have there, is refused before anything reads it."""
    async with refusal(400):
        await api.create(pods, body)


@pytest.mark.parametrize(
    ("containers", "text"),
    [
        ([], "spec.containers: Required value"),
        ([{"image": "busybox"}], "spec.containers[0].name: Required value"),
        ([a_container("Main_1")], 'spec.containers[0].name: Invalid value: "Main_1"'),
        ([a_container(), a_container()], 'spec.containers[1].name: Duplicate value: "main"'),
        ([a_container(resources={"limits": {"nvidia.com/gpu": -1}})], "must be greater than or equal to 0"),
        ([a_container(resources={"limits": {"nvidia.com/gpumem": "1000000000000000000000000000000"}})], "an integer"),
        (
            [a_container(resources={"limits": {"cpu": 1}, "requests": {"cpu": 2}})],
            "less than or equal to cpu limit of 1",
        ),
    ],
)
async def test_a_pod_must_make_sense(api: ApiClient, pods: str, containers: list[Json], text: str) -> None:
    """Each fault is named with its field and what is wrong."""
    async with refusal(422, text):
        await api.create(pods, {"metadata": {"name": "p0"}, "spec": {"containers": containers}})


async def test_a_label_has_a_narrow_alphabet(api: ApiClient, pods: str) -> None:
    """A label's value is refused where an annotation's would not be."""
    async with refusal(422, 'metadata.labels: Invalid value: "two words"'):
        await api.create(pods, {**a_pod(), "metadata": {"name": "p0", "labels": {"a": "two words"}}})
    await api.create(pods, {**a_pod(), "metadata": {"name": "p0", "annotations": {"a": "two words"}}})


@pytest.mark.parametrize(("content", "change"), [(JSON_PATCH, {"a": 1}), (MERGE, ["a"]), (STRATEGIC, ["a"])])
async def test_a_patch_has_the_form_of_its_kind(api: ApiClient, pods: str, content: str, change: Any) -> None:
    """A JSON patch is a list, the others are objects."""
    await api.create(pods, a_pod())

    async with refusal(400):
        await api.patch(f"{pods}/p0", change, content=content)


async def test_a_patch_may_not_break_a_type(api: ApiClient, pods: str) -> None:
    """A number where the object holds text is refused as invalid."""
    await api.create(pods, a_pod())

    async with refusal(422):
        await api.patch(f"{pods}/p0", {"metadata": {"annotations": {"number": 1}}})


async def test_a_replacement_names_what_it_replaces(api: ApiClient, pods: str) -> None:
    """Without a name, or with another, it is a bad request."""
    pod = await api.create(pods, a_pod())

    for meta in ({}, {"name": "p1"}):
        async with refusal(400, "the name of the object"):
            await api.replace(f"{pods}/p0", {**pod, "metadata": meta})


async def test_a_binding_names_its_pod(api: ApiClient, pods: str) -> None:
    """The name in the URL is not enough; and a binding can only be made, not read."""
    await api.create(pods, a_pod())

    async with refusal(400, "name in URL does not match name in Binding object"):
        await api.create(f"{pods}/p0/binding", {"target": a_binding()["target"]})
    async with refusal(405):
        await api.get(f"{pods}/p0/binding")


async def test_a_dry_run_of_another_kind_is_refused(api: ApiClient, pods: str) -> None:
    """Only All is known, and nothing is written."""
    async with refusal(422, "supported values"):
        await api.create(pods, a_pod(), query={"dryRun": "Some"})
    async with refusal(404):
        await api.get(f"{pods}/p0")


@pytest.mark.parametrize(
    "query",
    [
        {"labelSelector": "a in ("},
        {"labelSelector": "=x"},
        {"labelSelector": "a=b=c"},
        {"fieldSelector": "spec.nodeName"},
        {"limit": "few"},
        {"watch": "true", "timeoutSeconds": "soon"},
        {"watch": "true", "fieldSelector": "spec.mood=good"},
    ],
)
async def test_a_question_that_cannot_be_read_is_a_bad_request(api: ApiClient, pods: str, query: Json) -> None:
    """Lists and watches answer 400 instead of guessing."""
    async with refusal(400):
        await api.get(pods, query=query)


async def test_an_event_stands_in_the_namespace_of_its_object(api: ApiClient, namespace: str) -> None:
    """An event about what lives elsewhere is refused; one about a node stands in default."""
    about = {"involvedObject": {"kind": "Pod", "name": "p0", "namespace": "default"}, "reason": "R", "message": "m"}
    async with refusal(422, "does not match event.namespace"):
        await api.create(f"{CORE}/namespaces/{namespace}/events", {"metadata": {"name": "e"}, **about})

    about["involvedObject"] = {"kind": "Node", "name": "node-a"}
    async with refusal(422, "does not match event.namespace"):
        await api.create(f"{CORE}/namespaces/{namespace}/events", {"metadata": {"name": "e"}, **about})
    await api.create(f"{CORE}/namespaces/default/events", {"metadata": {"name": namespace}, **about})
    await api.delete(f"{CORE}/namespaces/default/events/{namespace}")


async def test_a_webhook_must_be_reachable(api: ApiClient, namespace: str) -> None:
    """A configuration that says neither where nor how is refused, each fault by its field."""
    async with refusal(422, "webhooks[0].clientConfig: Required value: exactly one of url or service is required"):
        await api.create(HOOKS, {"metadata": {"name": namespace}, "webhooks": [{"name": "a.contract.hami.io"}]})
