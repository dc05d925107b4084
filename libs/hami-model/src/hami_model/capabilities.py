"""What each vendor can do, in words for people, read off the vendors themselves.

One rule: a fact that a ``Vendor`` already says is derived from it, so that the table cannot say something else.
"""

from collections.abc import Iterable

from msgspec import Struct

from hami_model.vendor import Vendor


class Capability(Struct, frozen=True, kw_only=True):
    """One vendor's row; an empty text = nothing of the kind."""

    word: str
    count: str
    memory: str
    memory_unit_mib: int | None
    """MiB in one unit of the memory resource; None where there is none."""
    cores: str
    percentage: str
    priority: str
    shared_by: str
    """What a share of a card is measured in; ``number``: whole cards, or as many users as the plugin allows."""
    chosen_by: tuple[str, ...]
    """What pod annotations can choose cards by: ``model``, ``uuid``."""
    topology: str
    """By what cards are picked that belong together."""
    partitions: str
    """What cards are cut into beside plain shares."""
    lock: str
    """The node annotation that binds wait for."""
    plugin: str
    """Whose device plugin serves the cards: ``ours`` (node-agent), or the ``vendor's``."""


def capabilities(vendors: Iterable[Vendor]) -> list[Capability]:
    """Return the rows, in the vendors' order."""
    return [_of(vendor) for vendor in vendors]


def _of(vendor: Vendor) -> Capability:
    names, selectors = vendor.resources, vendor.selectors
    measures = [word for word, name in (("memory", names.memory), ("cores", names.cores)) if name]
    partitions = [vendor.partitions] if vendor.partitions else []
    return Capability(
        word=vendor.word,
        count=names.count,
        memory=names.memory,
        memory_unit_mib=max(names.memory_factor, 1) if names.memory else None,
        cores=names.cores,
        percentage=names.percentage,
        priority=names.priority,
        shared_by=" and ".join(measures) or "number",
        chosen_by=tuple(word for word, key in (("model", selectors.use_model), ("uuid", selectors.use_uuid)) if key),
        topology=_topology(vendor),
        partitions=", ".join([*partitions, *(["soft split"] if vendor.soft_split else [])]),
        lock=vendor.lock.key if vendor.lock else "",
        plugin="ours" if vendor.served_by_us else "vendor's",
    )


def _topology(vendor: Vendor) -> str:
    if vendor.keys.links:
        return "pair scores"
    if vendor.group:
        return "groups"
    return "its own rule" if vendor.choose else ""
