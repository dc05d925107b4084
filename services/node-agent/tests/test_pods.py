"""What is known of the node's pods, and what the kubelet remembers of them."""

import asyncio
import json
from pathlib import Path

from hami_model.allocation import Allocation, ContainerGrants, Grant
from hami_model.bus.messages import PushAllocation, Withdraw
from hami_model.errors import MalformedAllocation
from hami_model.objects import Meta, Pod, PodRef, PodSpec, PodStatus
from hami_model.request import Role
from hami_node_agent.kubelet import read_checkpoint
from hami_node_agent.pods import FRESH, REMEMBERED, NodePods
from hami_testkit.clock import FakeClock


def a_pod(name: str, *, uid: str = "", node: str = "n1", phase: str = "Running") -> Pod:
    return Pod(
        metadata=Meta(name=name, namespace="default", uid=uid or f"uid-{name}"),
        spec=PodSpec(node_name=node),
        status=PodStatus(phase=phase),
    )


def an_allocation(pod: Pod, card: str = "GPU-a", *, node: str = "n1") -> Allocation:
    grants = (Grant(uuid=card, vendor="NVIDIA", memory=1, cores=0),)
    return Allocation(
        pod=PodRef.of(pod), node=node, containers=(ContainerGrants(name="c", role=Role.APP, grants=grants),)
    )


def test_a_pod_that_a_list_lacks_is_over_and_still_known() -> None:
    """A list replaces what was known; the kubelet may ask for a pod that was deleted before its admission."""
    pods = NodePods("n1", lambda _: None)
    pods.replace([a_pod("x"), a_pod("y")])
    pods.replace([a_pod("y")])

    assert (pods.is_over("uid-x"), pods.is_over("uid-y")) == (True, False)
    assert pods.get("uid-x") == a_pod("x")


def test_a_pod_that_a_list_has_and_we_cannot_read_stays_as_it_was() -> None:
    """What is there and unreadable is not gone: its devices are not free."""
    pods = NodePods("n1", lambda _: None)
    pods.replace([a_pod("x")])
    pods.replace([], unread={"uid-x"})

    assert not pods.is_over("uid-x")
    assert pods.get("uid-x") == a_pod("x")


def test_a_pod_of_another_life_is_over_only_where_the_list_lacks_it() -> None:
    """At start the table names pods that no watch has shown us."""
    pods = NodePods("n1", lambda _: None)
    pods.replace([a_pod("x")])
    pods.miss([PodRef("default", "x", "uid-x"), PodRef("default", "old", "uid-old")])

    assert (pods.is_over("uid-x"), pods.is_over("uid-old")) == (False, True)


def test_a_pod_never_heard_of_is_not_over() -> None:
    """Its push came before our watch: nothing of it may be freed."""
    assert not NodePods("n1", lambda _: None).is_over("uid-new")


def test_an_ended_pod_is_over_though_the_api_server_has_it() -> None:
    """Succeeded and Failed are for good."""
    pods = NodePods("n1", lambda _: None)
    pods.see(a_pod("x", phase="Succeeded"))

    assert pods.is_over("uid-x")


def test_a_late_answer_does_not_bring_a_deleted_pod_back() -> None:
    """A read that was sent before the deletion is answered after it."""
    pods = NodePods("n1", lambda _: None)
    pods.lose(a_pod("x"))
    pods.read(a_pod("x"))

    assert not pods.is_live("uid-x")


def test_a_pod_bound_elsewhere_is_none_of_ours() -> None:
    """A namesake that was read is bound to another node."""
    pods = NodePods("n1", lambda _: None)
    pods.read(a_pod("x", node="n2"))

    assert pods.live == ()


def test_of_namesakes_the_living_come_first() -> None:
    """The older one was deleted; its name lives on."""
    pods = NodePods("n1", lambda _: None)
    pods.lose(a_pod("db-0", uid="old"))
    pods.see(a_pod("db-0", uid="new"))

    assert [pod.metadata.uid for pod in pods.named("default", "db-0")] == ["new", "old"]


def test_a_push_for_another_node_is_not_kept() -> None:
    """Whatever subject it came on."""
    pods = NodePods("n1", lambda _: None)
    pods.push(PushAllocation(allocation=an_allocation(a_pod("x"), node="n2"), term="t"))

    assert pods.pushed == ()


