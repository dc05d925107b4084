"""Binding a pod that asks for no device: the scheduler has us bind those too, where it cannot tell them apart.

One rule: nothing is booked for such a pod, so whatever becomes of a lost answer does no harm; it is tried again with
the pod as it is then, within the bind's time.
"""

import asyncio
from itertools import count

from hami_kit.errors import KubeConflict, KubeError, KubeUnavailable
from hami_model.bus.messages import BindAnswer, Done, Refused
from hami_model.objects import Pod, PodRef

from hami_allocator.means import Means
from hami_allocator.rereading import read_again


async def bind_plainly(means: Means, pod: PodRef, node: str, seen: Pod, *, deadline: float) -> BindAnswer:
    """Bind the pod and say how it ended; ``deadline`` is in the loop's time."""
    try:
        async with asyncio.timeout_at(deadline):
            return await _bind_until_settled(means, pod, node, seen)
    except (KubeError, TimeoutError) as error:
        why = str(error) or f"the bind took more than {means.bind_timeout:g} s"
        return Refused(error=why, retriable=True)


async def _bind_until_settled(means: Means, pod: PodRef, node: str, seen: Pod) -> BindAnswer:
    for attempt in count():
        version = seen.metadata.resource_version
        try:
            await means.kube.bind_pod(pod, node, resource_version=version, annotations={})
        except (KubeConflict, KubeUnavailable) as error:
            fresh = await read_again(means, pod)
            if fresh is None or fresh.metadata.uid != pod.uid:
                return Refused(error=str(error))
            if fresh.spec.node_name:
                return Done() if fresh.spec.node_name == node else Refused(error=str(error))
            seen = fresh
            await means.backoff.wait(attempt, asked=error.retry_after)
        else:
            return Done()
    raise AssertionError
