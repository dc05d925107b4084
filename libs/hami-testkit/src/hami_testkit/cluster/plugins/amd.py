"""A stand-in for HAMi's AMD device plugin: ten pods a card, memory and compute units limited by the environment.

It does what the real one does, its flaw included: it looks for all of a pod's devices where it should look for any, so
the pod is served after its first container, and a second one that asks finds no pod. Which compute units a container
gets is not modelled; how many is in the annotation.
"""

from hami_kit.kubelet import deviceplugin_v1beta1_pb2 as dp

from hami_testkit.cluster.client import ApiClient
from hami_testkit.cluster.plugins.plugin import files
from hami_testkit.cluster.plugins.registered import Brand, Granted, RegisteredPlugin
from hami_testkit.cluster.status import Json

MEMORY, UNITS, SLOTS = 196288, 304, 10
"""MiB, compute units and pods of a card."""
MODEL = "AMD Instinct MI300X VF"
LIBRARY = "/usr/local/vgpu/libamvgpu.so"


def amd_plugin(
    api: ApiClient, node: str, cards: int, *, memory: int = MEMORY, units: int = UNITS, model: str = MODEL
) -> RegisteredPlugin:
    """Return the plugin of one node, whose cards are alike."""
    alike: Json = {"count": SLOTS, "devmem": memory, "devcore": units, "type": model, "health": True}
    listed = [{"id": f"{node}~0000%3A{25 + at:02x}%3A00.0", "index": at, **alike} for at in range(cards)]
    return RegisteredPlugin(api, node, _BRAND, listed)


def _answer(granted: list[Granted]) -> dp.ContainerAllocateResponse:
    kinds = (("card", 0), ("renderD", 128))
    cards = [f"/dev/dri/{kind}{first + card.index}" for card in granted for kind, first in kinds]
    response = files(["/dev/kfd", *cards])
    response.envs.update({"HIP_DEVICE_MEMORY_LIMIT": f"{granted[0].memory}m", "LD_AUDIT": LIBRARY})
    response.mounts.append(dp.Mount(host_path=LIBRARY, container_path=LIBRARY, read_only=True))
    return response


_BRAND = Brand(
    word="AMD",
    resource="amd.com/gpu",
    register="hami.io/node-amd-register",
    to_allocate="hami.io/amd-devices-to-allocate",
    answer=_answer,
    is_hasty=True,
)
