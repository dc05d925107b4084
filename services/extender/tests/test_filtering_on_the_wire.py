"""``/filter``: kube-scheduler's wire form, whatever comes in and whatever the allocator says."""

import json
from typing import Any

import pytest
from hami_extender import protocol
from hami_kit.errors import KubeUnavailable
from hami_model.bus.messages import NoDevices, Placed, Refused, Simulated, Unplaced

GPU = {"nvidia.com/gpu": 1, "nvidia.com/gpumem": 3000}
FIELDS = ["Nodes", "NodeNames", "FailedNodes", "FailedAndUnresolvableNodes", "Error"]
BAD_BODIES = {
    "empty": b"",
    "cut short": b'{"Pod": {"metadata": ',
    "a list": b"[]",
    "null": b"null",
    "no text": b'{"\xff": 1}',
    "nested without end": b'{"x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
}
BAD_PODS = {
    "a text": b'"p"',
    "a container that is null": b'{"spec": {"containers": [null]}}',
    "a name that is no text": b'{"metadata": {"name": "\xff"}}',
    "a number beyond all": b'{"spec": {"containers": [{"resources": {"limits": {"nvidia.com/gpu": 1e999}}}]}}',
}


def result(**fields: Any) -> dict[str, Any]:
    """Return an ExtenderFilterResult with these fields and nothing else."""
    return {**dict.fromkeys(FIELDS), "Error": "", **fields}


async def test_a_placed_pod_gets_its_one_node(scheduler: Any, a_pod: Any) -> None:
    """The allocator is asked about the pod and the names as they came; its node is the whole answer."""
    allocator = await scheduler.serve(filter=Placed(node="b"))

    answer = await scheduler.filter(Pod=a_pod(GPU), Nodes=None, NodeNames=["a", "b", "c"])

    assert result(NodeNames=["b"]) == answer
    assert FIELDS == list(answer)
    (question,) = allocator.asked
    assert ("u-1", ["a", "b", "c"]) == (question.pod.metadata.uid, question.nodes)


@pytest.mark.parametrize("spell", [str.lower, str.upper, str.title], ids=["lower", "upper", "title"])
async def test_names_are_read_in_any_case(scheduler: Any, a_pod: Any, spell: Any) -> None:
    """Go folds the case of field names, and so do we."""
    await scheduler.serve(filter=Placed(node="b"))

    assert result(NodeNames=["b"]) == await scheduler.filter(**{spell("Pod"): a_pod(GPU), spell("NodeNames"): ["b"]})


async def test_each_refusing_node_says_why(scheduler: Any, a_pod: Any) -> None:
    """Texts come with positions and are laid out by name; no node is offered back."""
    reasons = {"node unregistered": [2], "1/1 CardInsufficientMemory": [0, 1]}
    await scheduler.serve(filter=Unplaced(reasons=reasons))

    answer = await scheduler.filter(Pod=a_pod(GPU), NodeNames=["a", "b", "c"])

    few = "1/1 CardInsufficientMemory"
    assert result(FailedNodes={"a": few, "b": few, "c": "node unregistered"}) == answer


async def test_a_pod_without_devices_passes_with_the_bus_down(scheduler: Any, a_pod: Any) -> None:
    """Whoever needs nothing of ours waits for nothing of ours."""
    scheduler.bus.cut()

    assert result(NodeNames=["a", "b"]) == await scheduler.filter(Pod=a_pod(), NodeNames=["a", "b"])
    assert result(NodeNames=["a"]) == await scheduler.filter(Pod=a_pod({"cpu": "2"}), NodeNames=["a"])
    assert result() == await scheduler.filter(Pod=a_pod(), Nodes={"items": [{"metadata": {"name": "a"}}]})


async def test_what_the_allocator_sees_no_devices_in_passes(scheduler: Any, a_pod: Any) -> None:
    """An allocator with another device config has the last word."""
    await scheduler.serve(filter=NoDevices(), simulate=NoDevices())

    assert result(NodeNames=["a"]) == await scheduler.filter(Pod=a_pod(GPU), NodeNames=["a"])


