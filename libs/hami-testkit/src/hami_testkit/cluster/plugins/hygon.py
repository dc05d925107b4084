"""A stand-in for Hygon's device plugin, which publishes cards in HAMi's older text.

What it gives to a container is device files, whose names are made up here: nobody in the cluster reads them.
"""

from hami_kit.kubelet import deviceplugin_v1beta1_pb2 as dp

from hami_testkit.cluster.client import ApiClient
from hami_testkit.cluster.plugins.plugin import files
from hami_testkit.cluster.plugins.registered import Brand, Granted, RegisteredPlugin, as_text

MEMORY = 65520
"""MiB of a K100."""


def hygon_plugin(api: ApiClient, node: str, cards: int, *, model: str = "DCU-K100_AI") -> RegisteredPlugin:
    """Return the plugin of one node; four pods may share a card."""
    facts = {"count": 4, "devmem": MEMORY, "devcore": 100, "type": model, "numa": 0, "health": True}
    listed = [{"id": f"DCU-{node}-{at}", "index": at, **facts} for at in range(cards)]
    return RegisteredPlugin(api, node, _BRAND, listed)


def _answer(granted: list[Granted]) -> dp.ContainerAllocateResponse:
    return files(f"/dev/dcu/{card.uuid}" for card in granted)


_BRAND = Brand(
    word="DCU",
    resource="hygon.com/dcunum",
    register="hami.io/node-dcu-register",
    handshake="hami.io/node-handshake-dcu",
    to_allocate="hami.io/dcu-devices-to-allocate",
    answer=_answer,
    write=as_text,
)
