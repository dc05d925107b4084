"""The node's cards: what they are called towards the kubelet, how their content is named, when they change.

One rule: cards stand in the order of vendor, index and id, so equal cards always give an equal digest.
"""

import asyncio
import hashlib
import logging
from collections.abc import Callable, Iterable, Mapping

import msgspec
from hami_model.device import Device
from msgspec import structs

from hami_node_agent.delivery import CardNumbers
from hami_node_agent.node_config import MIG
from hami_node_agent.probes import CardFacts, DriverVersions, Probe

log = logging.getLogger(__name__)

LOOK_EVERY = 5.0
"""Seconds between two looks at the cards."""


def replica_ids(card: Device) -> tuple[str, ...]:
    """Return the device IDs by which the kubelet counts one card."""
    return tuple(f"{card.id}-{i}" for i in range(card.slots))


def card_of(device_id: str) -> str:
    """Return the card that a device ID belongs to."""
    return device_id.rpartition("-")[0]


def digest(cards: Iterable[Device]) -> str:
    """Return a name for this content: equal for equal cards, whatever the order they were found in."""
    return hashlib.blake2b(msgspec.json.encode(in_order(cards), order="deterministic"), digest_size=16).hexdigest()


def in_order(cards: Iterable[Device]) -> tuple[Device, ...]:
    """Return the cards by vendor, index and id."""
    return tuple(sorted(cards, key=lambda card: (card.vendor, card.index, card.id)))


class Inventory:
    """The cards as last seen; whoever waits hears of each change.

    ``complaint``: says why no card of the node can take anybody by limits, whatever the probe says; ``uncut``: why a
    card in mode mig cannot be cut; empty = they can. Without ``uncut`` nobody here can cut any.
    """

    def __init__(
        self,
        probe: Probe,
        cards: tuple[Device, ...] = (),
        *,
        complaint: Callable[[], str] = lambda: "",
        uncut: Callable[[str], str] | None = None,
    ) -> None:
        self._probe = probe
        self._complaint = complaint
        self._uncut = uncut
        self._complained = ""
        self._cards = in_order(cards)
        self._named: tuple[tuple[Device, ...], str] | None = None
        """The digest of these cards."""
        self._changed = asyncio.Condition()
        self.revision = 0

    @property
    def cards(self) -> tuple[Device, ...]:
        """Return every card of the node."""
        return self._cards

    @property
    def facts(self) -> Mapping[str, CardFacts]:
        """Return what is known of each card beside how it is registered, by id."""
        return self._probe.facts

    @property
    def versions(self) -> DriverVersions:
        """Return which driver the cards have."""
        return self._probe.versions

    @property
    def numbers(self) -> dict[str, CardNumbers]:
        """Return by which numbers the driver and the kernel know each card."""
        return {
            card.id: CardNumbers(index=card.index, minor=self.facts[card.id].minor if card.id in self.facts else None)
            for card in self._cards
        }

    @property
    def digest(self) -> str:
        """Return the name of the present content."""
        if self._named is None or self._named[0] is not self._cards:
            self._named = self._cards, digest(self._cards)
        return self._named[1]

    @property
    def vendors(self) -> list[str]:
        """Return the words of the vendors that the node has cards of."""
        return sorted({card.vendor for card in self._cards})

    @property
    def unhealthy(self) -> list[str]:
        """Return the ids of the cards that are not healthy."""
        return [card.id for card in self._cards if not card.healthy]

    def of_vendor(self, word: str) -> tuple[Device, ...]:
        """Return one vendor's cards."""
        return tuple(card for card in self._cards if card.vendor == word)

    def card(self, word: str, card_id: str) -> Device | None:
        """Return one card, if the node has it."""
        return next((c for c in self._cards if c.vendor == word and c.id == card_id), None)

    async def look(self) -> None:
        """Ask the probe once; raise ``ValueError`` where the cards cannot be read."""
        cards = in_order(self._judged(await self._probe.look()))
        if cards == self._cards:
            return
        async with self._changed:
            self._cards = cards
            self.revision += 1
            self._changed.notify_all()

    def _judged(self, cards: tuple[Device, ...]) -> tuple[Device, ...]:
        why = self._complaint() if any(card.mode != MIG for card in cards) else ""
        if why != self._complained:
            log.warning("%s", f"no card takes a pod: {why}" if why else "containers can be limited again")
        self._complained = why
        return tuple(
            structs.replace(card, healthy=card.healthy and not (self._is_uncut(card.id) if card.mode == MIG else why))
            for card in cards
        )

    def _is_uncut(self, card: str) -> bool:
        return self._uncut is None or bool(self._uncut(card))

    async def wait_changed(self, revision: int) -> int:
        """Return the present revision once it is another than the one given."""
        async with self._changed:
            await self._changed.wait_for(lambda: self.revision != revision)
            return self.revision

    async def run(self) -> None:
        """Look again and again until cancelled; cards that cannot be read for a moment stay as they were."""
        try:
            while True:
                await self._probe.wait_news(LOOK_EVERY)
                try:
                    await self.look()
                except ValueError as e:
                    log.warning("the cards could not be read, the last known ones stand: %s", e)
        finally:
            self._probe.close()
