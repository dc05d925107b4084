"""From what the driver shows to cards as they are registered (spec: HAMi's NVIDIA plugin, register loop).

One rule: everything here is arithmetic; nothing asks the driver. Memory in MiB, cores in percent of a card.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import ceil
from pathlib import Path

from hami_model.device import Device, MigProfile, Placement
from msgspec import structs

from hami_node_agent.node_config import MIG, CardRules
from hami_node_agent.probes.nvml.driver import Card
from hami_node_agent.probes.nvml.links import Link
from hami_node_agent.probes.nvml.profiles import Profile, named

WORD = "NVIDIA"
MIB = 1024 * 1024

_OF_BUS = {50: 10, 40: 20, 30: 30, 20: 40, 10: 50, 0: 60}
"""Points of NVML's topology levels, from across the sockets to one board."""

_OF_NVLINK = 100


def is_left_alone(card: Card, rules: CardRules) -> bool:
    """Say whether the node's config takes the card out, by uuid or index."""
    return card.uuid in rules.left_alone.uuid or card.index in rules.left_alone.index


def device(card: Card, rules: CardRules, *, sysfs: Path) -> Device | None:
    """Return the card as it is registered; None for one whose memory nobody knows, or that MIG cannot cut."""
    base = Device(
        id=card.uuid,
        vendor=WORD,
        index=card.index,
        slots=rules.slots,
        memory=_memory(card, rules),
        cores=int(rules.core_scaling * 100),
        model=card.name if card.name.startswith(WORD) else f"{WORD}-{card.name}",
        numa=numa_node(card.bus, sysfs),
        mode=rules.mode,
    )
    if rules.mode == MIG:
        return _partitioned(base, card, rules)
    return base if base.memory else None


def _memory(card: Card, rules: CardRules) -> int:
    if card.memory is None:
        return rules.known_memory
    plain = card.memory // MIB
    return plain if rules.mode == MIG or rules.memory_scaling == 1 else int(plain * rules.memory_scaling)


def is_to_cut(card: Card, rules: CardRules) -> bool:
    """Say whether the card is one to be cut into instances: it can be, and node and model say so."""
    return rules.mode == MIG and card.can_be_cut and any(_allowed(card, rules))


def _allowed(card: Card, rules: CardRules) -> Iterator[tuple[str, ...]]:
    """Yield the profiles of each entry of the allowlist that means the card's model."""
    return (one.profiles for one in rules.allowlist if any(model in card.name for model in one.models))


def _partitioned(base: Device, card: Card, rules: CardRules) -> Device | None:
    """Return the card with its profiles: those of the first entry for its model that names any it has.

    ``H20`` is in the name of an H200 too, which has none of an H20's profiles.
    """
    of_entries = (_known(names, card.profiles) for names in _allowed(card, rules))
    known = next((found for found in of_entries if found), None)
    if known is None:
        return None
    most = max(profile.sms for profile in card.profiles)
    return structs.replace(
        base,
        slots=max(profile.instances for _, profile in known),
        cores=100,
        mig_profiles=tuple(_profile(name, profile, most) for name, profile in known),
    )


def _known(names: Iterable[str], profiles: Sequence[Profile]) -> list[tuple[str, Profile]]:
    return [(name, profile) for name in names if (profile := named(name, profiles)) is not None]


def _profile(name: str, profile: Profile, most: int) -> MigProfile:
    return MigProfile(
        name=name,
        memory=profile.memory,
        cores=ceil(100 * profile.sms / most),
        slices=profile.slices,
        placements=tuple(Placement(start, size) for start, size in profile.placements),
    )


def numa_node(bus: str, sysfs: Path) -> int:
    """Return the NUMA node of a PCI device; 0 where the system does not say."""
    try:
        return max(int((sysfs / "bus/pci/devices" / bus.removeprefix("0000") / "numa_node").read_text()), 0)
    except (OSError, ValueError):
        return 0


def scores(links: Mapping[tuple[str, str], Link]) -> dict[str, dict[str, int]]:
    """Return each card's pair scores: the sum over its links. HAMi compat: a pair linked one way only scores 0."""
    found: dict[str, dict[str, int]] = {}
    for (one, other), link in links.items():
        for mine, theirs in ((one, other), (other, one)):
            found.setdefault(mine, {})[theirs] = _score(link)
    return found


def _score(link: Link) -> int:
    if bool(link.there) != bool(link.back):
        return 0
    return _OF_BUS.get(link.level, 0) + _OF_NVLINK * link.there if link.level is not None else _OF_NVLINK * link.there


def asymmetric(links: Mapping[tuple[str, str], Link]) -> Iterator[tuple[str, str]]:
    """Yield the pairs of which only one end sees an NVLink."""
    return (pair for pair, link in links.items() if bool(link.there) != bool(link.back))


def linked(devices: Iterable[Device], links: Mapping[tuple[str, str], Link]) -> tuple[Device, ...]:
    """Return the devices with their pair scores, among themselves."""
    every, pairs = list(devices), scores(links)
    known = {each.id for each in every}
    return tuple(
        structs.replace(each, links={uuid: n for uuid, n in pairs.get(each.id, {}).items() if uuid in known})
        for each in every
    )
