"""Reading one pod from the API server, where what we know of it is not enough.

One rule: a pod that is not there is an answer, and no error.
"""

from itertools import count

from hami_kit.errors import KubeNotFound, KubeUnavailable
from hami_model.objects import Pod, PodRef

from hami_allocator.means import Means


async def read(means: Means, pod: PodRef) -> Pod | None:
    """Read the pod of this name, whatever its uid; None where there is none."""
    try:
        return await means.kube.get_pod(pod.namespace, pod.name)
    except KubeNotFound:
        return None


async def read_again(means: Means, pod: PodRef) -> Pod | None:
    """Read the pod, as often as it takes until the API server answers."""
    for attempt in count():
        try:
            return await read(means, pod)
        except KubeUnavailable as error:
            await means.backoff.wait(attempt, asked=error.retry_after)
    raise AssertionError
