"""A scheduler without columns: one card, one node, one container at a time, written to be read.

One rule: it shares no code with the model's placing; it reads demands, policies and devices, and says in plain loops
what the answer must be. How NPUs are picked stands in ``slow_npus``, how connected GPUs are in ``slow_topology``,
cards of two forms in ``slow_forms``, and pods that look at who else is on a card in ``slow_guests``.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from hami_model.device import Device
from hami_model.quota import Room
from hami_model.reason import NODE_INSUFFICIENT, NODE_UNREGISTERED, Reason, reason_text
from hami_model.request import ContainerDemand, CoreUnit, Demand, Role
from hami_model.vendor import Constraints

from hami_testkit import slow_forms, slow_guests, slow_npus
from hami_testkit.slow_npus import Refused
from hami_testkit.slow_scores import bonus, in_order, score, size_for, wanted_cores, wanted_memory
from hami_testkit.slow_topology import best_connected
from hami_testkit.slow_world import SlowNode, SlowPod, Use


def decide(nodes: Mapping[str, SlowNode], pod: SlowPod) -> tuple[str, list[list[str]], dict[str, str]]:
    """Return the node (or none), the uuids by container, and the words of each node that refuses."""
    fits: dict[str, list[list[str]]] = {}
    refused: dict[str, str] = {}
    for name, node in nodes.items():
        try:
            fits[name] = on_node(node, pod)[0]
        except Refused as words:
            refused[name] = str(words)
    sign = 1 if pod.policies.prefers_full_nodes else -1
    ranks = {
        name: float(np.float32(sign * score(nodes[name]) + bonus(nodes[name], pod, taken)))
        for name, taken in fits.items()
    }
    best = max(fits, key=ranks.__getitem__, default="")
    return best, fits.get(best, []), refused


def on_node(node: SlowNode, pod: SlowPod) -> tuple[list[list[str]], dict[str, Use]]:
    """Return the uuids that each container takes, and what is booked by then."""
    if not node.devices:
        raise Refused(NODE_UNREGISTERED)
    use = {device.id: replace(node.use.get(device.id, Use())) for device in node.devices}
    listed = list(node.devices)
    return [on_container(node, pod, container, use, listed) for container in pod.demand], use


def held(node: SlowNode, pod: SlowPod, *, initialised: bool = False) -> dict[str, Use]:
    """Return what a pod will hold of each card there, given whether its ordinary init containers have ended."""
    shares = {}
    for uuid, use in on_node(node, pod)[1].items():
        start = (0, 0) if initialised else use.peak
        memory, cores = max(use.running[0], start[0]), max(use.running[1], start[1])
        slots = max(use.shares, 0 if initialised else use.starts)
        if slots:
            shares[uuid] = Use(slots=slots, memory=memory, cores=cores)
    return shares


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
        use.starts = max(use.starts, use.shares + 1)
        return
    use.running, use.shares = together, use.shares + 1
    use.slots, use.memory, use.cores = use.slots + 1, use.memory + memory, use.cores + cores


def take(
    mine: list[Device], demand: Demand, pod: SlowPod, node: SlowNode, use: dict[str, Use]
) -> list[tuple[Device, int, int]]:
    """Walk one vendor's cards from the end of the sorted list."""
    if demand.vendor == "AWSNeuron" and demand.count > 1:
        block = slow_npus.block([(card, card.healthy and not use[card.id].slots) for card in mine], demand.count)
        return [(card, 0, wanted_cores(demand, card, 0)) for card in block]
    counts: Counter[Reason] = Counter()
    groups: list[list[Device]] = [[]]
    """Cards that may be taken together, the last group still growing."""
    numa: int | None = None
    rules = pod.constraints[demand.vendor]
    lacks_size = demand.slices is not None and not all(size_for(demand, device).slices for device in mine)
    if lacks_size or (rules.soft_split and not node.soft_split):
        raise Refused(reason_text({Reason.MODE_MISMATCH: 1}, len(mine)))
    pick = _picker(demand, pod, node, mine)
    by_links = demand.vendor == "NVIDIA" and "topology-aware" in pod.policies.card.split(",")
    for device in reversed(mine):
        early = first_reason(device, pod, node)
        if rules.numa_bind and early is None and device.numa != numa:
            numa = device.numa
            if groups[-1] and not by_links:
                counts[Reason.NUMA_MISMATCH] += len(groups[-1])
            groups.append([])
        reason = early or later_reason(device, demand, pod, node, use, groups[-1][: demand.count - 1])
        if reason is not None:
            counts[reason] += 1
            continue
        groups[-1].append(device)
        if len(groups[-1]) == demand.count and pick is None and not by_links:
            break
    taken, total = groups[-1], None
    if by_links:
        taken = best_connected(groups, demand.count)
    elif pick is not None:
        taken, total = pick(groups[-1])
    if len(taken) == demand.count and is_paid(demand, _room(demand, pod), taken, mine, use):
        counted = rules.counts_cores
        wanted = [(wanted_memory(demand, card), wanted_cores(demand, card, use[card.id].cores)) for card in taken]
        return [(card, memory, cores if counted else 0) for card, (memory, cores) in zip(taken, wanted, strict=True)]
    too_few = groups[-1] if by_links and rules.numa_bind else taken
    if len(taken) == demand.count:
        counts[Reason.QUOTA_EXCEEDED] += len(taken)
    elif too_few or total is not None:
        counts[Reason.TOO_FEW_CARDS] = len(too_few)
    raise Refused(reason_text(slow_forms.told(demand.vendor, counts), len(mine) if total is None else total))


