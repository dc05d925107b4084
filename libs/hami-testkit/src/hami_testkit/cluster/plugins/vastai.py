"""A stand-in for Vastai's device plugin: whole cards, or each die by itself (``--device-strategy=die``).

What it gives to a container is device files, whose names are made up here: nobody in the cluster reads them.
"""

from hami_kit.kubelet import deviceplugin_v1beta1_pb2 as dp

from hami_testkit.cluster.client import ApiClient
from hami_testkit.cluster.plugins.plugin import files
from hami_testkit.cluster.plugins.registered import Brand, Granted, RegisteredPlugin
from hami_testkit.cluster.status import Json

MEMORY = 32768
"""MiB of a card, shared out among its dies."""


def vastai_plugin(api: ApiClient, node: str, cards: int, *, dies: int = 0) -> RegisteredPlugin:
    """Return the plugin of one node; with ``dies`` it lists so many of each card instead of the card."""
    listed = [_die(at, dies) for at in range(cards * dies)] if dies else [_card(at) for at in range(cards)]
    return RegisteredPlugin(api, node, _BRAND, listed)


def _card(at: int) -> Json:
    return {"id": f"{at}", "index": at, "count": 1, "devmem": MEMORY, "type": "Vastai", "health": True}


def _die(at: int, dies: int) -> Json:
    card, die = divmod(at, dies)
    facts = {"id": f"{card}-{die}", "devmem": MEMORY // dies, "custominfo": {"DeviceStrategy": "die", "AIC": f"{card}"}}
    return {**_card(at), **facts}


def _answer(granted: list[Granted]) -> dp.ContainerAllocateResponse:
    return files(f"/dev/vastai/{card.uuid}" for card in granted)


_BRAND = Brand(
    word="Vastai",
    resource="vastaitech.com/va",
    register="hami.io/node-va-register",
    handshake="hami.io/node-handshake-va",
    to_allocate="hami.io/Vastai-devices-to-allocate",
    answer=_answer,
)
