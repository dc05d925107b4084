"""Changes as JSON patch: minimal, and blind to what it does not know."""

from typing import Any

import pytest
from hami_model.patch import json_patch
from hami_model.vendor import Change

POD: dict[str, Any] = {
    "metadata": {"name": "p", "annotations": {"a/b~c": "kept"}},
    "spec": {
        "futureField": {"kept": [1, {"deep": None}]},
        "initContainers": [{"name": "i0"}],
        "containers": [
            {"name": "c0", "resources": {"limits": {"x.io/gpu": "5k"}}, "env": [{"name": "A", "value": "1"}]},
            {"name": "c1", "resources": {"limits": None, "requests": {"x.io/gpu": "16Ki"}}, "env": None},
        ],
    },
}


@pytest.mark.parametrize(
    ("change", "operations"),
    [
        (Change(scheduler="hami"), [{"op": "add", "path": "/spec/schedulerName", "value": "hami"}]),
        (Change(runtime_class="nvidia"), [{"op": "add", "path": "/spec/runtimeClassName", "value": "nvidia"}]),
        (Change(annotation=("hami.io/traceparent", "00-1")),
         [{"op": "add", "path": "/metadata/annotations/hami.io~1traceparent", "value": "00-1"}]),
        (Change(annotation=("a/b~c", "new")),
         [{"op": "replace", "path": "/metadata/annotations/a~1b~0c", "value": "new"}]),
        (Change(container="c0", limit=("x.io/gpu", "5000")), []),
        (Change(container="c1", request=("x.io/gpu", "16384")),
         [{"op": "replace", "path": "/spec/containers/1/resources/requests/x.io~1gpu", "value": "16384"}]),
        (Change(container="c0", limit=("x.io/gpu", "6k")),
         [{"op": "replace", "path": "/spec/containers/0/resources/limits/x.io~1gpu", "value": "6k"}]),
        (Change(container="c0", request=("x.io/gpu", "1")),
         [{"op": "add", "path": "/spec/containers/0/resources/requests", "value": {"x.io/gpu": "1"}}]),
        (Change(container="c1", limit=("x.io/gpu", "1")),
         [{"op": "replace", "path": "/spec/containers/1/resources/limits", "value": {"x.io/gpu": "1"}}]),
        (Change(container="i0", limit=("x.io/gpu", "1")),
         [{"op": "add", "path": "/spec/initContainers/0/resources", "value": {"limits": {"x.io/gpu": "1"}}}]),
        (Change(container="c0", env=("B", "2")),
         [{"op": "add", "path": "/spec/containers/0/env/-", "value": {"name": "B", "value": "2"}}]),
        (Change(container="c0", env=("A", "1")), []),
        (Change(container="c0", env=("A", "2")),
         [{"op": "replace", "path": "/spec/containers/0/env/0/value", "value": "2"}]),
        (Change(container="c1", env=("B", "2")),
         [{"op": "replace", "path": "/spec/containers/1/env", "value": [{"name": "B", "value": "2"}]}]),
        (Change(container="elsewhere", env=("B", "2")), []),
    ],
)  # fmt: skip
def test_a_change_names_only_what_differs(change: Change, operations: list[dict[str, Any]]) -> None:
    """Every other field of the pod, also one that we never heard of, is left to itself."""
    assert operations == json_patch(POD, [change])


def test_an_annotation_on_a_pod_without_any_makes_the_map() -> None:
    """The webhook adds the traceparent to whatever pod it takes over."""
    change = Change(annotation=("hami.io/traceparent", "00-1"))

    assert [{"op": "add", "path": "/metadata/annotations", "value": {"hami.io/traceparent": "00-1"}}] == json_patch(
        {"metadata": {"generateName": "p-"}, "spec": {}}, [change]
    )


def test_the_runtime_class_of_the_pod_stays() -> None:
    """A user who names a runtime class knows why, and the first vendor's wish wins over the second's."""
    pod = {"metadata": {}, "spec": {"runtimeClassName": "kata"}}

    assert [] == json_patch(pod, [Change(runtime_class="nvidia")])
    assert [{"op": "add", "path": "/spec/runtimeClassName", "value": "nvidia"}] == json_patch(
        {"metadata": {}, "spec": {}}, [Change(runtime_class="nvidia"), Change(runtime_class="ascend")]
    )


def test_a_variable_from_elsewhere_is_replaced_by_the_value() -> None:
    """``valueFrom`` beside ``value`` would be refused by the API server; the last namesake is the one that counts."""
    source = {"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}
    pod = {"spec": {"containers": [{"name": "c0", "env": [{"name": "A", "value": "0"}, source]}]}}

    assert [
        {"op": "remove", "path": "/spec/containers/0/env/1/valueFrom"},
        {"op": "add", "path": "/spec/containers/0/env/1/value", "value": "1"},
    ] == json_patch(pod, [Change(container="c0", env=("A", "1"))])