async def test_whole_nodes_are_a_what_if(scheduler: Any, a_pod: Any) -> None:
    """Autoscalers send Node objects: nothing is booked, and the chosen object comes back as it came."""
    offered = [
        {"metadata": {"name": name}, "spec": {"fieldOfTomorrow": [1, {"x": None}]}, "status": {}} for name in "ab"
    ]
    allocator = await scheduler.serve(simulate=Simulated(node="b", failed={"a": "node unregistered"}))

    answer = await scheduler.filter(Pod=a_pod(GPU), Nodes={"metadata": {}, "items": offered}, NodeNames=None)

    chosen = {"metadata": {}, "items": [offered[1]]}
    assert result(Nodes=chosen, FailedNodes={"a": "node unregistered"}) == answer
    assert ["a", "b"] == [node.metadata.name for node in allocator.asked[0].nodes]


async def test_a_what_if_without_a_node_offers_none(scheduler: Any, a_pod: Any) -> None:
    """An empty list of nodes is not null: nobody takes the pod."""
    await scheduler.serve(simulate=Simulated(node=None, failed={"a": "node unregistered"}))

    answer = await scheduler.filter(Pod=a_pod(GPU), Nodes={"items": [{"metadata": {"name": "a"}}]})

    assert result(Nodes={"metadata": {}, "items": []}, FailedNodes={"a": "node unregistered"}) == answer


@pytest.mark.parametrize("body", BAD_BODIES.values(), ids=BAD_BODIES)
async def test_a_malformed_body_is_an_error_of_200(scheduler: Any, a_pod: Any, body: bytes) -> None:
    """HAMi v2.10: Error is set, all else null; the next pod is placed as ever."""
    await scheduler.serve(filter=Placed(node="a"))

    answer = await scheduler.post("/filter", body)

    assert answer["Error"].startswith("the request body is no JSON object: ")
    assert result(Error=answer["Error"]) == answer
    assert result(NodeNames=["a"]) == await scheduler.filter(Pod=a_pod(GPU), NodeNames=["a"])


@pytest.mark.parametrize("body", [b"{}", b'{"Pod": null}', b'{"NodeNames": ["a"]}'])
async def test_without_a_pod_there_is_nothing_to_filter(scheduler: Any, body: bytes) -> None:
    """HAMi's words."""
    assert result(Error="extender args missing pod") == await scheduler.post("/filter", body)


@pytest.mark.parametrize("written", BAD_PODS.values(), ids=BAD_PODS)
async def test_a_pod_that_cannot_be_read_is_an_error(scheduler: Any, a_pod: Any, written: bytes) -> None:
    """The sentence comes from where it cannot be read; the next pod is placed as ever."""
    await scheduler.serve(filter=Placed(node="a"))

    answer = await scheduler.post("/filter", b'{"NodeNames": ["a"], "Pod": ' + written + b"}")

    assert answer["Error"].startswith("the extender args cannot be read: ")
    assert result(Error=answer["Error"]) == answer
    assert result(NodeNames=["a"]) == await scheduler.filter(Pod=a_pod(GPU), NodeNames=["a"])


async def test_filter_calls_are_counted_by_their_outcome(scheduler: Any, a_pod: Any) -> None:
    """What is malformed, and what nobody answered, shows on a dashboard."""
    await scheduler.filter(Pod=a_pod(GPU), NodeNames=["a"])
    await scheduler.serve(filter=Unplaced(reasons={"node unregistered": [0]}))
    await scheduler.filter(Pod=a_pod(GPU), NodeNames=["a"])
    await scheduler.filter(Pod=a_pod(), NodeNames=["a"])
    await scheduler.filter(Pod=a_pod({"nvidia.com/gpu": "-1"}), NodeNames=["a"])
    await scheduler.post("/filter", b"[]")

    counted = {outcome: scheduler.counted("filter", outcome) for outcome in OUTCOMES}
    assert {"placed": 0, "unplaced": 1, "passed": 1, "refused": 1, "malformed": 1, "unanswered": 1} == counted


