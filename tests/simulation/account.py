"""The account when calm has returned: what is not yet as it should be.

One rule: nothing is overlooked because it will surely come right; the run goes on until it has.
"""

from typing import TYPE_CHECKING

from hami_model.keys import BIND_PHASE, SUCCESS

from tests.simulation.allocators import Allocator

if TYPE_CHECKING:
    from tests.simulation.world import World

LOCKS = ("hami.io/mutex.lock", "cambricon.com/dsmlu.lock")


def unsettled(world: "World") -> str:
    """Say what is not yet as it should be when nothing goes wrong any more."""
    if waiting := world.pods(is_bound=False):
        return f"{len(waiting)} pods are not bound, {'/'.join(waiting[0])} among them"
    for key in world.pods():
        pod = world.store.get("pods", key)
        if (phase := pod["status"]["phase"]) != "Running":
            return f"pod {'/'.join(key)} is {phase}"
        if pod["metadata"]["annotations"].get(BIND_PHASE) != SUCCESS:
            return f"pod {'/'.join(key)} runs and is not marked as served"
    for _, name in world.store.objects["nodes"]:
        notes = world.store.get("nodes", ("", name))["metadata"].get("annotations") or {}
        if left := [f"{key}={notes[key]}" for key in LOCKS if key in notes]:
            return f"a lock is left behind on {name}: {left[0]}"
    leaders = [one.identity for one in world.allocators.values() if one.leads]
    if len(leaders) != 1:
        return f"{len(leaders)} allocators lead"
    return next((why for one in world.allocators.values() if (why := _unlike_the_truth(world, one))), "")


def _unlike_the_truth(world: "World", allocator: Allocator) -> str:
    """Say where the books differ from what landed Bindings gave."""
    if not allocator.is_alive:
        return f"{allocator.identity} is not there"
    entries = allocator.world.ledger.entries
    if open_ := [e for e in entries if not e.is_bound]:
        return f"{allocator.identity} has {open_[0].allocation.pod} as {open_[0].state} since {open_[0].since:g}"
    booked = {e.uid: (e.node, e.charges) for e in entries}
    true = {uid: (held.allocation.node, held.charges) for uid, held in world.referee.held.items()}
    for uid in booked.keys() | true.keys():
        if booked.get(uid) != true.get(uid):
            return f"{allocator.identity} books {booked.get(uid)} for {uid}, the API server says {true.get(uid)}"
    return ""
