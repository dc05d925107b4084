"""Stand-ins for MetaX's two device plugins: whole GPUs, and shares of them (sGPU).

The one for whole cards publishes no annotation: the kubelet counts them. The one for shares publishes them in a JSON of
its own. What a container is given (device files, and for shares two variables) is made up.
"""

import json

from hami_kit.kubelet import deviceplugin_v1beta1_pb2 as dp

from hami_testkit.cluster.client import ApiClient
from hami_testkit.cluster.plugins.plugin import files
from hami_testkit.cluster.plugins.registered import Brand, Cards, Granted, RegisteredPlugin

GPU, SGPU = "metax-tech.com/gpu", "metax-tech.com/sgpu"
REGISTER = "metax-tech.com/node-gpu-devices"
MEMORY = 65536
"""MiB of a card."""


def metax_plugin(api: ApiClient, node: str, cards: int) -> RegisteredPlugin:
    """Return the plugin of one node whose cards are given whole."""
    listed = [{"id": f"{node}-metax-{at}", "index": at, "count": 1, "health": True} for at in range(cards)]
    return RegisteredPlugin(api, node, _WHOLE, listed)


def sgpu_plugin(api: ApiClient, node: str, cards: int, *, slots: int = 16, zone: int = 4) -> RegisteredPlugin:
    """Return the plugin of one node whose cards are shared; so many of them are linked to a zone."""
    listed = [
        {"id": f"GPU-{node}-{at}", "index": at, "count": slots, "health": True, "zone": at // zone + 1}
        for at in range(cards)
    ]
    return RegisteredPlugin(api, node, _SHARED, listed)


def _as_metax_writes(cards: Cards) -> str:
    return json.dumps(
        [
            {
                "uuid": card["id"],
                "bdf": f"0000:0{card['index']}:00.0",
                "model": "MXC500",
                "totalDevCount": card["count"],
                "totalCompute": 100,
                "totalVRam": MEMORY,
                "numa": 0,
                "healthy": card["health"],
                "qosPolicy": "best-effort",
                "linkZone": card["zone"],
            }
            for card in cards
        ]
    )


def _cards(granted: list[Granted]) -> dp.ContainerAllocateResponse:
    return files(f"/dev/dri/card{card.index}" for card in granted)


def _shares(granted: list[Granted]) -> dp.ContainerAllocateResponse:
    response = _cards(granted)
    response.envs["METAX_SGPU_VRAM_MIB"] = ",".join(str(card.memory) for card in granted)
    response.envs["METAX_SGPU_COMPUTE"] = ",".join(str(card.cores) for card in granted)
    return response


_WHOLE = Brand(word="Metax-GPU", resource=GPU, to_allocate="hami.io/metax-gpu-devices-to-allocate", answer=_cards)
_SHARED = Brand(
    word="Metax-SGPU",
    resource=SGPU,
    register=REGISTER,
    to_allocate="hami.io/metax-sgpu-devices-to-allocate",
    answer=_shares,
    write=_as_metax_writes,
)
