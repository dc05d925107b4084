"""The one question that admission asks the allocator, and what becomes of its answers."""

from typing import Any

import pytest
from hami_kit.errors import KubeUnavailable
from hami_model.bus.messages import QuotaAllowed, QuotaDenied, QuotaNeed, Refused

GPU = {"nvidia.com/gpu": 2, "nvidia.com/gpumem": 3000, "nvidia.com/gpucores": 10}
UNCHECKED = "the scheduler checks it again"


async def test_the_allocator_is_asked_with_the_pods_needs(alone: Any, a_pod: Any) -> None:
    """Memory in MiB and cores in percent, over all cards, in the pod's namespace."""
    allocator = await alone.serve_quota(QuotaAllowed())

    response = await alone.ask(a_pod(limits=GPU))

    assert response["allowed"]
    assert "warnings" not in response
    assert ["team-a"] == [question.namespace for question in allocator.asked]
    assert [QuotaNeed(vendor="NVIDIA", memory=6000, cores=20)] == allocator.asked[0].needs


async def test_a_pod_that_names_no_namespace_is_asked_about_in_the_requests(alone: Any, a_pod: Any) -> None:
    """kubectl leaves the namespace to the request."""
    allocator = await alone.serve_quota(QuotaAllowed())
    pod = a_pod(limits=GPU)
    del pod["metadata"]["namespace"]

    await alone.ask(pod, namespace="team-b")

    assert ["team-b"] == [question.namespace for question in allocator.asked]


async def test_a_pod_without_devices_asks_nothing(alone: Any, a_pod: Any) -> None:
    """With the bus down it is admitted without a word."""
    alone.bus.cut()

    assert {"uid": "r-1", "allowed": True, "status": {"code": 200}} == await alone.ask(a_pod())


async def test_a_pod_beyond_its_quota_is_denied_with_the_numbers(alone: Any, a_pod: Any) -> None:
    """HAMi's words first, then which quota, used, limit, asked and the way out."""
    await alone.serve_quota(QuotaDenied(resource="nvidia.com/gpumem", used=5000, limit=8000, wanted=6000))

    response = await alone.ask(a_pod(limits=GPU))

    expected = (
        "exceeding resource quota: namespace team-a uses 5000 of 8000 nvidia.com/gpumem, the pod asks for 6000: "
        "ask for less or raise the quota"
    )
    assert not response["allowed"]
    assert {"code": 403, "reason": "Forbidden", "message": expected} == response["status"]


async def test_a_denial_keeps_its_warnings(alone: Any, a_pod: Any) -> None:
    """What was odd about the pod is told even when it is denied for something else."""
    await alone.serve_quota(QuotaDenied(resource="nvidia.com/gpumem", used=0, limit=1, wanted=6000))

    response = await alone.ask(a_pod(limits={**GPU, "nvidia.com/gpumem-percentage": 50}))

    assert not response["allowed"]
    assert [
        "container main sets both nvidia.com/gpumem and nvidia.com/gpumem-percentage: nvidia.com/gpumem wins"
    ] == response["warnings"]


async def test_with_nobody_to_ask_the_pod_is_admitted_with_a_warning(alone: Any, a_pod: Any, changes: Any) -> None:
    """An allocator that is away keeps no pod from being created; filter checks the quota."""
    response = await alone.ask(a_pod(limits=GPU))

    assert response["allowed"]
    assert {"/spec/schedulerName": "hami-scheduler"} == changes(response)
    (warning,) = response["warnings"]
    assert UNCHECKED in warning


async def test_with_the_bus_down_the_pod_is_admitted_with_a_warning(alone: Any, a_pod: Any) -> None:
    """No connection is no reason to refuse."""
    alone.bus.cut()

    response = await alone.ask(a_pod(limits=GPU))

    assert response["allowed"]
    assert UNCHECKED in response["warnings"][0]


@pytest.mark.parametrize(
    "answer",
    [Refused(error="no allocator leads yet", retriable=True), KubeUnavailable("the API server is away")],
    ids=["refused", "failed"],
)
async def test_an_allocator_that_cannot_say_leaves_a_warning(alone: Any, a_pod: Any, answer: Any) -> None:
    """Its own sentence is part of the warning."""
    await alone.serve_quota(answer)

    response = await alone.ask(a_pod(limits=GPU))

    assert response["allowed"]
    (warning,) = response["warnings"]
    assert UNCHECKED in warning
    assert (answer.error if isinstance(answer, Refused) else str(answer)) in warning
