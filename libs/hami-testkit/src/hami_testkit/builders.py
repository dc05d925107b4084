"""Pods, cards and fleets in a test's own words.

One rule: a builder is a value: each ``with_…`` or ``asking`` returns a new one, and nothing is shared between tests.
Memory is in MiB, or a text such as ``24Gi``; what a test does not name is an ordinary card or pod.
"""

from collections.abc import Iterable, Mapping
from typing import Self

from hami_model import config, vendors
from hami_model.catalog import Catalog
from hami_model.charge import Charge
from hami_model.device import Device
from hami_model.fleet import Fleet
from hami_model.objects import Container, Meta, Node, NodeStatus, Pod, PodSpec, Resources
from hami_model.register import encode_links, encode_register
from hami_model.request import CoreUnit
from hami_model.units import MIB, rounded_up
from hami_model.vendor import Form
from msgspec import Struct, structs

NVIDIA = "NVIDIA"
RESOURCES = {
    "gpu": "nvidia.com/gpu",
    "gpumem": "nvidia.com/gpumem",
    "gpumem_percentage": "nvidia.com/gpumem-percentage",
    "gpucores": "nvidia.com/gpucores",
    "mlu": "cambricon.com/vmlu",
    "mlumem": "cambricon.com/mlu.smlu.vmemory",
    "mlucores": "cambricon.com/mlu.smlu.vcore",
}
"""Short names for ``asking``; any other name is taken as it is."""


def a_catalog() -> Catalog:
    """Return the vendors of the chart's device config."""
    return vendors.build(config.DEFAULTS, ascend=True, iluvatar=True)


def mib(memory: int | str) -> int:
    """Read MiB, or a text such as ``24Gi``."""
    if isinstance(memory, int):
        return memory
    size = rounded_up(memory)
    if size is None:
        raise ValueError(f"memory {memory} is no quantity: write MiB, or a text such as 24Gi")
    return size // MIB


def a_card(uuid: str = "GPU-0", *, memory: int | str = 8000, vendor: str = NVIDIA, **facts: object) -> Device:
    """Return a card of ten slots and a hundred cores; ``facts`` are any other fields of ``Device``."""
    ordinary: dict[str, object] = {"slots": 10, "cores": 100, "model": vendor}
    return Device(id=uuid, vendor=vendor, memory=mib(memory), **{**ordinary, **facts})  # type: ignore[arg-type]