def _picker(demand: Demand, pod: SlowPod, node: SlowNode, mine: list[Device]) -> slow_npus.Pick | None:
    """Return how cards are picked where the first ones are not always the right ones."""
    if demand.vendor in slow_forms.WINGED:
        return lambda passed: (slow_forms.from_wings(passed, demand.count), None)
    if demand.vendor == slow_guests.SHARED:
        of_guests = slow_guests.picker(demand, node, slow_guests.guest(pod.annotations, demand.cores).kind)
        return None if of_guests is None else lambda passed: (of_guests(passed), None)
    return slow_npus.picker(demand, mine)


def _room(demand: Demand, pod: SlowPod) -> Room:
    """Return what the namespace may take; cards that are asked for by number alone have no quota."""
    room = pod.rooms.get(demand.vendor, Room())
    if demand.vendor in (*slow_forms.ALONE, *slow_forms.WINGED):
        return Room()
    return room if pod.constraints[demand.vendor].counts_cores else Room(memory=room.memory)


def first_reason(device: Device, pod: SlowPod, node: SlowNode) -> Reason | None:
    """Return why the card is not even looked at."""
    rules, model = pod.constraints[device.vendor], device.model.upper()
    if device.vendor in slow_forms.WINGED and _is_barred(device, rules):
        return Reason.UUID_MISMATCH
    if not device.healthy:
        return Reason.CARD_UNHEALTHY if device.vendor == slow_guests.SHARED else Reason.UNHEALTHY
    if device.id in node.cordoned:
        return Reason.CORDONED
    if rules.use_models is not None and not any(item in model for item in rules.use_models):
        return Reason.TYPE_MISMATCH
    return None


def _is_barred(device: Device, rules: Constraints) -> bool:
    """Say whether the pod's lists of cards bar this one."""
    is_used = rules.use_uuids is None or device.id in rules.use_uuids
    return not is_used or (rules.nouse_uuids is not None and device.id in rules.nouse_uuids)


