"""Stand-ins for Kunlun's two device plugins: whole XPUs, and shares of them (vXPUs)."""

from hami_kit.kubelet import deviceplugin_v1beta1_pb2 as dp

from hami_testkit.cluster.client import ApiClient
from hami_testkit.cluster.plugins.numbered import NumberedPlugin
from hami_testkit.cluster.plugins.plugin import files
from hami_testkit.cluster.plugins.registered import Brand, Granted, RegisteredPlugin

XPU, VXPU = "kunlunxin.com/xpu", "kunlunxin.com/vxpu"
NUMBERS = "BAIDU_COM_DEVICE_IDX"
MEMORY = 98304
"""MiB of a card."""


def xpu_plugin(api: ApiClient, node: str, cards: int) -> NumberedPlugin:
    """Return the plugin of one node whose cards are given whole."""
    return NumberedPlugin(api, node, amounts={XPU: cards}, numbers=NUMBERS, file="/dev/xpu")


def vxpu_plugin(api: ApiClient, node: str, cards: int, *, slots: int = 4) -> RegisteredPlugin:
    """Return the plugin of one node whose cards are shared."""
    listed = [
        {"id": f"XPU-{node}-{at}", "index": at, "count": slots, "devmem": MEMORY, "devcore": 100, "type": "XPU",
         "numa": int(at >= cards / 2), "health": True}
        for at in range(cards)
    ]  # fmt: skip
    return RegisteredPlugin(api, node, _BRAND, listed)


def _shares(granted: list[Granted]) -> dp.ContainerAllocateResponse:
    return files(f"/dev/xpu{card.index}" for card in granted)


_BRAND = Brand(
    word="XPU",
    resource=VXPU,
    register="hami.io/node-register-xpu",
    handshake="hami.io/node-handshake-xpu",
    to_allocate="hami.io/xpu-devices-to-allocate",
    answer=_shares,
)
