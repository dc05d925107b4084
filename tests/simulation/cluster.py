"""What stands in the cluster when the story begins, and the pods that come: small, and nearly too small for them.

One rule: everything is drawn from the seed; a pod always fits an empty cluster, so it waits only for others.
"""

from functools import cache
from random import Random

import msgspec
from hami_model.annotations import encode_register
from hami_model.charge import Charge
from hami_model.device import Device
from hami_model.objects import Node
from hami_testkit.builders import a_node
from msgspec import Struct

from tests.simulation.allocators import a_catalog
from tests.simulation.store import Json

ASCEND = "Ascend910B3"
MEMORY = 8000
SLOTS = 4


class Site(Struct, frozen=True):
    """One node as it is set up: the vendors on it, and whether our agent serves them."""

    name: str
    words: tuple[str, ...]
    is_ours: bool = False
    is_known: bool = False
    """Our agent's inventory stands in the annotations already."""


SITES = (
    (("NVIDIA",), True),
    (("NVIDIA",), False),
    (("NVIDIA", ASCEND), False),
    (("MLU",), False),
    (("NVIDIA", "MLU"), False),
)


def sites(rng: Random) -> list[Site]:
    """Draw two to four nodes; one of the first two has the lock that vendors share."""
    count = rng.choice((2, 2, 3, 4))
    drawn = [rng.choice((0, 0, 1, 2, 2, 3, 4)) for _ in range(count)]
    kinds = [SITES[kind] for kind in drawn]
    return [Site(f"node-{at + 1}", words, is_ours, rng.random() < 0.5) for at, (words, is_ours) in enumerate(kinds)]


@cache
def node_of(site: Site) -> bytes:
    """Return the Node object."""
    built = a_node(site.name)
    for word in site.words:
        facts = {"mode": "hami-core"} if word == "NVIDIA" else {}
        built = built.with_cards(2, memory=MEMORY, vendor=word, slots=100 if word == "MLU" else SLOTS, **facts)
    node = msgspec.to_builtins(built.node())
    notes = node["metadata"]["annotations"]
    if site.is_ours and site.is_known:
        notes["hami.io/node-agent"] = ",".join(site.words)
    elif site.is_ours:
        for word in site.words:
            notes.pop(a_catalog().by_word(word).keys.register, None)
    node["metadata"] = {"name": site.name, "uid": f"uid-{site.name}", "annotations": notes, "labels": {}}
    return msgspec.json.encode(node)


@cache
def cards_of(site: Site) -> tuple[Device, ...]:
    """Return the cards of a node, as their plugins publish them."""
    node = msgspec.json.decode(node_of(msgspec.structs.replace(site, is_known=True)), type=Node)
    return tuple(d for word in site.words for d in _discovered(word, node))


def _discovered(word: str, node: Node) -> tuple[Device, ...]:
    vendor = a_catalog().by_word(word)
    return vendor.discover(vendor, node)


def capacity(all_sites: list[Site]) -> dict[tuple[str, str, str], Charge]:
    """Return what each card has, by node, vendor and uuid."""
    return {
        (site.name, d.vendor, d.id): Charge(slots=d.slots, memory=d.memory, cores=d.cores)
        for site in all_sites
        for d in cards_of(site)
    }


def smaller(site: Site, memory: int) -> dict[str, str]:
    """Return the registration of a node whose cards have less memory now."""
    changed = {}
    for word in site.words:
        vendor = a_catalog().by_word(word)
        if key := vendor.keys.register:
            cards = [msgspec.structs.replace(d, memory=memory) for d in cards_of(site) if d.vendor == word]
            changed[key] = encode_register(cards, vendor.form)
    return changed


def a_demand(rng: Random, words: list[str]) -> dict[str, str]:
    """Draw what a pod asks for."""
    word = rng.choice(words)
    if word == "NVIDIA":
        memory = rng.choice((2500, 4000, 5000, 8000))
        asked = {"nvidia.com/gpu": rng.choice(("1", "1", "1", "2")), "nvidia.com/gpumem": str(memory)}
        return asked | ({"nvidia.com/gpucores": rng.choice(("30", "60", "100"))} if rng.random() < 0.4 else {})
    if word == "MLU":
        return {
            "cambricon.com/vmlu": "1",
            "cambricon.com/mlu.smlu.vmemory": rng.choice(("10", "20", "31")),
            "cambricon.com/mlu.smlu.vcore": rng.choice(("30", "60", "100")),
        }
    return {a_catalog().by_word(word).resources.count: "1"}


def a_pod(name: str, namespace: str, uid: str, demand: dict[str, str]) -> Json:
    """Return a pending pod."""
    return {
        "metadata": {"name": name, "namespace": namespace, "uid": uid, "annotations": {}, "labels": {}},
        "spec": {"containers": [{"name": "main", "resources": {"limits": demand}}]},
        "status": {"phase": "Pending"},
    }


def decoded(site: Site) -> Json:
    """Return the Node object, to be stored."""
    node: Json = msgspec.json.decode(node_of(site))
    return node
