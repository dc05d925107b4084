"""Cores in percent of a card, as the metrics count them, whatever unit a vendor books them in.

One rule: what is booked is rounded up, so that a card in use never shows 0; who books in percent stays untouched.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Self

from hami_model.allocation import ContainerGrants, Grant
from hami_model.bus.messages import Booking, DeviceUse, NodeUse
from hami_model.cores import WHOLE_CARD, counted
from hami_model.device import Device
from hami_model.request import CoreUnit
from hami_model.vendor import Vendor
from msgspec import Struct, structs


class InPercent(Struct, frozen=True):
    """The vendors that book cores in another unit, by word."""

    units: Mapping[str, CoreUnit]

    @classmethod
    def of(cls, vendors: Iterable[Vendor]) -> Self:
        """Collect them."""
        units = {vendor.word: vendor.resources.core_unit for vendor in vendors}
        return cls({word: unit for word, unit in units.items() if unit is not CoreUnit.PERCENT})

    def node(self, use: NodeUse) -> NodeUse:
        """Return the node with all of its cores in percent."""
        if not any(each.device.vendor in self.units for each in use.devices):
            return use
        return structs.replace(use, devices=[self._card(each) for each in use.devices])

    def booking(self, booking: Booking, devices_of: Callable[[str], Iterable[Device]]) -> Booking:
        """Return the booking with all of its cores in percent; of a card that is gone they stay as they are booked."""
        held = booking.allocation
        if not any(word in self.units for word in held.vendors):
            return booking
        cards = {(device.vendor, device.id): device for device in devices_of(held.node)}
        containers = tuple(self._container(container, cards) for container in held.containers)
        return structs.replace(booking, allocation=structs.replace(held, containers=containers))

    def _card(self, use: DeviceUse) -> DeviceUse:
        unit = self.units.get(use.device.vendor)
        if unit is None:
            return use
        whole = structs.replace(use.device, cores=WHOLE_CARD)
        return structs.replace(use, device=whole, used_cores=_percent(unit, use.used_cores, use.device.cores))

    def _container(self, container: ContainerGrants, cards: Mapping[tuple[str, str], Device]) -> ContainerGrants:
        return structs.replace(container, grants=tuple(self._grant(grant, cards) for grant in container.grants))

    def _grant(self, grant: Grant, cards: Mapping[tuple[str, str], Device]) -> Grant:
        unit, card = self.units.get(grant.vendor), cards.get((grant.vendor, grant.uuid))
        if unit is None or card is None:
            return grant
        return structs.replace(grant, cores=_percent(unit, grant.cores, card.cores))


def _percent(unit: CoreUnit, booked: int, cores: int) -> int:
    there = counted(unit, cores)
    return -(-counted(unit, booked) * WHOLE_CARD // there) if there else 0
