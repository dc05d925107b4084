"""What a vendor says: data, and a pure function only where it is truly different.

One rule: everything the core needs of a vendor is a field here; a field that is a function takes the vendor itself
first, so that names overridden by the device config reach it. Nothing here does I/O, and the core names no vendor.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING

from msgspec import Struct

from hami_model.allocation import Allocation, Cut, MadeInstance
from hami_model.cores import WHOLE_CARD
from hami_model.cutting import Parts
from hami_model.device import Device
from hami_model.objects import Container, Node, Pod
from hami_model.picking import Given, Picker
from hami_model.reason import Reason
from hami_model.request import CoreUnit, Demand
from hami_model.rows import Floats

if TYPE_CHECKING:
    from hami_model.checks import Check


class ResourceNames(Struct, frozen=True, kw_only=True):
    """The resource names users write, overridable by the device config; empty = the vendor has none such.

    ``memory_factor``: MiB in one unit of the memory resource (NVIDIA 1, Cambricon 256).
    """

    count: str
    memory: str = ""
    cores: str = ""
    percentage: str = ""
    priority: str = ""
    memory_factor: int = 1
    core_unit: CoreUnit = CoreUnit.PERCENT


class Selectors(Struct, frozen=True, kw_only=True):
    """The pod annotations that choose or exclude cards by model (substring) and uuid (exact); empty = not read."""

    use_model: str = ""
    nouse_model: str = ""
    use_uuid: str = ""
    nouse_uuid: str = ""


class AnnotationKeys(Struct, frozen=True, kw_only=True):
    """Where a vendor's facts stand on node and pod; empty = none."""

    register: str = ""
    handshake: str = ""
    links: str = ""
    to_allocate: str = ""
    allocated: str = ""
    parts: str = ""
    """On the pod: which parts it has of cards that are cut into parts."""
    cordon: str = ""
    """On the node: uuids that take no new pods."""


class Form(StrEnum):
    """How cards stand in a register annotation: HAMi's JSON, the text that it wrote before, or the vendor's own."""

    JSON = "json"
    TEXT = "text"
    OWN = "own"
    """Read by the vendor's ``discover`` alone; its own plugin writes it."""


class Lock(Struct, frozen=True):
    """The node annotation that a vendor's own plugin reads to find its pod. ``owned``: names the pod after the time."""

    key: str
    owned: bool = True
    within: str = ""
    """HAMi's fixed words for how long such a lock counts; empty = as long as node locks are set to count."""


MUTEX_LOCK = Lock("hami.io/mutex.lock")
"""The lock that most vendors' plugins share: ``<RFC3339>,<namespace>,<pod>``."""


NOW = "<time>"
"""Stands for the present in what ``Vendor.annotations`` returns; the model has no clock."""
NOW_IN_NANOSECONDS = "<time in nanoseconds>"
"""The same, for plugins that read it so."""


class Constraints(Struct, frozen=True, kw_only=True):
    """What the pod's annotations say about which cards it may have, for one vendor. ``None`` = no constraint."""

    use_models: tuple[str, ...] | None = None
    nouse_models: tuple[str, ...] | None = None
    use_uuids: frozenset[str] | None = None
    nouse_uuids: frozenset[str] | None = None
    modes: str | None = None
    """A card passes when its mode is a substring of this text (NVIDIA ``nvidia.com/vgpu-mode``)."""
    numa_bind: bool = False
    soft_split: bool = False
    guest: int = 0
    """What the pod counts as on a card that it shares (the column ``guests``): counters in one number of 63 bits."""
    guest_alone: int = 0
    """The same on a card of which it has all cores."""
    counts_cores: bool = True
    """Cores are booked; otherwise the pod takes none, whatever it asks for."""
    is_scored: bool = True
    """The vendor's bonus on nodes counts for this pod."""
    card_policies: frozenset[str] = frozenset()
    """The words of the card policy in force; filled in by the core, since the process has a default."""

    def counts_as(self, cores: int) -> int:
        """Return what the pod counts as on a card of which it has so many percent."""
        return self.guest if cores < WHOLE_CARD else self.guest_alone


class NodeMarks(Struct, frozen=True, kw_only=True):
    """What a node's annotations say about one vendor's cards beside the inventory."""

    cordoned: frozenset[str] = frozenset()
    """Cards that take no new pods."""
    soft_split: bool = False
    """The node serves pods that ask for a soft split (``Constraints.soft_split``)."""


