"""The pod annotations that all vendors share, by name."""

from hami_model.objects import Pod

NODE = "hami.io/vgpu-node"
TIME = "hami.io/vgpu-time"
BIND_PHASE = "hami.io/bind-phase"
BIND_TIME = "hami.io/bind-time"
ALLOCATING = "allocating"
SUCCESS = "success"


def is_allocating(pod: Pod) -> bool:
    """Say whether whoever bound the pod wrote that a plugin is to serve it next: ``hami.io/bind-phase: allocating``."""
    return pod.annotations.get(BIND_PHASE) == ALLOCATING


def is_served(pod: Pod) -> bool:
    """Say whether a device plugin has marked the pod as served: ``hami.io/bind-phase: success``."""
    return pod.annotations.get(BIND_PHASE) == SUCCESS
