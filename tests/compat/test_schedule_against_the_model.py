"""Placement by the model alone, against what HAMi 2.10 answered (``vectors/schedule``)."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.compat import answers, rules
from tests.compat.model_cluster import ModelCluster


def placements() -> Iterator[Any]:
    """Walk the recorded cases, each with a name."""
    for vendor, case in answers.recorded("schedule"):
        yield pytest.param(case, id=f"{vendor}: {case['name']}")


WEAKNESSES = answers.known_weaknesses("schedule")
DIFFERENT = {(vendor, name): told for vendor, ours in answers.ALL.items() for name, told in ours.placed.items()}
SAME = {(vendor, name) for vendor, ours in answers.ALL.items() for name in ours.placed_alike}


@pytest.mark.parametrize("case", list(placements()))
def test_pods_are_placed_as_hami_placed_them(case: dict[str, Any]) -> None:
    """Step by step the same node, the same cards in the same order, or the very same words why not."""
    cluster = ModelCluster(case)
    for step in case["steps"]:
        play(cluster, step)


@pytest.mark.parametrize("case", sorted(DIFFERENT), ids=": ".join)
def test_a_known_weakness_is_answered_so(case: tuple[str, str]) -> None:
    """Where HAMi's answer is a known weakness ours is another (docs/reference/differences-from-hami.md)."""
    recorded = WEAKNESSES[case]
    cluster = ModelCluster(recorded)
    for step in recorded["steps"]:
        if "pod" not in step:
            play(cluster, step)
            continue
        actual = cluster.filter(step["pod"], step["nodes"])
        if not is_same(step["expect"], actual):
            assert DIFFERENT[case].items() <= flat(actual).items()
            return
        go_on(cluster, step["pod"]["metadata"]["name"], step["expect"], step["then"])
    raise AssertionError("every step is answered as HAMi did: the case belongs to SAME")


@pytest.mark.parametrize("case", sorted(SAME), ids=": ".join)
def test_a_weakness_elsewhere_does_not_change_placing(case: tuple[str, str]) -> None:
    """These cases are answered as HAMi did."""
    recorded = WEAKNESSES[case]
    cluster = ModelCluster(recorded)
    for step in recorded["steps"]:
        play(cluster, step)


def test_every_recorded_difference_is_decided() -> None:
    """No known weakness is left without an answer of ours."""
    assert WEAKNESSES.keys() == DIFFERENT.keys() | SAME


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
