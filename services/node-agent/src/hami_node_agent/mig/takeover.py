"""What an agent that starts makes of the instances that it finds on a card.

One rule: what is ours is known by what we wrote down, and by what pods that live here were promised; anything else is
strange, and is destroyed only on a card that nobody uses.
"""

import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Protocol

from hami_model.device import Placement
from msgspec import Struct, structs

from hami_node_agent.mig.book import Book, Piece
from hami_node_agent.probes.nvml.instances import Instance, Survey
from hami_node_agent.probes.nvml.threads import Worker

log = logging.getLogger(__name__)


class Knife(Protocol):
    """What is done to a card; each may block, and raises ``DriverTrouble``."""

    def survey(self, card: str) -> Survey:
        """Look at a card."""
        ...

    def turn_on(self, card: str) -> None:
        """Turn MIG on."""
        ...

    def make(self, card: str, profile: str, placement: Placement, *, adopts: bool) -> Instance:
        """Make an instance at exactly this place; ``adopts``: one that is there already is taken, and completed."""
        ...

    def destroy(self, card: str, profile: str, placement: Placement, *, uuid: str = "") -> None:
        """Destroy the instance at this place; nothing there, or one of another name, is nothing to do."""
        ...


class Taker:
    """Takes cards over."""

    def __init__(self, knife: Knife, worker: Worker, book: Book, make: Callable[[Piece], Awaitable[Piece]]) -> None:
        self._knife = knife
        self._worker = worker
        self._book = book
        self._make = make

    async def prepare(self, card: str, using: Mapping[str, tuple[Piece, ...]], *, again: bool) -> str:
        """Turn MIG on and sort out the instances of a card that these pods use; say what stands against it.

        ``again``: it was taken over before, so what is strange on it now an admin has made.
        """
        survey = await self._worker.do(lambda: self._knife.survey(card))
        busy = why_busy(survey, using)
        if not survey.is_on:
            if survey.will_be_on:
                return "MIG is turned on only by a reset: run nvidia-smi --gpu-reset, or reboot the node"
            # who was given instances waits for them: a reboot has turned MIG off
            sharing = why_busy(survey, [pod for pod, of_pod in using.items() if not of_pod])
            if sharing:
                return f"MIG is off and cannot be turned on while {sharing}"
            await self._worker.do(lambda: self._knife.turn_on(card))
            survey = await self._worker.do(lambda: self._knife.survey(card))
        promised = [piece for of_pod in using.values() for piece in of_pod]
        found = sort(survey.instances, written=self._book.of_card(card), promised=promised)
        for piece in found.kept:
            self._book.put(piece)
        why = await self._clear(card, found.strange, busy=busy, again=again)
        if not why:
            for piece in found.lost:
                await self._replace(piece, is_used=str(piece.pod) in using)
        return why

    async def _replace(self, lost: Piece, *, is_used: bool) -> None:
        """Make an instance again that a reset or a reboot took; at its place it has the same name as before."""
        log.warning("MIG instance %s of pod %s is not there any more", lost, lost.pod)
        if not is_used:
            self._book.drop(lost)
            return
        made_anew = await self._make(structs.replace(lost, uuid="", gpu_instance=0, compute_instance=0))
        if lost.uuid not in ("", made_anew.uuid):
            log.warning("%s of pod %s knows it as %s: delete the pod", lost.container, lost.pod, lost.uuid)

    async def _clear(self, card: str, strange: tuple[Instance, ...], *, busy: str, again: bool) -> str:
        """Destroy strange instances of a card that nobody uses."""
        if not strange:
            return ""
        what = ", ".join(f"{i.profile} at {i.placement.start}+{i.placement.size}" for i in strange)
        if busy:
            return f"it has MIG instances that no pod of this node was given ({what}), and {busy}"
        if again:
            return f"somebody else has made MIG instances on it ({what}): destroy them, or restart the agent"
        for one in strange:
            log.warning("card %s: destroying %s, which is nobody's", card, one.profile)
            await self._worker.do(lambda one=one: self._knife.destroy(card, one.profile, one.placement))  # type: ignore[misc]
        return ""


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