OUTCOMES = ("placed", "unplaced", "passed", "refused", "malformed", "unanswered")
BAD_NODES: dict[str, Any] = {
    "NodeNames": {"NodeNames": "a"},
    "NodeNames: Expected `str`, got `int` - at `$[0]`": {"NodeNames": [1]},
    "Nodes": {"Nodes": []},
    "Nodes.items[1]": {"Nodes": {"items": [{"metadata": {"name": "a"}}, None]}},
}


@pytest.mark.parametrize(("field", "args"), BAD_NODES.items(), ids=BAD_NODES)
async def test_nodes_that_cannot_be_read_are_an_error(scheduler: Any, a_pod: Any, field: str, args: Any) -> None:
    """Neither names nor objects of a wrong type get any further; the sentence names the field."""
    answer = await scheduler.filter(Pod=a_pod(GPU), **args)

    assert answer["Error"].startswith(f"the extender args cannot be read: {field}")


async def test_a_body_without_end_is_not_read(scheduler: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody fills the extender's memory; the sentence says the limit."""
    monkeypatch.setattr(protocol, "MAX_BODY", 100)

    answer = await scheduler.post("/filter", b" " * 101)

    assert result(Error="the request body has more than the 100 bytes that are read") == answer


async def test_a_limit_that_cannot_be_meant_is_an_error(scheduler: Any, a_pod: Any) -> None:
    """Field, value, container and the way out, without asking the allocator."""
    answer = await scheduler.filter(Pod=a_pod({"nvidia.com/gpu": 1, "nvidia.com/gpumem": "16Gi"}), NodeNames=["a"])

    expected = "nvidia.com/gpumem 16Gi in container main is too much: nvidia.com/gpumem counts MiB: write 16384"
    assert result(Error=expected) == answer


async def test_an_allocator_that_refuses_says_why(scheduler: Any, a_pod: Any) -> None:
    """Its sentence is the whole error."""
    refused = Refused(error="no allocator leads yet", retriable=True)
    await scheduler.serve(filter=refused, simulate=refused)

    assert result(Error="no allocator leads yet") == await scheduler.filter(Pod=a_pod(GPU), NodeNames=["a"])
    nodes = {"items": [{"metadata": {"name": "a"}}]}
    assert result(Error="no allocator leads yet") == await scheduler.filter(Pod=a_pod(GPU), Nodes=nodes)


async def test_an_allocator_that_fails_is_an_error(scheduler: Any, a_pod: Any) -> None:
    """A failure over there is a sentence here, and nothing worse."""
    await scheduler.serve(filter=KubeUnavailable("the API server is away"))

    answer = await scheduler.filter(Pod=a_pod(GPU), NodeNames=["a"])

    assert "the API server is away" in answer["Error"]
    assert result(Error=answer["Error"]) == answer


async def test_nobody_to_ask_is_an_error_that_the_scheduler_retries(scheduler: Any, a_pod: Any) -> None:
    """An Error sends the pod back into the queue; FailedNodes would start a preemption."""
    unserved = await scheduler.filter(Pod=a_pod(GPU), NodeNames=["a"])
    scheduler.bus.cut()
    cut = await scheduler.filter(Pod=a_pod(GPU), NodeNames=["a"])

    for answer in (unserved, cut):
        assert answer["Error"].startswith("the allocator did not answer: ")
        assert result(Error=answer["Error"]) == answer


async def test_only_post_is_served(scheduler: Any) -> None:
    """A GET gets 405, another path 404."""
    assert 405 == (await scheduler.http.get("/filter")).status_code
    assert 405 == (await scheduler.http.get("/bind")).status_code
    assert 404 == (await scheduler.http.post("/prioritize", content=json.dumps({}))).status_code
