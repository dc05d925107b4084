"""Placement by the model alone, against what HAMi 2.10 answered (``vectors/schedule``)."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.compat import rules
from tests.compat.model_cluster import ModelCluster

VENDORS = ("nvidia", "ascend", "cambricon")
PARTITIONED = frozenset(
    {
        "MIG: profiles and placements",
        "MIG: several instances of one card",
        "MIG: whole card, percentages",
        "MIG: A30, two cards, binpack",
        "vgpu-mode selects the kind of card",
        "random 11",
        "random 13",
    }
)
"""NVIDIA cases with MIG instances, which nobody places yet."""


def recorded() -> Iterator[Any]:
    """Walk the recorded cases, each with a name."""
    for vendor in VENDORS:
        for case in rules.cases(f"schedule/{vendor}.json"):
            is_partitioned = vendor == "nvidia" and case["name"] in PARTITIONED
            marks = [pytest.mark.skip(reason="MIG instances are not placed yet")] * is_partitioned
            yield pytest.param(case, id=f"{vendor}: {case['name']}", marks=marks)


@pytest.mark.parametrize("case", list(recorded()))
def test_pods_are_placed_as_hami_placed_them(case: dict[str, Any]) -> None:
    """Step by step the same node, the same cards in the same order, or the very same words why not."""
    cluster = ModelCluster(case)
    for step in case["steps"]:
        play(cluster, step)


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
