"""What an agent that starts makes of the instances that it finds on a card.

One rule: what is ours is known by what we wrote down, and by what pods that live here were promised; anything else is
strange, and is destroyed only on a card that nobody uses.
"""

from collections.abc import Iterable, Sequence

from msgspec import Struct, structs

from hami_node_agent.mig.book import Piece
from hami_node_agent.probes.nvml.instances import Instance, Survey


class Findings(Struct, frozen=True, kw_only=True):
    """A card's instances sorted: those that are somebody's, pieces whose instance is gone, and strange ones."""

    kept: tuple[Piece, ...] = ()
    lost: tuple[Piece, ...] = ()
    strange: tuple[Instance, ...] = ()


def sort(found: Iterable[Instance], *, written: Sequence[Piece], promised: Sequence[Piece]) -> Findings:
    """Say whose the instances of a card are; both lists are of that card only."""
    kept: dict[tuple[str, str, int], Piece] = {}
    strange: list[Instance] = []
    for instance in found:
        owned = next((p for p in (*written, *promised) if p.key not in kept and _is_of(instance, p)), None)
        if owned is None:
            strange.append(instance)
        else:
            kept[owned.key] = made(owned, instance)
    lost = tuple(piece for piece in written if piece.key not in kept)
    return Findings(kept=tuple(kept.values()), lost=lost, strange=tuple(strange))


def made(piece: Piece, instance: Instance) -> Piece:
    """Return the piece with its instance's identity; one without a compute instance is not made yet."""
    if len(instance.computes) != 1:
        return structs.replace(piece, uuid="", gpu_instance=0, compute_instance=0)
    ((compute, uuid),) = instance.computes.items()
    return structs.replace(piece, uuid=uuid, gpu_instance=instance.id, compute_instance=compute)


def why_busy(survey: Survey, users: Iterable[str]) -> str:
    """Say who uses a card, so that nothing of it may be destroyed; empty = nobody."""
    if survey.processes is None:
        return "the driver does not say whether a process is on it"
    if survey.processes:
        return f"process {', '.join(map(str, sorted(survey.processes)))} is on it"
    named = ", ".join(sorted(users))
    return f"it is given to {named}" if named else ""


def _is_of(instance: Instance, piece: Piece) -> bool:
    is_known = not piece.uuid or piece.uuid in instance.computes.values() or not instance.computes
    return is_known and instance.is_a(piece.profile, piece.placement)