class Change(Struct, frozen=True, kw_only=True):
    """One change that admission makes to the pod. ``container`` None = the pod's spec itself.

    ``limit`` and ``request`` are (resource, value) pairs to set; ``env`` is (name, value) to set, appended when absent.
    """

    container: str | None = None
    limit: tuple[str, str] | None = None
    request: tuple[str, str] | None = None
    env: tuple[str, str] | None = None
    runtime_class: str | None = None
    annotation: tuple[str, str] | None = None
    scheduler: str | None = None


class Admitted(Struct, frozen=True, kw_only=True):
    """A vendor's answer to one container: is it ours, what changes, what the user should be warned of."""

    mine: bool
    changes: tuple[Change, ...] = ()
    warnings: tuple[str, ...] = ()


class Vendor(Struct, frozen=True, kw_only=True):
    """One HAMi back end, keyed by its common word."""

    word: str
    resources: ResourceNames
    keys: AnnotationKeys
    form: Form = Form.JSON
    """How its cards stand in the register annotation."""
    selectors: Selectors = Selectors()
    lock: Lock | None = None
    quota_in_fit: bool = True
    names_models: bool = False
    """Pods' device lists name a card's model where they name the vendor's word otherwise."""
    counts_cards: bool = True
    """The number under ``resources.count`` is one of cards; otherwise ``demand`` alone says how many there are."""
    other_form: str = ""
    """The word under which a node lists the same cards too, by the same indexes: whole here and shared there, or so."""
    ids_are_local: bool = False
    """A card's id is a name on its node only: two nodes may list the same one."""
    runtime_class: str = ""
    served_by_us: bool = False
    """Our node-agent serves its cards, where it runs; otherwise the vendor's own plugin does."""
    partitions: str = ""
    """In a word or two, what its cards are cut into beside plain shares (``MIG``); for people."""
    settings: Struct | None = None
    """The vendor's own section of the device config, typed by its module."""

    demand: Callable[["Vendor", Container], Demand | None]
    """Read one container's ask; raise ``BadDemand`` (naming field, value and way out) for one that cannot be read."""
    admit: Callable[["Vendor", Container, Pod], Admitted]
    """Say what admission changes; raise ``Denied`` for what HAMi's vendor check refuses."""
    discover: Callable[["Vendor", Node], tuple[Device, ...]]
    """Read the node's cards from its annotations or capacity; ``()`` = none; raise ``MalformedInventory``."""
    constraints: Callable[["Vendor", Pod], Constraints]
    confirmed: Callable[[Pod], bool]
    """Say whether the vendor's own plugin has marked the pod as served."""
    annotations: Callable[["Vendor", Allocation, Pod], dict[str, str]] | None = None
    """The pod annotations beside the two device lists; ``NOW`` stands for the caller's unix seconds; None = none."""
    group: Callable[[Device], Hashable] | None = None
    """Return the name of the group of well-connected cards that a card belongs to on its node; None = unknown."""
    parts: Callable[[Device], Parts | None] | None = None
    """Return every part that a card can be cut into; None = the card is shared, not cut."""
    cuts: Callable[["Vendor", Pod], tuple[tuple[str, Cut], ...]] | None = None
    """Return the parts that a pod's annotations reserve, each with its card; raise ``MalformedAllocation``."""
    made: Callable[["Vendor", Allocation, Pod, Sequence[MadeInstance]], dict[str, str]] | None = None
    """The annotations that say which parts the node has made; none for what the pod says already."""
    soft_split: Callable[["Vendor", Node], bool] | None = None
    """Say whether a node takes pods that split cards in software; None = the vendor makes no such difference."""
    checks: tuple["Check", ...] | None = None
    """The tuple of checks, in order of priority; None = the shared one."""
    choose: Callable[["Vendor", Demand, Constraints], Picker | None] | None = None
    """Return how to pick cards for a demand whose place on a node is special; None = the first ones in walk order."""
    node_score: Callable[["Vendor", Sequence[Given]], Floats] | None = None
    """Bonus on each node's score for what the containers get there; None = 0."""
    told: Callable[[Mapping[Reason, int]], Mapping[Reason, int]] | None = None
    """Return what is told of how many cards refused a pod, and why; None = all of it."""
    best_bonus: float = 0.0
    """The most that ``node_score`` gives for one container: how far the search for the best node must look."""
