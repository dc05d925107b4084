"""The node's NVIDIA cards, by NVML.

One rule: the driver is asked in threads of its own, which may hang without holding anything up; a card that was once
seen and does not answer is there and unhealthy, until it answers again.
"""

import asyncio
import logging
import threading
from functools import partial
from pathlib import Path

from hami_kit.clock import Clock
from hami_model.device import Device
from msgspec import structs

from hami_node_agent.node_config import MIG, CardRules, NodeConfig
from hami_node_agent.probes.nvml import cards as reading
from hami_node_agent.probes.nvml.driver import Card, CardFacts, Driver, DriverTrouble, DriverVersions, Event, Seen
from hami_node_agent.probes.nvml.health import Infirmary, XidRules
from hami_node_agent.probes.nvml.threads import in_thread, tell

__all__ = ["NvmlProbe", "XidRules"]

log = logging.getLogger(__name__)

DEADLINE = 10.0
"""Seconds for one look; a driver that takes longer hangs."""

EVENT_WAIT = 1000
"""Milliseconds of one wait for errors: an agent at rest wakes up as seldom as it can."""

CLOSE_TIMEOUT = 0.2
"""Seconds that the end waits for such a wait; the process may end within one."""

PAUSE = 1.0
"""Seconds before errors are waited for again where that was refused."""

SYSFS = Path("/sys")


class NvmlProbe:
    """Looks by NVML, and hears of errors meanwhile."""

    def __init__(
        self,
        config: NodeConfig,
        *,
        xids: XidRules,
        clock: Clock,
        driver: Driver | None = None,
        deadline: float = DEADLINE,
        sysfs: Path = SYSFS,
    ) -> None:
        self._config = config
        self._clock = clock
        self._driver = driver or Driver()
        self._deadline = deadline
        self._sysfs = sysfs
        self._infirmary = Infirmary(xids)
        self._looking: asyncio.Future[Seen] | None = None
        self._known: dict[str, Device] = {}
        self._told: dict[str, str] = {}
        self.facts: dict[str, CardFacts] = {}
        """What is known beside of the registered cards that answered last, by uuid."""
        self.to_cut: dict[str, bool] = {}
        """The cards that are to be cut into MIG instances, by uuid, and whether MIG is on."""
        self._news = asyncio.Event()
        self._is_closed = threading.Event()
        self._listening: threading.Thread | None = None

    async def look(self) -> tuple[Device, ...]:
        """Return every card that was ever seen; raise ``ValueError`` where none was and the driver cannot be asked."""
        self._news.clear()
        try:
            seen = await self._ask()
        except (DriverTrouble, TimeoutError) as e:
            why = str(e) or f"the NVIDIA driver has not answered for {self._deadline:g} s: look at dmesg of the node"
            if not self._known:
                raise ValueError(why) from e
            self._complain("driver", why)
            self.facts = {}
            return tuple(structs.replace(device, healthy=False) for device in self._known.values())
        self._complain("driver", "")
        self._listen()
        return self._judge(seen)

    @property
    def versions(self) -> DriverVersions:
        """Return which driver it is."""
        return self._driver.versions

    async def wait_news(self, seconds: float) -> None:
        """Return after so many seconds, or as soon as the driver has reported an error that counts."""
        try:
            async with asyncio.timeout(seconds):
                await self._news.wait()
        except TimeoutError:
            return

    def hurry(self) -> None:
        """Have the cards looked at again soon."""
        self._news.set()

    def close(self) -> None:
        """Hear of errors no more; blocks for the rest of a wait."""
        self._is_closed.set()
        if self._listening is not None:
            self._listening.join(CLOSE_TIMEOUT)

    async def _ask(self) -> Seen:
        """Look in a thread; one that hangs is waited for again the next time, and no second one is begun."""
        if self._looking is None:
            self._looking = in_thread(self._driver.look)
        async with asyncio.timeout(self._deadline):
            await asyncio.wait([self._looking])
        looked, self._looking = self._looking, None
        return looked.result()

    def _judge(self, seen: Seen) -> tuple[Device, ...]:
        rules, at = self._config.rules, self._clock.monotonic()
        mine = [card for card in seen.cards if not reading.is_left_alone(card, rules)]
        shown = {card.uuid: device for card in mine if (device := reading.device(card, rules, sysfs=self._sysfs))}
        left = {card.uuid for card in seen.cards} - shown.keys()
        for card in mine:
            self._complain(card.uuid, "" if card.uuid in shown else f"{_why_not(card, rules)}: it is not registered")
        well = {card.uuid: self._is_well(card, at=at, mode=rules.mode) for card in mine if card.uuid in shown}
        for one, other in reading.asymmetric(seen.links):
            log.debug("cards %s and %s: only one end sees an NVLink; they count as not connected", one, other)
        devices = {d.id: structs.replace(d, healthy=well[d.id]) for d in reading.linked(shown.values(), seen.links)}
        for uuid in self._known.keys() - devices.keys() - left:
            self._complain(uuid, "it does not answer, or has fallen off the bus")
            devices[uuid] = structs.replace(self._known[uuid], healthy=False)
        self._known = devices
        self.to_cut = {card.uuid: card.is_partitioned for card in mine if reading.is_to_cut(card, rules)}
        self.facts = {card.uuid: card.facts for card in mine if card.uuid in shown}
        return tuple(devices.values())

    def _is_well(self, card: Card, *, at: float, mode: str) -> bool:
        complaint = self._infirmary.complaint(card, at=at)
        if not complaint and card.is_partitioned and mode != MIG:
            complaint = 'MIG is on, and the node is not in mode mig: turn it off, or set operatingmode "mig"'
        self._complain(card.uuid, complaint)
        return not complaint

    def _complain(self, about: str, why: str) -> None:
        """Tell each change once."""
        if self._told.get(about, "") != why:
            log.warning("card %s: %s", about, why or "it is well again")
        self._told[about] = why

    # Errors

    def _listen(self) -> None:
        if self._listening is None and self._driver.follows_events:
            loop = asyncio.get_running_loop()
            self._listening = threading.Thread(target=self._hear, args=(loop,), name="nvml events", daemon=True)
            self._listening.start()

    def _hear(self, loop: asyncio.AbstractEventLoop) -> None:
        while not self._is_closed.is_set():
            try:
                event = self._driver.wait_event(EVENT_WAIT)
            except DriverTrouble as e:
                log.debug("errors cannot be waited for: %s", e)
                self._is_closed.wait(PAUSE)
                continue
            if event is not None and not tell(loop, partial(self._heard, event)):
                return
            if not self._driver.follows_events:
                self._is_closed.wait(PAUSE)

    def _heard(self, event: Event) -> None:
        uuids = [event.uuid] if event.uuid is not None else list(self._known)
        counts = self._infirmary.report(uuids, event.xid, at=self._clock.monotonic())
        log.warning(
            "the driver reports XID %d of %s%s",
            event.xid,
            event.uuid or "some card",
            "" if counts else ", which is an application's fault",
        )
        if counts:
            self._news.set()


def _why_not(card: Card, rules: CardRules) -> str:
    if rules.mode != MIG:
        return "the driver does not tell its memory, and preConfiguredDeviceMemory is not set"
    if not card.can_be_cut:
        return f"a {card.name} cannot be cut with MIG, and the node is in mode mig"
    if reading.is_to_cut(card, rules) and not card.is_partitioned:
        return "MIG is still off"
    known = ", ".join(profile.name for profile in card.profiles) or "none"
    return f"migProfileAllowlist has no profile for a {card.name}, which has {known}"