def later_reason(
    device: Device, demand: Demand, pod: SlowPod, node: SlowNode, use: dict[str, Use], taken: list[Device]
) -> Reason | None:
    """Return why a card that is looked at does not serve."""
    memory, used, mine = wanted_memory(demand, device), use[device.id], vendors_cards(node, device.vendor)
    by_others = Reason.EXCLUSIVE_CONFLICT if slow_forms.in_other_form(device, node, use) else None
    if device.vendor in (*slow_forms.ALONE, *slow_forms.WINGED):
        return slow_forms.refusal(device, memory, used, mutex=pod.is_mutex) or by_others
    if device.vendor == slow_guests.SHARED:
        me, before = slow_guests.guest(pod.annotations, demand.cores), node.use.get(device.id, Use())
        unwelcome = slow_guests.refusal(node.guests.get(device.id, ()), me, before)
        if unwelcome is not None:
            return unwelcome
    if _is_barred(device, pod.constraints[demand.vendor]):
        return Reason.UUID_MISMATCH
    if by_others is not None:
        return by_others
    if used.slots >= device.slots:
        return Reason.SLOTS_EXHAUSTED
    if pod.is_mutex and any(use[card.id].slots > 0 for card in one_piece(device, mine)):
        return Reason.EXCLUSIVE_CONFLICT
    if not is_paid(demand, _room(demand, pod), [*taken, device], mine, use):
        return Reason.QUOTA_EXCEEDED
    if max(device.memory - used.memory, 0) < memory:
        return Reason.INSUFFICIENT_MEMORY
    if pod.constraints[demand.vendor].counts_cores:
        lacking = lacking_cores(device, demand, used, total=100 if pod.constraints[demand.vendor].soft_split else None)
        if lacking is not None:
            return lacking
    if device.vendor == "Mthreads" and any(use[card.id].shares for card in mine if card is not device):
        return Reason.CUSTOM_RULE
    return None


def lacking_cores(device: Device, demand: Demand, used: Use, total: int | None) -> Reason | None:
    """Return why a card has not the cores that are wanted; ``total`` where it is another than the card lists."""
    total, cores = device.cores if total is None else total, wanted_cores(demand, device, used.cores)
    if device.vendor == slow_guests.SHARED and used.cores + demand.cores > total:  # more than a card has is not all
        return Reason.INSUFFICIENT_CORES
    if demand.core_unit is CoreUnit.BITS and cores.bit_count() < (demand.cores or total.bit_count()):
        return Reason.INSUFFICIENT_CORES
    if total - used.cores < cores:
        return Reason.INSUFFICIENT_CORES
    if demand.core_unit is not CoreUnit.PERCENT:
        return None
    if total == 100 and cores == 100 and used.slots > 0:
        return Reason.EXCLUSIVE_CONFLICT
    return Reason.COMPUTE_EXHAUSTED if cores == 0 and total != 0 and used.cores >= total else None


def vendors_cards(node: SlowNode, word: str) -> list[Device]:
    """Return a node's cards of one vendor."""
    return [device for device in node.devices if device.vendor == word]


def one_piece(device: Device, mine: list[Device]) -> list[Device]:
    """Return the cards that are one piece of hardware with this one, itself included: Vastai's dies of one AIC."""
    aic = slow_npus.network(device) if device.vendor == "Vastai" else None
    return [device] if aic is None else [card for card in mine if slow_npus.network(card) == aic]


def is_paid(demand: Demand, room: Room, wanted: list[Device], mine: list[Device], use: dict[str, Use]) -> bool:
    """Say whether the namespace may take all wanted cards beside what the pod has."""
    if demand.core_unit is not CoreUnit.PERCENT:
        room = Room(memory=room.memory)
    ids = {device.id for device in wanted}
    memory = cores = 0
    for device in mine:
        used = use[device.id]
        more = device.id in ids
        memory += max(used.paid[0], used.running[0] + more * wanted_memory(demand, device))
        cores += max(used.paid[1], used.running[1] + more * _paid_cores(demand, device))
    return room.holds(memory, cores)


def _paid_cores(demand: Demand, device: Device) -> int:
    return wanted_cores(demand, device, 0) if demand.core_unit is CoreUnit.PERCENT else min(demand.cores, 100)
