"""Placement by the model alone, against what HAMi 2.10 answered (``vectors/schedule``)."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.compat import rules
from tests.compat.model_cluster import ModelCluster

VENDORS = ("nvidia", "ascend", "cambricon")


def recorded() -> Iterator[Any]:
    """Walk the recorded cases, each with a name."""
    for vendor in VENDORS:
        for case in rules.cases(f"schedule/{vendor}.json"):
            is_partitioned = vendor == "nvidia" and case["name"] in rules.PARTITIONED
            marks = [pytest.mark.skip(reason="MIG instances are not placed yet")] * is_partitioned
            yield pytest.param(case, id=f"{vendor}: {case['name']}", marks=marks)


NVIDIA = "hami.io/vgpu-devices-allocated"
ASCEND_B3 = "hami.io/Ascend910B3-devices-allocated"
DIFFERENT: dict[str, dict[str, Any]] = {
    "positions: [none, gpu]": {NVIDIA: ";GPU-node-1-1,NVIDIA,3000,30:;"},
    "positions: [gpu, none, gpu]": {NVIDIA: "GPU-node-1-1,NVIDIA,1000,10:;;GPU-node-1-0,NVIDIA,2000,10:;"},
    "positions: [init none, gpu]": {NVIDIA: ";GPU-node-1-1,NVIDIA,3000,30:;"},
    "positions: usage of an app container filed as init disappears when init containers end": {
        NVIDIA: ";GPU-node-1-0,NVIDIA,40960,100:;"
    },
    "restartable init container (sidecar)": {"node-1": "1/1 CardInsufficientMemory"},
    "topology-aware with numa-bind keeps only the last NUMA group": {
        NVIDIA: "GPU-node-1-3,NVIDIA,24564,100:GPU-node-1-2,NVIDIA,24564,100:;"
    },
    "MIG: init container and app container share a card": {"node-1": "1/1 CardMigTopologyInfeasible"},
    "a failed bind keeps its reservation": {NVIDIA: "GPU-node-1-0,NVIDIA,22107,1:;"},
    "suffixed memory is not read": {
        "error": "nvidia.com/gpumem 16Gi in container c0 is too much: nvidia.com/gpumem counts MiB: write 16384"
    },
    "sixteen cards": {NVIDIA: "".join(f"GPU-node-1-{at},NVIDIA,2000,20:" for at in (11, 10, 9, 8, 7, 6, 5, 4)) + ";"},
    "910 family: network score between nodes, spread": {
        ASCEND_B3: "".join(f"Ascend910B3-node-2-{at},Ascend910B3,65536,0:" for at in (3, 2, 1, 0)) + ";"
    },
    "910B4 requests see 910B4-1 cards": {"node-1": "NodeInsufficientDevice"},
    "capacity that is no multiple of 100 cores": {"node-1": "NodeInsufficientDevice"},
}
"""Known weaknesses of HAMi where we answer otherwise: our answer at the first step that differs."""
SAME = frozenset(
    {
        "only the init container asks",  # the node lock that HAMi leaves out is the allocator's
        "MIG: whole card",
        "config: defaultMemory alone makes a bare card exclusive",  # at admission, which these steps have behind them
        "memoryFactor on trimmed memory",  # likewise
        "910C: one card with a slice",
        "hard split does not count AI cores and AI CPUs",
        "type annotations are not read",  # admission warns
    }
)
"""Known weaknesses that do not show in placing, or that are kept."""


@pytest.mark.parametrize("case", list(recorded()))
def test_pods_are_placed_as_hami_placed_them(case: dict[str, Any]) -> None:
    """Step by step the same node, the same cards in the same order, or the very same words why not."""
    cluster = ModelCluster(case)
    for step in case["steps"]:
        play(cluster, step)


def known_weaknesses() -> dict[str, dict[str, Any]]:
    """Return the recorded cases in which HAMi's answer is a known weakness, by name."""
    return {case["name"]: case for vendor in VENDORS for case in rules.cases(f"differences/schedule-{vendor}.json")}


