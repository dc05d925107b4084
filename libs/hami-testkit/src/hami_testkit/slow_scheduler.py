"""A scheduler without columns: one card, one node, one container at a time, written to be read.

One rule: it shares no code with the model's placing; it reads demands, policies and devices, and says in plain loops
what the answer must be. Of the vendors' own pickers only NVIDIA's is here.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from hami_model.device import Device
from hami_model.policies import PodPolicies
from hami_model.quota import Room
from hami_model.reason import NODE_INSUFFICIENT, NODE_UNREGISTERED, Reason, reason_text
from hami_model.request import ContainerDemand, Demand, Exactly, Percent, PodDemand, Role
from hami_model.vendor import Constraints

from hami_testkit.slow_topology import best_connected


@dataclass
class Use:
    """What is booked on one card, and what this pod has of it."""

    slots: int = 0
    memory: int = 0
    cores: int = 0
    running: tuple[int, int] = (0, 0)
    peak: tuple[int, int] = (0, 0)

    @property
    def paid(self) -> tuple[int, int]:
        """Return the memory and cores that the namespace pays for."""
        return max(self.peak[0], self.running[0]), max(self.peak[1], self.running[1])


@dataclass
class SlowNode:
    """A node: its cards in the order of its list, and their use by uuid."""

    devices: Sequence[Device]
    use: Mapping[str, Use] = field(default_factory=dict)
    cordoned: frozenset[str] = frozenset()


@dataclass
class SlowPod:
    """What decides about one pod, for every vendor the same."""

    demand: PodDemand
    constraints: Constraints
    policies: PodPolicies
    room: Room


class Refused(Exception):
    """The node does not take the pod; its text is HAMi's."""


def decide(nodes: Mapping[str, SlowNode], pod: SlowPod) -> tuple[str, list[list[str]], dict[str, str]]:
    """Return the node (or none), the uuids by container, and the words of each node that refuses."""
    fits: dict[str, list[list[str]]] = {}
    refused: dict[str, str] = {}
    for name, node in nodes.items():
        try:
            fits[name] = on_node(node, pod)
        except Refused as words:
            refused[name] = str(words)
    sign = 1 if pod.policies.prefers_full_nodes else -1
    best = max(fits, key=lambda name: sign * score(nodes[name]), default="")
    return best, fits.get(best, []), refused


def on_node(node: SlowNode, pod: SlowPod) -> list[list[str]]:
    """Return the uuids that each container takes."""
    if not node.devices:
        raise Refused(NODE_UNREGISTERED)
    use = {device.id: replace(node.use.get(device.id, Use())) for device in node.devices}
    listed = list(node.devices)
    return [on_container(node, pod, container, use, listed) for container in pod.demand]


def on_container(
    node: SlowNode, pod: SlowPod, container: ContainerDemand, use: dict[str, Use], listed: list[Device]
) -> list[str]:
    """Return the uuids that one container takes, and book them; ``listed`` stays as what runs beside it is sorted."""
    taken: list[tuple[Device, int, int]] = []
    for demand in container.demands:
        mine = [device for device in listed if device.vendor == demand.vendor]
        if len(mine) < demand.count:
            raise Refused(NODE_INSUFFICIENT)
        mine = in_order(mine, container, pod, use)
        taken += take(mine, demand, pod, node, use)
        if container.role is not Role.INIT:
            listed[:] = [device for device in listed if device.vendor != demand.vendor] + mine
    for device, memory, cores in taken:
        book(use[device.id], container.role, memory, cores)
    return [device.id for device, _, _ in taken]


def book(use: Use, role: Role, memory: int, cores: int) -> None:
    """Book a share: an init container's is free again when it ends."""
    together = (use.running[0] + memory, use.running[1] + cores)
    if role is Role.INIT:
        use.peak = max(use.peak[0], together[0]), max(use.peak[1], together[1])
        return
    use.running = together
    use.slots, use.memory, use.cores = use.slots + 1, use.memory + memory, use.cores + cores