def test_a_push_is_used_until_it_is_withdrawn() -> None:
    """The binding could not be written."""
    pods = NodePods("n1", lambda _: None)
    ref = PodRef.of(a_pod("x"))
    pods.push(PushAllocation(allocation=an_allocation(a_pod("x")), term="t", traceparent="00-1"))
    before = pods.allocation(ref), pods.pushed_trace(ref.uid)
    pods.withdraw(Withdraw(pod=ref, node="n1"))

    assert before == (an_allocation(a_pod("x")), "00-1")
    assert (pods.allocation(ref), pods.pushed_trace(ref.uid)) == (None, "")


def test_what_an_earlier_leader_pushed_is_void() -> None:
    """Its Binding may never have landed; one that slept may still push, and is heard only if it leads again."""
    pods, x, y = NodePods("n1", lambda _: None), a_pod("x"), a_pod("y")
    pods.push(PushAllocation(allocation=an_allocation(x, "GPU-a"), term="first"))
    pods.led_by("second")
    after_the_announcement = pods.allocation(PodRef.of(x))
    pods.push(PushAllocation(allocation=an_allocation(x, "GPU-b"), term="second"))
    pods.push(PushAllocation(allocation=an_allocation(x, "GPU-a"), term="first"))
    after_a_late_push = pods.allocation(PodRef.of(x))
    pods.led_by("first")
    pods.push(PushAllocation(allocation=an_allocation(y), term="first"))

    assert (after_the_announcement, after_a_late_push) == (None, an_allocation(x, "GPU-b"))
    assert pods.allocation(PodRef.of(y)) == an_allocation(y)


def test_a_push_is_believed_for_a_moment() -> None:
    """Cut off from the bus, we hear neither of the next leader nor what it pushes: then the stored pod is read."""
    clock, x = FakeClock(), a_pod("x")
    pods = NodePods("n1", lambda _: None, clock=clock)
    pods.push(PushAllocation(allocation=an_allocation(x), term="t"))
    clock.advance(FRESH - 0.1)
    soon = pods.allocation(PodRef.of(x)), pods.pushed
    clock.suspend(0.2)

    assert soon == (an_allocation(x), (an_allocation(x),))
    assert (pods.allocation(PodRef.of(x)), pods.pushed) == (None, ())


def test_an_unreadable_annotation_leaves_what_was_pushed() -> None:
    """Somebody scribbled over the pod's annotations."""

    def unreadable(pod: Pod) -> Allocation | None:
        raise MalformedAllocation("not a device")

    pods = NodePods("n1", unreadable)
    pods.see(a_pod("x"))
    pods.push(PushAllocation(allocation=an_allocation(a_pod("x")), term="t"))

    assert pods.allocation(PodRef.of(a_pod("x"))) == an_allocation(a_pod("x"))


def test_memory_is_bounded() -> None:
    """A node sees thousands of pods in its life."""
    pods = NodePods("n1", lambda _: None)
    for i in range(2 * REMEMBERED):
        pods.lose(a_pod(f"p{i}"))
        pods.push(PushAllocation(allocation=an_allocation(a_pod(f"q{i}")), term="t"))

    assert len(pods.pushed) == REMEMBERED
    assert pods.get("uid-p0") is None


async def test_whoever_waits_hears_of_the_next_news() -> None:
    """And gets nothing when the time is over."""
    pods = NodePods("n1", lambda _: None)
    waiting = asyncio.create_task(pods.wait_for(lambda: pods.get("uid-x"), 5))
    await asyncio.sleep(0)
    pods.see(a_pod("x"))

    assert await waiting == a_pod("x")
    assert await pods.wait_for(lambda: pods.get("uid-y"), 0.01) is None


def test_the_kubelets_checkpoint_is_read_as_far_as_it_concerns_us(tmp_path: Path) -> None:
    """IDs of every NUMA node; other resources and a file that cannot be read are left alone."""
    entries = [
        {
            "PodUID": "u",
            "ContainerName": "c",
            "ResourceName": "nvidia.com/gpu",
            "DeviceIDs": {"-1": ["a"], "0": ["b"]},
            "AllocResp": "CgA=",
        },
        {"PodUID": "u", "ContainerName": "c", "ResourceName": "example.com/nic", "DeviceIDs": {"-1": ["n"]}},
    ]
    file = tmp_path / "kubelet_internal_checkpoint"
    file.write_text(json.dumps({"Data": {"PodDeviceEntries": entries}, "Checksum": 1}))

    read = read_checkpoint(tmp_path, ["nvidia.com/gpu"])
    file.write_text("{")

    assert [(e.pod_uid, e.container_name, e.ids) for e in read] == [("u", "c", ("a", "b"))]
    assert read_checkpoint(tmp_path, ["nvidia.com/gpu"]) == ()
