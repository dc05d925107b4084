"""Where a node's cards come from: the ``Probe`` protocol, and the word in the settings that chooses one."""

from typing import Protocol

from hami_model.device import Device

from hami_node_agent.probes.simulated import SimulatedProbe

__all__ = ["Probe", "SimulatedProbe", "probe_of"]


class Probe(Protocol):
    """Looks at the node's cards."""

    async def look(self) -> tuple[Device, ...]:
        """Return every card as it is now, healthy or not; raise ``ValueError`` where they cannot be read."""
        ...


def probe_of(setting: str) -> Probe:
    """Return the probe that ``HAMI_PROBES`` names; raise ``ValueError`` with one sentence for a word we do not know."""
    kind, _, argument = setting.partition(":")
    if kind == "sim" and argument:
        return SimulatedProbe(argument)
    if kind == "nvml":
        raise ValueError(
            '"nvml" is not available in this build, which reads no real cards yet; '
            "write sim:<cards.yaml> to describe the node's cards in a file"
        )
    raise ValueError(f'"{setting}" names no probe; write sim:<cards.yaml>')
