"""All kubelets of a stand-in cluster in one process, with the vendors' plugins that nodes ask for.

A node asks with the annotation ``standin.hami.io/plugins``, a JSON list of ``{"vendor": "Ascend910B3", "cards": 8}`` or
``{"vendor": "MLU", "cards": 2, "memory": 24576}``. A node without it has a kubelet and no plugin of its own.
"""

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from hami_testkit.cluster.client import ApiClient
from hami_testkit.cluster.kubelet import Kubelet
from hami_testkit.cluster.plugins.ascend import AscendPlugin
from hami_testkit.cluster.plugins.cambricon import CambriconPlugin

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


def _plugin(api: ApiClient, node: str, wanted: dict[str, Any]) -> AscendPlugin | CambriconPlugin:
    if wanted["vendor"] == "MLU":
        return CambriconPlugin(api, node, wanted["cards"], wanted.get("memory", 24576))
    return AscendPlugin(api, node, wanted["vendor"], wanted["cards"])
