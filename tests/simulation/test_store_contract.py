"""The simulated store answers as the API server does: the same short stories, told to both, end alike.

The other side is the stand-in cluster, which the contract tests hold to a real kube-apiserver; with
HAMI_TEST_KUBECONFIG set it is that one itself.
"""

from collections.abc import Callable
from typing import Any

import pytest
from hami_testkit.cluster.client import MERGE, ApiClient
from hami_testkit.cluster.status import ApiError

from tests.integration.contract import a_binding, a_namespace, a_pod, a_server
from tests.simulation.store import Json, Refusal, Store

Step = tuple[str, Callable[[Json], Any]]
"""What is done (bind or patch), and its body, made of the pod's metadata as it was created."""


def bind(node: str = "node-a", **meta: str) -> Step:
    return "bind", lambda made: a_binding("p0", node, **{key: made.get(text, text) for key, text in meta.items()})


def patch(**meta: Any) -> Step:
    return "patch", lambda made: {"metadata": {key: made.get(str(text), text) for key, text in meta.items()}}


STORIES: dict[str, tuple[Step, ...]] = {
    "bound once, with its annotations": (bind(uid="uid", resourceVersion="resourceVersion"), bind()),
    "another uid": (bind(uid="another"),),
    "moved since": (patch(annotations={"a": "1"}), bind(resourceVersion="resourceVersion")),
    "a patch that changes nothing moves nothing": (
        patch(annotations={"b": None}),
        bind(resourceVersion="resourceVersion"),
    ),
    "a patch of another uid": (patch(uid="another", annotations={"a": "1"}),),
    "a patch of an older version": (
        patch(annotations={"a": "1"}),
        patch(annotations={"a": "2"}, resourceVersion="resourceVersion"),
    ),
    "an annotation taken away": (patch(annotations={"a": "1"}), patch(annotations={"a": None})),
}


async def told_to_the_server(api: ApiClient, story: tuple[Step, ...]) -> tuple[list[int], Json]:
    async with a_namespace(api) as namespace:
        path = f"/api/v1/namespaces/{namespace}/pods"
        made = (await api.create(path, a_pod()))["metadata"]
        codes = []
        for what, body in story:
            try:
                if what == "bind":
                    answer = await api.send("POST", f"{path}/p0/binding", body(made))
                else:
                    answer = await api.send("PATCH", f"{path}/p0", body(made), content=MERGE)
            except ApiError as refusal:
                codes.append(refusal.code)
            else:
                codes.append(answer.code)
        return codes, outcome(await api.get(f"{path}/p0"))


def told_to_the_simulation(story: tuple[Step, ...]) -> tuple[list[int], Json]:
    store, key = Store(), ("ns", "p0")
    pod = a_pod() | {"status": {"phase": "Pending"}}
    pod["metadata"] |= {"namespace": "ns", "uid": "uid-1"}
    made = store.create("pods", pod, sender="user")["metadata"]
    codes = []
    for what, body in story:
        try:
            if what == "bind":
                binding = body(made)
                store.bind(key, binding["metadata"], binding["target"]["name"], sender="scheduler")
            else:
                store.patch_meta("pods", key, body(made)["metadata"], sender="user")
        except Refusal as refusal:
            codes.append(refusal.status)
        else:
            codes.append(201 if what == "bind" else 200)
    return codes, outcome(store.get("pods", key))


def outcome(pod: Json) -> Json:
    return {"node": pod["spec"].get("nodeName"), "annotations": pod["metadata"].get("annotations") or {}}


@pytest.mark.parametrize("story", STORIES.values(), ids=STORIES)
async def test_a_story_ends_as_on_the_api_server(story: tuple[Step, ...]) -> None:
    """Same answers, same object."""
    async with a_server() as api:
        real = await told_to_the_server(api, story)

    assert real == told_to_the_simulation(story)
