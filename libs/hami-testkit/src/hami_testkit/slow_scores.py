"""How cards are ordered and nodes are ranked by a scheduler without columns: one card at a time, in 32 bits."""

import numpy as np
from hami_model.device import Device, Size
from hami_model.request import ContainerDemand, CoreUnit, Demand, Exactly, Percent

from hami_testkit import slow_forms, slow_guests, slow_npus
from hami_testkit.slow_world import SlowNode, SlowPod, Use


def in_order(mine: list[Device], container: ContainerDemand, pod: SlowPod, use: dict[str, Use]) -> list[Device]:
    """Sort the cards by the policy; Python's sort keeps equals in order."""
    columns = {
        "score": lambda device: card_score(device, container, pod, use[device.id]),
        "numa": lambda device: device.numa,
        "index": lambda device: device.index,
        "used_slots": lambda device: use[device.id].slots,
    }
    cards = list(mine)
    numa_bind = bool(mine) and pod.constraints[mine[0].vendor].numa_bind
    for key in reversed(pod.policies.card_order(numa_bind=numa_bind)):
        sign = -1 if key.descending else 1
        cards.sort(key=lambda device, column=columns[key.column], sign=sign: sign * column(device))  # type: ignore[misc]
    return cards


def wanted_memory(demand: Demand, device: Device) -> int:
    """Return the MiB that a demand takes of a card."""
    if demand.slices is not None:
        return size_for(demand, device).memory
    match demand.memory:
        case Exactly(mib):
            return mib
        case Percent(percent):
            return device.memory * percent // 100
        case _:
            return device.memory


def size_for(demand: Demand, device: Device) -> Size:
    """Return the size of the share that a card of certain sizes gives; one of nothing where none is large enough."""
    memory = demand.memory.mib if isinstance(demand.memory, Exactly) else 0
    for size in device.sizes:
        if size.slices == demand.slices or (not demand.slices and size.memory >= memory and size.cores >= demand.cores):
            return size
    return Size(name="", slices=0, memory=0, cores=0)


def wanted_cores(demand: Demand, device: Device, used: int) -> int:
    """Return the cores that a demand takes of a card: percent, a share of compute units, or the first free bits."""
    if demand.slices is not None:
        return size_for(demand, device).cores
    if demand.core_unit is CoreUnit.BITS:
        free = [bit for bit in range(device.cores.bit_length()) if not used >> bit & 1]
        return sum(1 << bit for bit in free[: demand.cores or None])
    if demand.core_unit is CoreUnit.UNITS:
        return max(1, device.cores * demand.cores // 100)
    return min(demand.cores, 100)


def weighed_memory(demand: Demand, device: Device) -> int:
    """Return the MiB that a demand weighs: a percentage beside an exact memory weighs instead of it."""
    if demand.slices is not None and isinstance(demand.memory, Exactly):
        return demand.memory.mib
    if demand.percent_hint is not None:
        return device.memory * demand.percent_hint // 100
    return wanted_memory(demand, device)


def card_score(device: Device, container: ContainerDemand, pod: SlowPod, used: Use) -> float:
    """Score one card, in 32 bits."""
    if 0 in (device.slots, device.cores, device.memory):
        return 0.0
    asked = [demand for demand in container.demands if demand.vendor == device.model]
    slots = used.slots + len(asked)
    cores = used.cores + sum(demand.cores for demand in asked)
    memory = used.memory + sum(weighed_memory(demand, device) for demand in asked)
    weights = pod.policies.weights
    parts = [
        np.float32(weight) * np.float32(amount) / np.float32(total)
        for weight, amount, total in (
            (weights.slot, slots, device.slots),
            (weights.core, cores, device.cores),
            (weights.memory, memory, device.memory),
        )
    ]
    return float(np.float32(10) * (parts[0] + parts[1] + parts[2]))


def score(node: SlowNode) -> float:
    """Score a node, in 32 bits."""
    uses = [node.use.get(device.id, Use()) for device in node.devices]
    pairs = (
        (sum(use.slots for use in uses), sum(device.slots for device in node.devices)),
        (sum(use.cores for use in uses), sum(device.cores for device in node.devices)),
        (sum(use.memory for use in uses), sum(device.memory for device in node.devices)),
    )
    if any(total == 0 for _, total in pairs):
        return 0.0
    parts = [np.float32(amount) / np.float32(total) for amount, total in pairs]
    return float(np.float32(10) * (parts[0] + parts[1] + parts[2]))


def bonus(node: SlowNode, pod: SlowPod, taken: list[list[str]]) -> float:
    """Return what the vendors add to a node's score for the cards that a pod takes there."""
    cards = {device.id: device for device in node.devices}
    words = dict.fromkeys(device.vendor for device in node.devices)
    by_word = ([[cards[uuid] for uuid in uuids if cards[uuid].vendor == word] for uuids in taken] for word in words)
    return sum(slow_npus.bonus(containers) for containers in by_word) + _by_kind(node, pod, taken)


def _by_kind(node: SlowNode, pod: SlowPod, taken: list[list[str]]) -> float:
    """Return the bonus of Kunlun's wings, and of MetaX's zones and quiet cards."""
    cards = {device.id: device for device in node.devices}
    winged = [cards[uuid].index for uuids in taken for uuid in uuids if cards[uuid].vendor == "kunlun"]
    used = [card.index for card in cards.values() if card.vendor == "kunlun" and node.use.get(card.id, Use()).slots]
    wings = slow_forms.wing_bonus(used, winged) if winged else 0.0
    given: list[tuple[Device, int]] = []
    for container, uuids in zip(pod.demand, taken, strict=True):
        cores = next((demand.cores for demand in container.demands if demand.vendor == slow_guests.SHARED), 0)
        given += [(cards[uuid], cores) for uuid in uuids if cards[uuid].vendor == slow_guests.SHARED]
    kind = slow_guests.guest(pod.annotations, 0).kind
    shares = slow_guests.bonus(node, kind, pod.constraints[slow_guests.SHARED].is_scored, given) if given else 0.0
    return wings + shares
