"""Devices as a node advertises them.

One rule: a device is keyed by (node, vendor, uuid); its ``model`` is what the driver calls it and is never its key.
Field names are ours, the wire's (HAMi's register annotation, spec vendors-a §1.1) belong to ``annotations.py``.
"""

from msgspec import Struct, field


class Placement(Struct, frozen=True, gc=False):
    """A range of memory slices of a partitioned card: ``[start, start + size)``."""

    start: int
    size: int


class MigProfile(Struct, frozen=True, gc=False, kw_only=True):
    """One way to cut a MIG card; memory in MiB, cores in percent."""

    name: str
    memory: int
    cores: int
    slices: int = 0
    placements: tuple[Placement, ...] = ()


class Size(Struct, frozen=True, gc=False, kw_only=True):
    """One size of the shares that a card gives: memory in MiB, cores in percent, slices as its vendor counts them."""

    name: str
    slices: int
    memory: int
    cores: int


class Device(Struct, frozen=True, gc=False, kw_only=True):
    """One card. Memory in MiB (scaled, where the node oversubscribes), cores in percent of a card, slots in pods."""

    id: str
    vendor: str
    index: int = 0
    slots: int
    memory: int
    cores: int
    model: str
    numa: int = 0
    mode: str = ""
    healthy: bool = True
    mig_profiles: tuple[MigProfile, ...] = ()
    sizes: tuple[Size, ...] = ()
    """What its shares may be, those to be preferred first; read for demands that want one of them (``slices``)."""
    custom: dict[str, object] = field(default_factory=dict)
    """Vendor's own facts (HAMi ``custominfo``), such as Ascend's ``NetworkID``."""
    links: dict[str, int] = field(default_factory=dict)
    """Pair scores to other cards of the node, by uuid (NVIDIA ``hami.io/node-nvidia-score``)."""