class NodeBuilder(Struct, frozen=True, kw_only=True):
    """A node with its cards, and what is booked on them."""

    name: str
    cards: tuple[Device, ...] = ()
    booked: tuple[tuple[str, Charge], ...] = ()
    annotations: tuple[tuple[str, str], ...] = ()

    def with_card(self, card: Device) -> Self:
        """Add one card; it gets the next index."""
        return structs.replace(self, cards=(*self.cards, structs.replace(card, index=len(self.cards))))

    def with_cards(self, count: int, *, memory: int | str = 8000, vendor: str = NVIDIA, **facts: object) -> Self:
        """Add cards that are alike, named ``<node>-<index>``."""
        node = self
        for index in range(len(self.cards), len(self.cards) + count):
            node = node.with_card(a_card(f"{self.name}-{index}", memory=memory, vendor=vendor, **facts))
        return node

    def using(self, uuid: str, *, slots: int = 1, memory: int = 0, cores: int = 0) -> Self:
        """Book something on a card."""
        return structs.replace(self, booked=(*self.booked, (uuid, Charge(slots=slots, memory=memory, cores=cores))))

    def annotated(self, annotations: Mapping[str, str]) -> Self:
        """Add annotations."""
        return structs.replace(self, annotations=(*self.annotations, *annotations.items()))

    def node(self) -> Node:
        """Return the Node object as its device plugins publish it: registration, pair scores, allocatable slots."""
        catalog = a_catalog()
        published: dict[str, str] = dict(self.annotations)
        slots: dict[str, str | int | float] = {}
        for vendor in catalog.vendors:
            cards = [card for card in self.cards if card.vendor == vendor.word]
            if not cards:
                continue
            slots[vendor.resources.count] = str(sum(card.slots for card in cards))
            if vendor.form is Form.OWN:
                continue
            if vendor.keys.register:
                published[vendor.keys.register] = encode_register(cards, vendor.form)
            else:  # this vendor's cards are read from the node's capacity
                bits = vendor.resources.core_unit is CoreUnit.BITS
                slots[vendor.resources.cores] = str(sum(c.cores.bit_count() if bits else c.cores for c in cards))
                slots[vendor.resources.memory] = str(sum(c.memory for c in cards) // vendor.resources.memory_factor)
                slots.pop("", None)  # a vendor without such a resource
                if bits:
                    slots[vendor.resources.count] = str(len(cards))
            links = {card.id: card.links for card in cards if card.links}
            if links and vendor.keys.links:
                published[vendor.keys.links] = encode_links(links)
        status = NodeStatus(capacity=slots, allocatable=slots)
        return Node(metadata=Meta(name=self.name, annotations=published), status=status)


class PodBuilder(Struct, frozen=True, kw_only=True):
    """A pod, container by container."""

    name: str
    namespace: str = "team-a"
    containers: tuple[Container, ...] = ()
    init_containers: tuple[Container, ...] = ()
    annotations: tuple[tuple[str, str], ...] = ()

    def asking(self, **amounts: int | str) -> Self:
        """Add a container that asks for so much; without amounts one that asks for nothing."""
        return structs.replace(self, containers=(*self.containers, _container(f"c{len(self.containers)}", amounts)))

    def starting_with(self, **amounts: int | str) -> Self:
        """Add an init container."""
        added = _container(f"i{len(self.init_containers)}", amounts)
        return structs.replace(self, init_containers=(*self.init_containers, added))

    def beside(self, **amounts: int | str) -> Self:
        """Add a sidecar: an init container that keeps running."""
        added = structs.replace(_container(f"s{len(self.init_containers)}", amounts), restart_policy="Always")
        return structs.replace(self, init_containers=(*self.init_containers, added))

    def annotated(self, annotations: Mapping[str, str]) -> Self:
        """Add annotations."""
        return structs.replace(self, annotations=(*self.annotations, *annotations.items()))

    def pod(self) -> Pod:
        """Return the Pod object; its name serves as its uid."""
        meta = Meta(name=self.name, namespace=self.namespace, uid=self.name, annotations=dict(self.annotations))
        spec = PodSpec(containers=list(self.containers), init_containers=list(self.init_containers))
        return Pod(metadata=meta, spec=spec)


def a_node(name: str = "node-1") -> NodeBuilder:
    """Start a node without cards."""
    return NodeBuilder(name=name)


def a_pod(name: str = "p1") -> PodBuilder:
    """Start a pod without containers."""
    return PodBuilder(name=name)


def a_fleet(*nodes: NodeBuilder, catalog: Catalog | None = None) -> Fleet:
    """Return a fleet of these nodes."""
    fleet = Fleet(catalog or a_catalog())
    for built in nodes:
        add_to(fleet, built)
    return fleet


def add_to(fleet: Fleet, built: NodeBuilder) -> None:
    """Register one node in a fleet, and book what it uses."""
    for word in dict.fromkeys(card.vendor for card in built.cards):
        fleet.set_devices(built.name, word, [card for card in built.cards if card.vendor == word])
    fleet.set_node(built.node())
    vendor_of = {card.id: card.vendor for card in built.cards}
    for uuid, charge in built.booked:
        fleet.charge(built.name, {(vendor_of[uuid], uuid): charge})


def _container(name: str, amounts: Mapping[str, int | str]) -> Container:
    limits = {RESOURCES.get(key, key): str(amount) for key, amount in amounts.items()}
    return Container(name=name, resources=Resources(limits=dict(_items(limits))) if limits else None)


def _items(limits: Mapping[str, str]) -> Iterable[tuple[str, str | int | float]]:
    return limits.items()
