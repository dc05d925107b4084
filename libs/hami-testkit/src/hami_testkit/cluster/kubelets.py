"""All kubelets of a stand-in cluster in one process, with the vendors' plugins that nodes ask for.

A node asks with the annotation ``standin.hami.io/plugins``, a JSON list of ``{"vendor": "Ascend910B3", "cards": 8}`` or
``{"vendor": "MLU", "cards": 2, "memory": 24576}``; ``MAKERS`` has every vendor and the facts that it takes beside the
number of cards. A node without the annotation has a kubelet and no plugin of its own.
"""

import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from hami_testkit.cluster.client import ApiClient
from hami_testkit.cluster.kubelet import Kubelet
from hami_testkit.cluster.plugins.amd import amd_plugin
from hami_testkit.cluster.plugins.ascend import CHIPS, AscendPlugin
from hami_testkit.cluster.plugins.awsneuron import NeuronPlugin
from hami_testkit.cluster.plugins.biren import biren_plugin
from hami_testkit.cluster.plugins.cambricon import CambriconPlugin
from hami_testkit.cluster.plugins.enflame import DrsPlugin, gcu_plugin
from hami_testkit.cluster.plugins.hygon import hygon_plugin
from hami_testkit.cluster.plugins.iluvatar import CHIPS as ILUVATAR_CHIPS
from hami_testkit.cluster.plugins.iluvatar import iluvatar_plugin
from hami_testkit.cluster.plugins.kunlun import vxpu_plugin, xpu_plugin
from hami_testkit.cluster.plugins.metax import metax_plugin, sgpu_plugin
from hami_testkit.cluster.plugins.mthreads import mthreads_plugin
from hami_testkit.cluster.plugins.nvidia import nvidia_plugin
from hami_testkit.cluster.plugins.vastai import vastai_plugin

PLUGINS = "standin.hami.io/plugins"


@asynccontextmanager
async def run_kubelets(
    api_url: str, nodes: Mapping[str, Mapping[str, str]], root: Path
) -> AsyncIterator[dict[str, Kubelet]]:
    """Run a kubelet for each node (name -> annotations) for the length of a block, in ``root/<node>``."""
    async with AsyncExitStack() as stack:
        api = await stack.enter_async_context(ApiClient.connect(api_url))
        kubelets = {}
        for name, annotations in nodes.items():
            kubelet = await stack.enter_async_context(Kubelet(api, name, root / name).running())
            for wanted in json.loads(annotations.get(PLUGINS, "[]")):
                await stack.enter_async_context(_plugin(api, name, wanted).running(kubelet.plugins))
            kubelets[name] = kubelet
        yield kubelets


class Plugin(Protocol):
    """What every vendor's stand-in can do."""

    def running(self, folder: Path) -> AbstractAsyncContextManager[object]:
        """Publish the cards and serve them for the length of a block."""


MAKERS: Mapping[str, Callable[..., Plugin]] = {
    "NVIDIA": nvidia_plugin,
    "MLU": CambriconPlugin,
    "DCU": hygon_plugin,
    **{word: partial(iluvatar_plugin, word=word) for word in ILUVATAR_CHIPS},
    "Mthreads": mthreads_plugin,
    "Metax-GPU": metax_plugin,
    "Metax-SGPU": sgpu_plugin,
    "kunlun": xpu_plugin,
    "XPU": vxpu_plugin,
    "GCU": gcu_plugin,
    "Enflame": DrsPlugin,
    "AWSNeuron": NeuronPlugin,
    "AMD": amd_plugin,
    "Vastai": vastai_plugin,
    "Biren": biren_plugin,
    **{word: partial(AscendPlugin, word=word) for word in CHIPS},
}
"""By vendor word: makes the plugin of a node from the API client, the node's name, and what the annotation says."""


def _plugin(api: ApiClient, node: str, wanted: Mapping[str, Any]) -> Plugin:
    """Make a plugin that a node asks for."""
    facts = {key: value for key, value in wanted.items() if key != "vendor"}
    return MAKERS[wanted["vendor"]](api, node, **facts)
