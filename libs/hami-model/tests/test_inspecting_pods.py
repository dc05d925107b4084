"""The checker finds pods that are stuck, or whose devices nobody accounts for."""

import pytest
from hami_model.objects import Node, Pod
from hami_testkit.builders import a_node, a_pod
from msgspec import structs

from .inspected import NOW, NVIDIA_HOLDS, bound, look, phase, rules, time

NODE = a_node("node-1").with_cards(1).node()
HOLDS = "node-1-0,NVIDIA,10,0:;"
ASKING = a_pod("p").asking(gpu=1)


def scheduled_by(pod: Pod, name: str) -> Pod:
    return structs.replace(pod, spec=structs.replace(pod.spec, scheduler_name=name))


def created(pod: Pod, *, ago: str) -> Pod:
    return structs.replace(pod, metadata=structs.replace(pod.metadata, creation_timestamp=ago))


def test_pods_that_are_well() -> None:
    """Served ones, waiting ones, ended ones, and those without devices."""
    pods = [
        bound(ASKING, holds=HOLDS),
        a_pod("waits").asking(gpu=1).pod(),
        phase(bound(a_pod("over").asking(gpu=1)), "Succeeded"),
        structs.replace(a_pod("plain").asking().pod()),
        bound(a_pod("zero").asking(gpu=0), phase="allocating", ago=999),
    ]

    assert () == look([NODE], pods)


def test_a_bound_pod_that_nobody_serves() -> None:
    """Not at once, but after five minutes."""
    assert () == look([NODE], [bound(ASKING, holds=HOLDS, phase="allocating", ago=299)])
    assert ["unconfirmed"] == rules(look([NODE], [bound(ASKING, holds=HOLDS, phase="allocating", ago=301)]))


def test_a_pod_that_its_plugin_failed() -> None:
    """HAMi's plugin writes so, and nobody in HAMi reads it."""
    assert ["bind-failed"] == rules(look([NODE], [bound(ASKING, holds=HOLDS, phase="failed")]))


@pytest.mark.parametrize("holds", ["", ";", ";;"])
def test_a_bound_pod_of_which_nothing_says_what_it_holds(holds: str) -> None:
    """Somebody wrote its nodeName, or another scheduler bound it."""
    found = look([NODE], [bound(ASKING, holds=holds)])

    assert ["unaccounted"] == rules(found)
    assert "pod team-a/p on node node-1 asks for NVIDIA" in found[0].says


@pytest.mark.parametrize("holds", [
    "rubbish;", "node-1-0,NVIDIA,x,0:;", "node-1-0,NVIDIA,1:;", ",NVIDIA,1,1:;", f"{HOLDS}{HOLDS}",
    "node-1-0,NVIDIA,1,0:node-1-0,NVIDIA,1,0:;", f"node-1-0,NVIDIA,{'9' * 5000},0:;",
])  # fmt: skip
def test_an_allocation_that_cannot_be_read(holds: str) -> None:
    """Or that gives other numbers of cards than are asked for."""
    assert ["allocation-unreadable"] == rules(look([NODE], [bound(ASKING, holds=holds)]))


def test_an_allocation_for_another_node() -> None:
    """The pod was bound past what was decided."""
    pod = bound(ASKING, "node-2", holds=HOLDS)
    here = structs.replace(pod, spec=structs.replace(pod.spec, node_name="node-1"))

    assert ["allocation-elsewhere"] == rules(look([NODE], [here]))


def test_an_allocation_of_what_was_not_asked_for() -> None:
    """A leftover of a copied manifest."""
    pod = bound(ASKING.annotated({"hami.io/cambricon-mlu-devices-allocated": "x,MLU,1,1:;"}), holds=HOLDS)

    assert ["allocation-not-asked"] == rules(look([NODE], [pod]))


def test_annotations_of_a_pod_that_waits_say_nothing() -> None:
    """Anybody may write there."""
    assert () == look([NODE], [ASKING.annotated({NVIDIA_HOLDS: "rubbish"}).pod()])


def test_a_pod_whose_node_is_not_there() -> None:
    """Its card is not there either."""
    assert ["card-unknown", "node-gone"] == rules(look(list[Node](), [bound(ASKING, holds=HOLDS)]))


def test_a_pod_that_another_scheduler_places() -> None:
    """The webhook did not see it, or left it alone."""
    found = look([NODE], [scheduled_by(ASKING.pod(), "default-scheduler")])

    assert ["other-scheduler"] == rules(found)
    assert "goes to scheduler default-scheduler" in found[0].says


def test_a_pod_that_no_scheduler_has_looked_at() -> None:
    """Waiting is no fault, as long as somebody said why."""
    pod = scheduled_by(ASKING.pod(), "hami-scheduler")
    young, old = created(pod, ago="2027-01-15T07:59:00Z"), created(pod, ago="2027-01-15T07:50:00Z")

    assert NOW == 1_800_000_000  # 2027-01-15T08:00:00Z
    assert () == look([NODE], [old])
    assert () == look([NODE], [young], untried=["p"])
    assert ["untried"] == rules(look([NODE], [old], untried=["p"]))


def test_a_time_that_has_not_come_yet() -> None:
    """The clock of whoever wrote it is wrong."""
    assert ["ahead-of-time"] == rules(look([NODE], [bound(ASKING, holds=HOLDS, ago=-61)]))


@pytest.mark.parametrize("written", ["", "yesterday", "0001-01-01T00:00:00", time(10), "٣"])
def test_any_text_for_a_time(written: str) -> None:
    """One that cannot be read is none."""
    pod = bound(ASKING, holds=HOLDS)
    odd = structs.replace(pod, metadata=structs.replace(pod.metadata, annotations={
        **pod.annotations, "hami.io/bind-time": written}))  # fmt: skip

    assert () == look([NODE], [odd])
