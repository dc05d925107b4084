"""A stand-in for Moore Threads' device plugin: three resources of one node, and pods' cards by their numbers."""

from hami_testkit.cluster.client import ApiClient
from hami_testkit.cluster.plugins.numbered import NumberedPlugin

VGPU, CORE, MEMORY = "mthreads.com/vgpu", "mthreads.com/sgpu-core", "mthreads.com/sgpu-memory"
INDEX = "mthreads.com/gpu-index"


def mthreads_plugin(api: ApiClient, node: str, cards: int) -> NumberedPlugin:
    """Return the plugin of one node: a card has sixteen cores, 96 units of memory, and room for sixteen pods."""
    amounts = {VGPU: 16 * cards, CORE: 16 * cards, MEMORY: 96 * cards}
    return NumberedPlugin(api, node, amounts=amounts, numbers=INDEX, file="/dev/mtgpu.")
