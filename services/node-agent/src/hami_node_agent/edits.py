"""What a container gets with its cards, as one value: whoever speaks to a kubelet or a runtime encodes it.

One rule: it is made in one place (``limits.py``) and knows no protocol; ``plugin.py`` encodes it for device plugins.
"""

from msgspec import Struct, field


class Mount(Struct, frozen=True):
    """One bind mount."""

    container_path: str
    host_path: str
    read_only: bool = False


class DeviceNode(Struct, frozen=True):
    """One device node, readable and writable."""

    container_path: str
    host_path: str


class Edits(Struct, frozen=True, kw_only=True):
    """The whole answer to one container."""

    env: dict[str, str] = field(default_factory=dict)
    mounts: tuple[Mount, ...] = ()
    devices: tuple[DeviceNode, ...] = ()
    annotations: dict[str, str] = field(default_factory=dict)
    """For the container runtime; the pod's own stay as they are."""
    cdi: tuple[str, ...] = ()
    """Fully qualified CDI names, such as ``nvidia.com/gpu=GPU-…``."""
