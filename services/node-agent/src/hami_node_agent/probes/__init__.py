"""Where a node's cards come from: the ``Probe`` protocol, and the word in the settings that chooses one."""

from collections.abc import Mapping
from typing import Protocol

from hami_kit.clock import Clock
from hami_model.device import Device

from hami_node_agent.node_config import NodeConfig
from hami_node_agent.probes.nvml import NvmlProbe, XidRules
from hami_node_agent.probes.nvml.driver import CardFacts, Driver, DriverVersions
from hami_node_agent.probes.simulated import SimulatedProbe
from hami_node_agent.settings import Settings

__all__ = ["CardFacts", "DriverVersions", "NvmlProbe", "Probe", "SimulatedProbe", "probe_of"]


class Probe(Protocol):
    """Looks at the node's cards."""

    async def look(self) -> tuple[Device, ...]:
        """Return every card as it is now, healthy or not; raise ``ValueError`` where they cannot be read."""
        ...

    async def wait_news(self, seconds: float) -> None:
        """Return when it is time to look again: after so many seconds, or once something happened to a card."""
        ...

    @property
    def facts(self) -> Mapping[str, CardFacts]:
        """Return what is known of each card beside how it is registered, by id."""
        ...

    @property
    def versions(self) -> DriverVersions:
        """Return which driver the cards have."""
        ...

    def close(self) -> None:
        """Let go of whatever is held."""
        ...


def probe_of(settings: Settings, config: NodeConfig, clock: Clock) -> Probe:
    """Return the probe that ``HAMI_PROBES`` names; raise ``ValueError`` with one sentence for a word we do not know."""
    kind, _, argument = settings.probes.partition(":")
    match kind:
        case "sim" if argument:
            return SimulatedProbe(argument)
        case "nvml" if not argument:
            xids = XidRules.of(settings.xids_ignored, settings.xids_counted)
            return NvmlProbe(config, xids=xids, clock=clock, driver=Driver(settings.driver_root))
        case _:
            raise ValueError(f'"{settings.probes}" names no probe; write nvml, or sim:<cards.yaml>')