@pytest.mark.parametrize("name", sorted(DIFFERENT))
def test_a_known_weakness_is_answered_so(name: str) -> None:
    """Where HAMi's answer is a known weakness ours is another (docs/reference/differences-from-hami.md)."""
    case = known_weaknesses()[name]
    cluster = ModelCluster(case)
    for step in case["steps"]:
        if "pod" not in step:
            play(cluster, step)
            continue
        actual = cluster.filter(step["pod"], step["nodes"])
        if not is_same(step["expect"], actual):
            assert DIFFERENT[name].items() <= flat(actual).items()
            return
        go_on(cluster, step["pod"]["metadata"]["name"], step["expect"], step["then"])
    raise AssertionError("every step is answered as HAMi did: the case belongs to SAME")


@pytest.mark.parametrize("name", sorted(SAME))
def test_a_weakness_elsewhere_does_not_change_placing(name: str) -> None:
    """These cases are answered as HAMi did."""
    case = known_weaknesses()[name]
    cluster = ModelCluster(case)
    for step in case["steps"]:
        play(cluster, step)


def test_every_recorded_difference_is_decided() -> None:
    """No known weakness is left without an answer of ours."""
    assert known_weaknesses().keys() == DIFFERENT.keys() | SAME


def is_same(expected: dict[str, Any], actual: dict[str, Any]) -> bool:
    """Say whether an answer is as recorded."""
    try:
        compare(expected, actual)
    except AssertionError:
        return False
    return True


def flat(actual: dict[str, Any]) -> dict[str, Any]:
    """Return an answer's words and annotations side by side."""
    return {**actual.get("failed_nodes", {}), **actual.get("annotations", {}), "error": actual.get("error")}


def play(cluster: ModelCluster, step: dict[str, Any]) -> None:
    """Do one step and compare its answer, as far as the model gives one."""
    match step:
        case {"pod": pod, "nodes": nodes, "expect": expected, "then": then}:
            compare(expected, cluster.filter(pod, nodes))
            go_on(cluster, pod["metadata"]["name"], expected, then)
        case {"delete": name} | {"finish": name}:
            cluster.end(name)
        case {"init_done": name}:
            cluster.finish_init(name)
        case {"confirm": name}:
            cluster.confirm(name)
        case {"quota": quota}:
            cluster.limit(quota)
        case {"simulate": pod, "with": nodes, "expect": expected}:
            actual = cluster.simulate(pod, nodes)

            assert expected["nodes"] == actual["nodes"]
            assert expected.get("failed_nodes", {}) == actual.get("failed_nodes", {})
        case {"admit": _}:
            pass  # admission has a test of its own
        case _:
            raise ValueError(f"unknown step {sorted(step)}")


def go_on(cluster: ModelCluster, name: str, expected: dict[str, Any], then: str) -> None:
    """Bring the pod where the recording brings it after the filter call."""
    if expected.get("bind", {}).get("error") or then == "left":
        cluster.end(name)
        return
    if name not in cluster.pods:
        return
    cluster.bind(name)
    if then != "bound-unconfirmed":
        cluster.confirm(name)
    if then == "deleted":
        cluster.end(name)


def compare(expected: dict[str, Any], actual: dict[str, Any]) -> None:
    """Compare one answer by the rules of ``vectors/README.md``."""
    assert expected.get("failed_nodes", {}) == actual.get("failed_nodes", {})
    assert expected.get("node") == actual.get("node")
    assert expected.get("passthrough", False) == actual.get("passthrough", False)
    assert actual.get("error", "").startswith(expected.get("error") or "")
    assert bool(expected.get("error")) == ("error" in actual)
    if "annotations" in expected and actual.get("node"):
        wanted, got = rules.comparable_annotations(expected["annotations"], actual["annotations"])

        assert wanted == got
