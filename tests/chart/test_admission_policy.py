"""Who may write what says which cards a pod holds: the chart's ValidatingAdmissionPolicy, expression by expression."""

from typing import Any

import cel
import pytest

from tests.chart.rendering import Json, render

ALLOCATOR = "system:serviceaccount:kube-system:hami-allocator"
PLUGIN = "system:serviceaccount:kube-system:ascend-device-plugin"
SOMEBODY = "system:serviceaccount:team:builder"
DEVICES = "hami.io/vgpu-devices-allocated"


def refusals(
    user: str, *, before: dict[str, str] | None = None, after: dict[str, str] | None = None, line: str = ""
) -> list[str]:
    """Return why the policy refuses a write, evaluated as the API server would; ``before``: None for a new object."""
    spec: Json = render(*filter(None, [line])).one("ValidatingAdmissionPolicy", "hami-allocations")["spec"]
    namespace = user.split(":")[2] if user.startswith("system:serviceaccount:") else ""
    groups = ["system:authenticated", *([f"system:serviceaccounts:{namespace}"] if namespace else [])]
    groups += ["system:nodes"] if user.startswith("system:node:") else []
    known: Json = {
        "request": {"userInfo": {"username": user, "groups": groups}},
        "object": _with(after),
        "oldObject": None if before is None else _with(before),
        "variables": {},
    }
    if not all(cel.evaluate(condition["expression"], known) for condition in spec["matchConditions"]):
        return []
    for variable in spec["variables"]:
        known["variables"][variable["name"]] = cel.evaluate(variable["expression"], known)
    broken = [rule for rule in spec["validations"] if not cel.evaluate(rule["expression"], known)]
    return [str(cel.evaluate(rule["messageExpression"], known)) for rule in broken]


def _with(annotations: dict[str, str] | None) -> Json:
    return {"metadata": {"annotations": annotations} if annotations else {}}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({}, {DEVICES: "GPU-1,NVIDIA,1000,10:;"}),
        ({DEVICES: "GPU-1,NVIDIA,1000,10:;"}, {DEVICES: "GPU-1,NVIDIA,1,1:;"}),
        ({DEVICES: "GPU-1,NVIDIA,1000,10:;"}, {}),
        (None, {"hami.io/vgpu-node": "n1"}),
        ({}, {"hami.io/Ascend910B3-devices-allocated": "x"}),
        ({"hami.io/allocator-term": "a.1"}, {"hami.io/allocator-term": "b.1"}),
    ],
    ids=["adds", "lowers", "removes", "at creation", "another vendor", "the fence"],
)
@pytest.mark.parametrize("user", [SOMEBODY, PLUGIN, "system:node:n1", "admin"])
def test_only_the_allocator_decides(user: str, before: dict[str, str] | None, after: dict[str, str]) -> None:
    """Nobody else adds, changes or removes what a pod holds, device plugins included."""
    (why,) = refusals(user, before=before, after=after)

    assert "only the allocator decides which cards a pod holds: leave the annotation hami.io/" in why


def test_the_allocator_writes_all_of_it() -> None:
    """A Binding carries every annotation at once."""
    written: dict[str, Any] = {DEVICES: "x", "hami.io/bind-phase": "allocating", "hami.io/vgpu-node": "n1"}

    assert [] == refusals(ALLOCATOR, after=written)


@pytest.mark.parametrize("user", [PLUGIN, "system:node:n1"])
def test_device_plugins_confirm(user: str) -> None:
    """Accounts of kube-system, and whoever asks as the node, empty the list and say success."""
    before = {DEVICES: "x", "hami.io/vgpu-devices-to-allocate": "x", "hami.io/bind-phase": "allocating"}
    after = {DEVICES: "x", "hami.io/vgpu-devices-to-allocate": ";", "hami.io/bind-phase": "success"}

    assert [] == refusals(user, before=before, after=after)


def test_nobody_else_confirms() -> None:
    """Unless the admin names the plugin's account."""
    before, after = {"hami.io/bind-phase": "allocating"}, {"hami.io/bind-phase": "success"}
    (why,) = refusals(SOMEBODY, before=before, after=after)

    assert f"name the plugin {SOMEBODY} in admissionPolicy.devicePlugins" in why
    named = f"admissionPolicy.devicePlugins={{{SOMEBODY}}}"
    assert [] == refusals(SOMEBODY, before=before, after=after, line=named)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({DEVICES: "x"}, {DEVICES: "x", "team": "ml"}),
        ({}, {"hami.io/gpu-scheduler-policy": "binpack", "nvidia.com/use-gputype": "A100"}),
        (None, {}),
    ],
    ids=["the rest of a pod that holds cards", "what users ask by", "a pod without annotations"],
)
def test_everything_else_is_as_before(before: dict[str, str] | None, after: dict[str, str]) -> None:
    """Users write what they always wrote."""
    assert [] == refusals(SOMEBODY, before=before, after=after)
