"""A stand-in for Iluvatar's gpu-manager: one chip model on one node, published in HAMi's older text.

What it gives to a container is device files, whose names are made up here: nobody in the cluster reads them.
"""

from hami_kit.kubelet import deviceplugin_v1beta1_pb2 as dp

from hami_testkit.cluster.client import ApiClient
from hami_testkit.cluster.plugins.plugin import files
from hami_testkit.cluster.plugins.registered import Brand, Granted, RegisteredPlugin, as_text

CHIPS = ("MR-V100", "MR-V50", "BI-V150", "BI-V100")
MEMORY = 32768
"""MiB of a card."""


def iluvatar_plugin(api: ApiClient, node: str, cards: int, *, word: str) -> RegisteredPlugin:
    """Return the plugin of one node; four pods may share a card."""
    facts = {"count": 4, "devmem": MEMORY, "devcore": 100, "type": word, "numa": 0, "health": True}
    listed = [{"id": f"{word}-{node}-{at}", "index": at, **facts} for at in range(cards)]
    return RegisteredPlugin(api, node, _brand(word), listed)


def _answer(granted: list[Granted]) -> dp.ContainerAllocateResponse:
    return files(f"/dev/iluvatar{card.index}" for card in granted)


def _brand(word: str) -> Brand:
    return Brand(
        word=word,
        resource=f"iluvatar.ai/{word}-vgpu",
        register=f"hami.io/node-{word}-register",
        handshake=f"hami.io/node-handshake-{word}",
        to_allocate=f"hami.io/{word}-devices-to-allocate",
        answer=_answer,
        write=as_text,
    )