def take(
    mine: list[Device], demand: Demand, pod: SlowPod, node: SlowNode, use: dict[str, Use]
) -> list[tuple[Device, int, int]]:
    """Walk one vendor's cards from the end of the sorted list."""
    counts: Counter[Reason] = Counter()
    groups: list[list[Device]] = [[]]
    """Cards that may be taken together, the last group still growing."""
    numa: int | None = None
    picks = demand.vendor == "NVIDIA" and "topology-aware" in pod.policies.card.split(",")
    for device in reversed(mine):
        early = first_reason(device, pod, node)
        if pod.constraints.numa_bind and early is None and device.numa != numa:
            numa = device.numa
            if groups[-1] and not picks:
                counts[Reason.NUMA_MISMATCH] += len(groups[-1])
            groups.append([])
        reason = early or later_reason(device, demand, pod, use, groups[-1], mine)
        if reason is not None:
            counts[reason] += 1
            continue
        groups[-1].append(device)
        if len(groups[-1]) == demand.count and not picks:
            return shares(groups[-1], demand)
    taken = groups[-1]
    if picks:
        chosen = best_connected(groups, demand.count)
        if len(chosen) == demand.count and is_paid(demand, pod.room, chosen, mine, use):
            return shares(chosen, demand)
        taken = groups[-1] if pod.constraints.numa_bind else chosen
    if taken:
        counts[Reason.TOO_FEW_CARDS] = len(taken)
    raise Refused(reason_text(counts, len(mine)))


def shares(cards: list[Device], demand: Demand) -> list[tuple[Device, int, int]]:
    """Return what the demand takes of each card."""
    return [(card, wanted_memory(demand, card), min(demand.cores, 100)) for card in cards]


def first_reason(device: Device, pod: SlowPod, node: SlowNode) -> Reason | None:
    """Return why the card is not even looked at."""
    rules = pod.constraints
    model = device.model.upper()
    if not device.healthy:
        return Reason.UNHEALTHY
    if device.id in node.cordoned:
        return Reason.CORDONED
    if rules.use_models is not None and not any(item in model for item in rules.use_models):
        return Reason.TYPE_MISMATCH
    return None


def later_reason(
    device: Device, demand: Demand, pod: SlowPod, use: dict[str, Use], taken: list[Device], mine: list[Device]
) -> Reason | None:
    """Return why a card that is looked at does not serve."""
    used, cores, memory = use[device.id], min(demand.cores, 100), wanted_memory(demand, device)
    if pod.constraints.use_uuids is not None and device.id not in pod.constraints.use_uuids:
        return Reason.UUID_MISMATCH
    if used.slots >= device.slots:
        return Reason.SLOTS_EXHAUSTED
    if "mutex" in pod.policies.card.split(",") and used.slots > 0:
        return Reason.EXCLUSIVE_CONFLICT
    if not is_paid(demand, pod.room, [*taken[: demand.count - 1], device], mine, use):
        return Reason.QUOTA_EXCEEDED
    if max(device.memory - used.memory, 0) < memory:
        return Reason.INSUFFICIENT_MEMORY
    if device.cores - used.cores < cores:
        return Reason.INSUFFICIENT_CORES
    if device.cores == 100 and cores == 100 and used.slots > 0:
        return Reason.EXCLUSIVE_CONFLICT
    if cores == 0 and device.cores != 0 and used.cores >= device.cores:
        return Reason.COMPUTE_EXHAUSTED
    return None


def is_paid(demand: Demand, room: Room, wanted: list[Device], mine: list[Device], use: dict[str, Use]) -> bool:
    """Say whether the namespace may take all wanted cards beside what the pod has."""
    ids = {device.id for device in wanted}
    memory = cores = 0
    for device in mine:
        used = use[device.id]
        more = device.id in ids
        memory += max(used.paid[0], used.running[0] + more * wanted_memory(demand, device))
        cores += max(used.paid[1], used.running[1] + more * min(demand.cores, 100))
    return room.holds(memory, cores)


def in_order(mine: list[Device], container: ContainerDemand, pod: SlowPod, use: dict[str, Use]) -> list[Device]:
    """Sort the cards by the policy; Python's sort keeps equals in order."""
    columns = {
        "score": lambda device: card_score(device, container, pod, use[device.id]),
        "numa": lambda device: device.numa,
        "index": lambda device: device.index,
        "used_slots": lambda device: use[device.id].slots,
    }
    cards = list(mine)
    for key in reversed(pod.policies.card_order(numa_bind=pod.constraints.numa_bind)):
        sign = -1 if key.descending else 1
        cards.sort(key=lambda device, column=columns[key.column], sign=sign: sign * column(device))  # type: ignore[misc]
    return cards


def wanted_memory(demand: Demand, device: Device) -> int:
    """Return the MiB that a demand takes of a card."""
    match demand.memory:
        case Exactly(mib):
            return mib
        case Percent(percent):
            return device.memory * percent // 100
        case _:
            return device.memory


def card_score(device: Device, container: ContainerDemand, pod: SlowPod, used: Use) -> float:
    """Score one card, in 32 bits."""
    if 0 in (device.slots, device.cores, device.memory):
        return 0.0
    asked = [demand for demand in container.demands if demand.vendor == device.model]
    slots = used.slots + len(asked)
    cores = used.cores + sum(demand.cores for demand in asked)
    memory = used.memory + sum(wanted_memory(demand, device) for demand in asked)
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
