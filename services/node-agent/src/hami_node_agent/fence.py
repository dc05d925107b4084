"""The last fence: what the node has given out never exceeds a card, whatever the allocator says.

One rule: it counts what containers of this node really hold, from the agent's own table, by the same formula as the
allocator's ledger.
"""

from collections.abc import Callable, Iterable, Sequence

from hami_model.allocation import Allocation, ContainerGrants
from hami_model.charge import Charge, charge
from hami_model.device import Device
from hami_model.objects import Container, Pod, PodSpec
from hami_model.request import Role

from hami_node_agent.node_config import HAMI_CORE, MIG
from hami_node_agent.table import Entry

Lookup = Callable[[str, str], Device | None]
"""Vendor word and card id -> the card."""


def overfull(entries: Sequence[Entry], new: Entry, *, card: Lookup, pod: Callable[[str], Pod | None]) -> str | None:
    """Say in one sentence why the new entry must be refused, or None: every card it names still holds everybody."""
    held = [entry for entry in entries if entry.key != new.key and entry.served]
    used = _totals([*held, new], pod)
    for grant in new.grants:
        device = card(grant.vendor, grant.uuid)
        if device is None:
            return f"card {grant.uuid} of the allocation is not on this node"
        if not device.healthy:
            return f"card {grant.uuid} of the allocation is unhealthy"
        if (device.mode == MIG) != bool(grant.cuts):
            return _out_of_mode(device)
        if device.mode == MIG:  # whether its place is free is asked of the instances
            continue
        why = _excess(device, used[grant.vendor, grant.uuid])
        if why is not None:
            return f"card {grant.uuid} would hold {why} with what this node has given out already"
    return None


def _out_of_mode(device: Device) -> str:
    mode, what = device.mode or HAMI_CORE, "no MIG instance" if device.mode == MIG else "a MIG instance"
    return f"card {device.id} is in mode {mode}, and the allocation names {what} of it: create the pod again"


def _excess(device: Device, used: Charge) -> str | None:
    if used.memory > device.memory:
        return f"{used.memory} MiB of {device.memory} MiB"
    if used.cores > device.cores:
        return f"{used.cores}% of {device.cores}% of its cores"
    if used.slots > device.slots:
        return f"{used.slots} containers of at most {device.slots}"
    return None


def _totals(entries: Iterable[Entry], pod: Callable[[str], Pod | None]) -> dict[tuple[str, str], Charge]:
    by_pod: dict[str, list[Entry]] = {}
    for entry in entries:
        by_pod.setdefault(entry.pod.uid, []).append(entry)
    totals: dict[tuple[str, str], Charge] = {}
    for uid, mine in by_pod.items():
        for key, one in charge(_allocation(mine), pod(uid) or _unknown(mine)).items():
            totals[key] = totals.get(key, Charge()) + one
    return totals


def _unknown(entries: list[Entry]) -> Pod:
    """Return a pod that stands in for one we do not see: its init containers, for all we know, have not ended."""
    inits = [Container(name=entry.container) for entry in entries if entry.role is Role.INIT]
    return Pod(spec=PodSpec(init_containers=inits))


def _allocation(entries: list[Entry]) -> Allocation:
    """Return what one pod holds here as an allocation: containers in order, each with all its resources' cards."""
    ordered = sorted(entries, key=lambda entry: entry.position)
    grants: dict[str, ContainerGrants] = {}
    for entry in ordered:
        before = grants[entry.container].grants if entry.container in grants else ()
        grants[entry.container] = ContainerGrants(
            name=entry.container, role=entry.role, grants=(*before, *entry.grants)
        )
    return Allocation(pod=ordered[0].pod, node="", containers=tuple(grants.values()))
