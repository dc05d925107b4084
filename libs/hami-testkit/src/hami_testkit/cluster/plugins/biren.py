"""A stand-in for Biren's device plugin: whole cards, or the instances that a card was split into by hand (SVI).

Its ids are names on the node only (``card_0``): two nodes list the same ones. What a container is given is the device
file and the variable ``BR_PHY_CARDS``.
"""

from hami_kit.kubelet import deviceplugin_v1beta1_pb2 as dp

from hami_testkit.cluster.client import ApiClient
from hami_testkit.cluster.plugins.plugin import files
from hami_testkit.cluster.plugins.registered import Brand, Granted, RegisteredPlugin

MEMORY = 65024
"""MiB of a card, as the plugin publishes it."""


def biren_plugin(api: ApiClient, node: str, cards: int, *, slots: int = 1) -> RegisteredPlugin:
    """Return the plugin of one node; the real one lets nobody share a card, ``slots`` above 1 are HAMi's ``count``."""
    listed = [
        {"id": f"card_{at}", "index": at, "count": slots, "devmem": MEMORY, "type": "Biren", "health": True}
        for at in range(cards)
    ]
    return RegisteredPlugin(api, node, _BRAND, listed)


def _answer(granted: list[Granted]) -> dp.ContainerAllocateResponse:
    response = files(f"/dev/biren/{card.uuid}" for card in granted)
    response.envs["BR_PHY_CARDS"] = ",".join(card.uuid for card in granted)
    return response


_BRAND = Brand(
    word="Biren",
    resource="birentech.com/gpu",
    register="hami.io/node-biren-register",
    handshake="hami.io/node-handshake-biren",
    to_allocate="hami.io/Biren-devices-to-allocate",
    answer=_answer,
)
