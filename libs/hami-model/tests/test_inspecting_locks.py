"""The checker finds node locks that were left behind."""

from datetime import UTC, datetime

import pytest
from hami_model.objects import Node, Pod
from hami_testkit.builders import a_node, a_pod
from msgspec import structs

from .inspected import MLU_HOLDS, NOW, bound, look, phase, rules

MUTEX, DSMLU = "hami.io/mutex.lock", "cambricon.com/dsmlu.lock"
MLU_CARD = "node-1-cambricon-mlu-0,MLU,256,5:;"


def locked(key: str = MUTEX, *, ago: float = 10, owner: str = ",team-a,p") -> Node:
    stamp = datetime.fromtimestamp(NOW - ago, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    built = a_node("node-1").with_cards(1).with_cards(1, vendor="MLU", memory=16384, slots=100)
    return built.annotated({key: stamp + owner}).node()


def waiting(name: str = "p") -> Pod:
    return bound(a_pod(name).asking(gpu=1), holds="node-1-0,NVIDIA,10,0:;", phase="allocating")


def test_a_lock_whose_pod_is_about_to_be_served() -> None:
    """Bound here, or on its way."""
    assert () == look([locked()], [waiting()])
    assert () == look([locked()], [a_pod("p").asking(gpu=1).pod()])


def test_a_lock_whose_pod_needs_it_no_more() -> None:
    """Gone, ended, served, or running elsewhere."""
    served = bound(a_pod("p").asking(gpu=1), holds="node-1-0,NVIDIA,10,0:;")
    elsewhere = bound(a_pod("p").asking(gpu=1), "node-2", holds="node-2-0,NVIDIA,10,0:;")
    there = a_node("node-2").with_cards(1).node()

    assert ["lock-left"] == rules(look([locked()]))
    assert ["lock-left"] == rules(look([locked()], [phase(waiting(), "Failed")]))
    assert ["lock-left"] == rules(look([locked()], [served]))
    assert ["lock-left"] == rules(look([locked(), there], [elsewhere]))


def test_a_lock_whose_pod_is_not_bound_for_long() -> None:
    """A bind takes half a minute at most."""
    assert ["lock-left"] == rules(look([locked(ago=61)], [a_pod("p").asking(gpu=1).pod()]))


def test_a_lock_that_stands_too_long() -> None:
    """After five minutes it counts for nothing."""
    pod = waiting()
    young = structs.replace(pod, metadata=structs.replace(pod.metadata, annotations={
        **pod.annotations, "hami.io/bind-time": str(int(NOW))}))  # fmt: skip

    assert ["lock-old"] == rules(look([locked(ago=301)], [young]))


@pytest.mark.parametrize(
    "text", ["", "now", "2026-01-01T00:00:00", "2026-01-01T00:00:00Z,team-a", "2026-01-01T00:00:00Z,a,b,c"]
)
def test_a_lock_that_cannot_be_read(text: str) -> None:
    """HAMi would fail every bind on that node."""
    node = a_node("node-1").annotated({MUTEX: text}).node()

    assert ["lock-unreadable"] == rules(look([node]))


def test_a_lock_from_the_future() -> None:
    """It would stand for longer than anybody meant."""
    assert ["ahead-of-time"] == rules(look([locked(ago=-61)], [waiting()]))


def test_a_lock_without_an_owner() -> None:
    """It is left behind when nobody there waits to be served; who is on the way counts for a minute."""
    asking = a_pod("p").asking(mlu=1)
    served = bound(asking, holds=MLU_CARD, key=MLU_HOLDS)
    unserved = bound(asking, holds=MLU_CARD, key=MLU_HOLDS, phase="allocating")
    lock = locked(DSMLU, owner="")

    assert () == look([lock], [unserved])
    assert () == look([lock], [asking.pod()])
    assert ["lock-left"] == rules(look([lock], [served]))
    assert ["lock-left"] == rules(look([locked(DSMLU, owner="", ago=61)], [served, a_pod("q").asking(mlu=1).pod()]))


def test_a_lock_of_another_vendor() -> None:
    """A pod that waits for a GPU does not need the lock of the MLUs."""
    assert ["lock-left"] == rules(look([locked(DSMLU, owner="")], [waiting()]))


def test_a_lock_that_its_plugin_has_answered() -> None:
    """Cambricon's own word for served."""
    served = bound(a_pod("p").asking(mlu=1).annotated({"CAMBRICON_DSMLU_ASSIGNED": "true"}), holds=MLU_CARD,
                   key=MLU_HOLDS, phase="allocating")  # fmt: skip

    assert ["lock-left"] == rules(look([locked(DSMLU)], [served]))
