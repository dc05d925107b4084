"""A stand-in for HAMi's own NVIDIA device plugin, as 2.10 has it: the protocol that our node-agent does without.

One rule: which cards a container gets is what the annotation of the pod says that the node's lock names; the kubelet's
IDs are counted, and otherwise not looked at. It writes no handshake: HAMi's scheduler asks, and nobody answers.
Cards in MIG mode and mounts are not modelled.
"""

from hami_kit.kubelet import deviceplugin_v1beta1_pb2 as dp

from hami_testkit.cluster.client import ApiClient
from hami_testkit.cluster.plugins.registered import Brand, Granted, RegisteredPlugin
from hami_testkit.cluster.status import Json

MEMORY, SLOTS = 46068, 10
"""MiB and pods of a card."""
MODEL = "NVIDIA A40"


def nvidia_plugin(
    api: ApiClient, node: str, cards: int, *, memory: int = MEMORY, slots: int = SLOTS, model: str = MODEL
) -> RegisteredPlugin:
    """Return the plugin of one node, whose cards are alike."""
    alike: Json = {"count": slots, "devmem": memory, "devcore": 100, "type": model, "mode": "hami-core", "health": True}
    listed = [{"id": f"GPU-{node}-{at}", "index": at, **alike} for at in range(cards)]
    return RegisteredPlugin(api, node, _BRAND, listed)


def _answer(granted: list[Granted]) -> dp.ContainerAllocateResponse:
    response = dp.ContainerAllocateResponse()
    response.envs["NVIDIA_VISIBLE_DEVICES"] = ",".join(dict.fromkeys(card.uuid for card in granted))
    for at, card in enumerate(granted):
        response.envs[f"CUDA_DEVICE_MEMORY_LIMIT_{at}"] = f"{card.memory}m"
    response.envs["CUDA_DEVICE_SM_LIMIT"] = str(granted[0].cores)
    return response


_BRAND = Brand(
    word="NVIDIA",
    resource="nvidia.com/gpu",
    register="hami.io/node-nvidia-register",
    to_allocate="hami.io/vgpu-devices-to-allocate",
    answer=_answer,
    mark="-",
    phases=("allocating", "success"),
    prefers=True,
)
