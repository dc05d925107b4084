"""What nodes give out, and pods as the model reads them.

One rule: what a node gives is the truth by which the allocator is judged.
"""

import msgspec
from hami_model.allocation import ContainerGrants
from hami_model.objects import Pod
from hami_model.vendor import Vendor
from msgspec import Struct

from tests.simulation.store import Json


class Given(Struct, frozen=True):
    """What a node gave a pod, or why it did not."""

    grants: frozenset[tuple[str, str, int, int]] = frozenset()
    whose: str = ""
    """The uid of the pod that the plugin took it for."""
    refused: str = ""


def grants_of(containers: tuple[ContainerGrants, ...], *words: str) -> frozenset[tuple[str, str, int, int]]:
    """Return what containers are given, of these vendors or of all, comparable."""
    return frozenset(
        (c.name, g.uuid, g.memory, g.cores) for c in containers for g in c.grants if not words or g.vendor in words
    )


def pod_of(obj: Json) -> Pod:
    """Return the pod as the model reads it."""
    return msgspec.convert(obj, Pod)


def asks_of(pod: Pod, vendor: Vendor) -> bool:
    """Say whether a pod asks for a vendor's devices."""
    return any(vendor.resources.count in (c.resources.limits or {}) for c in pod.containers if c.resources is not None)
