"""The trace of a pod begins at admission, while traces are exported."""

import re
from typing import Any

from hami_model.bus.messages import QuotaAllowed

GPU = {"nvidia.com/gpu": 1, "nvidia.com/gpumem": 3000}
KEY = "hami.io/traceparent"
AT = "/metadata/annotations/hami.io~1traceparent"
WRITTEN = re.compile(r"00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")


async def test_a_device_pod_gets_its_trace_while_traces_are_exported(start: Any, a_pod: Any, changes: Any) -> None:
    """The annotation is a W3C traceparent."""
    async with start(exports=True) as api:
        await api.serve_quota(QuotaAllowed())
        written = changes(await api.ask(a_pod(limits=GPU, annotations={"a": "b"})))

    assert WRITTEN.fullmatch(written[AT])


async def test_a_users_own_trace_is_overwritten(start: Any, a_pod: Any, changes: Any) -> None:
    """A pod copied with its annotations must not join the trace of its original."""
    copied = "00-" + "1" * 32 + "-" + "2" * 16 + "-01"
    async with start(exports=True) as api:
        await api.serve_quota(QuotaAllowed())
        written = changes(await api.ask(a_pod(limits=GPU, annotations={KEY: copied})))[AT]

    assert WRITTEN.fullmatch(written)
    assert copied != written


async def test_two_pods_have_two_traces(start: Any, a_pod: Any, changes: Any) -> None:
    """Each review is the root of a trace."""
    async with start(exports=True) as api:
        await api.serve_quota(QuotaAllowed())
        one, two = [changes(await api.ask(a_pod(limits=GPU, annotations={"a": "b"})))[AT] for _ in range(2)]

    assert one[:35] != two[:35]


async def test_a_pod_without_devices_gets_no_trace(start: Any, a_pod: Any) -> None:
    """We leave no mark on what is none of our business."""
    async with start(exports=True) as api:
        assert "patch" not in await api.ask(a_pod())


async def test_without_traces_nothing_is_written(api: Any, a_pod: Any, changes: Any) -> None:
    """No annotation names a trace that nobody receives; a user's own stays."""
    assert {"/spec/schedulerName": "hami-scheduler"} == changes(await api.ask(a_pod(limits=GPU)))
    mine = {KEY: "00-" + "1" * 32 + "-" + "2" * 16 + "-01"}
    assert {"/spec/schedulerName": "hami-scheduler"} == changes(await api.ask(a_pod(limits=GPU, annotations=mine)))
