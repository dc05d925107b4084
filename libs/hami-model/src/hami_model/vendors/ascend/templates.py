"""The sizes that an Ascend card can be cut into, and when a card is not cut but shared in software."""

from msgspec import Struct

from hami_model.config import Chip
from hami_model.errors import InvariantError
from hami_model.objects import Pod
from hami_model.vendor import Vendor

MODE = "huawei.com/vnpu-mode"
SOFT = "hami-core"


class Family(Struct, frozen=True, kw_only=True):
    """One chip beside what it shares with its siblings: the nodes' default mode and every chip's count resource."""

    chip: Chip
    soft: bool
    counts: frozenset[str]


class Cut(Struct, frozen=True):
    """What a memory ask comes to in MiB; 0 = more than the card has, no template = the whole card."""

    memory: int
    template: str = ""


def settings(vendor: Vendor) -> Family:
    """Return the part of the device config that the vendor was made from."""
    if not isinstance(vendor.settings, Family):
        raise InvariantError(f"vendor {vendor.word} carries no Ascend settings")
    return vendor.settings


def splits_softly(pod: Pod) -> bool:
    """Say whether the pod shares its cards in software instead of asking for a template."""
    return pod.annotations.get(MODE) == SOFT


def trim(chip: Chip, memory: int) -> Cut:
    """Round memory up to the smallest template that holds it, else to the whole card.

    HAMi compat: 310P sells 21527 of its 24576 MiB, so an ask between the two is given less than it wrote.
    """
    for template in chip.templates:
        if template.memory >= memory:
            return Cut(template.memory, template.name)
    return Cut(chip.memory_allocatable) if memory <= chip.memory_capacity else Cut(0)
