"""Which cards a node has, and who serves them: its vendor's own plugin, or our node-agent.

One rule: a foreign plugin's claim wins over our agent's, since HAMi's and the vendors' plugins know nothing of ours.
Pure: nodes and inventories come in, claims go out.
"""

from collections.abc import Mapping
from enum import StrEnum

from hami_model.bus.messages import Inventory
from hami_model.catalog import Catalog
from hami_model.device import Device
from hami_model.errors import DomainError
from hami_model.objects import Node
from hami_model.vendor import Vendor
from msgspec import Struct, structs

AGENT_KEY = "hami.io/node-agent"
"""Node annotation: the words of the vendors that our agent serves there, separated by commas."""


class Source(StrEnum):
    """Who answers the kubelet's Allocate for a vendor on a node."""

    AGENT = "agent"
    PLUGIN = "plugin"


class Claim(Struct, frozen=True, kw_only=True):
    """One vendor's cards on one node. ``error``: why its registration cannot be read; it has no cards then."""

    word: str
    source: Source
    devices: tuple[Device, ...] = ()
    conflict: bool = False
    """Our agent claims the vendor too, and was turned away."""
    error: str = ""


class Memory(Struct, frozen=True):
    """What we must remember of a node to tell our own registration from a foreign one written over it."""

    texts: tuple[tuple[str, str], ...] = ()
    """(word, register text) that we wrote, or found when we first saw the node as an agent's."""
    overruled: frozenset[str] = frozenset()
    """Words for which a foreign plugin wrote over our agent's registration."""


def agent_words(node: Node) -> tuple[str, ...]:
    """Return the vendors that our agent serves on the node, as its annotation remembers."""
    return tuple(word for word in node.annotations.get(AGENT_KEY, "").split(",") if word)


def is_selected(node: Node, selector: Mapping[str, str]) -> bool:
    """Say whether the node carries every label of the selector."""
    labels = node.metadata.labels or {}
    return all(labels.get(key) == value for key, value in selector.items())


def claims(
    node: Node, told: Inventory | None, memory: Memory, catalog: Catalog, there: Mapping[str, bool]
) -> tuple[Claim, ...]:
    """Return every vendor's claim on the node; ``there`` says for each word whether a foreign plugin shows life."""
    return tuple(
        claim
        for vendor in catalog.vendors
        if (claim := _claim(vendor, node, told, memory, alive=there.get(vendor.word, True))) is not None
    )


def _claim(vendor: Vendor, node: Node, told: Inventory | None, memory: Memory, *, alive: bool) -> Claim | None:
    agents = told is not None and vendor.word in told.vendors
    remembered = vendor.word in agent_words(node) and vendor.word not in memory.overruled
    try:
        found = vendor.discover(vendor, node)
    except DomainError as error:
        if agents and remembered and told is not None:
            return _agents(vendor.word, told)
        return Claim(word=vendor.word, source=Source.PLUGIN, error=str(error))
    if agents and told is not None and (remembered or not found or not alive):
        return _agents(vendor.word, told)
    if not found:
        return None
    if remembered:
        return Claim(word=vendor.word, source=Source.AGENT, devices=found)
    return Claim(word=vendor.word, source=Source.PLUGIN, devices=found, conflict=agents)


def _agents(word: str, told: Inventory) -> Claim:
    return Claim(
        word=word, source=Source.AGENT, devices=tuple(device for device in told.devices if device.vendor == word)
    )


def remember(node: Node, memory: Memory, catalog: Catalog) -> Memory:
    """Return the memory after a sight of the node: a registration that is not ours overrules our agent's.

    What cannot be read is nobody's registration: our agent's word stands, and is written again.
    """
    known: dict[str, list[str]] = {}
    for word, ours in memory.texts:
        known.setdefault(word, []).append(ours)
    for word in agent_words(node):
        vendor = catalog.find(word)
        text = node.annotations.get(vendor.keys.register) if vendor is not None else None
        if text is None or word in memory.overruled:
            continue
        if word not in known:
            memory = structs.replace(memory, texts=(*memory.texts, (word, text)))
        elif text not in known[word] and vendor is not None and _is_readable(vendor, node):
            memory = structs.replace(memory, overruled=memory.overruled | {word})
    return memory


def _is_readable(vendor: Vendor, node: Node) -> bool:
    try:
        vendor.discover(vendor, node)
    except DomainError:
        return False
    return True


def written(memory: Memory, word: str, text: str) -> Memory:
    """Return the memory after we wrote a registration; a few are kept, since the watch may show them late."""
    others = tuple(entry for entry in memory.texts if entry[0] != word)
    mine = tuple(entry for entry in memory.texts if entry[0] == word and entry[1] != text)[-3:]
    return Memory(texts=(*others, *mine, (word, text)), overruled=memory.overruled - {word})
