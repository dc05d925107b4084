"""Makes MIG instances for containers, and destroys them after their pods are gone.

One rule: a card takes pods only after it was taken over: MIG is on, and every instance on it is somebody's. Calls that
hang hold nobody up for longer than the worker's deadline, and what they may have left behind stays written down.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from hami_kit.clock import Clock
from hami_model.allocation import Grant
from hami_model.objects import PodRef

from hami_node_agent.mig.book import Book, Piece, pieces
from hami_node_agent.mig.takeover import Knife, Taker, made
from hami_node_agent.mig.users import Users
from hami_node_agent.probes.nvml.driver import DriverTrouble, Unfinished
from hami_node_agent.probes.nvml.threads import Worker

log = logging.getLogger(__name__)

LOOK_EVERY = 2.0
"""Seconds between two tries to take a card over."""

STUCK = 10.0
"""Seconds after which an instance that cannot be destroyed keeps new pods off its card."""


class CannotCut(Exception):
    """Why an instance cannot be made, in one sentence."""


class Cards(Protocol):
    """Which cards are to be cut."""

    to_cut: dict[str, bool]
    """By uuid, and whether MIG is on."""

    def hurry(self) -> None:
        """Have the cards looked at again soon."""
        ...


class Cutter:
    """All instances of a node."""

    def __init__(
        self, *, cards: Cards, knife: Knife, book: Book, worker: Worker, clock: Clock, refuses: str = ""
    ) -> None:
        """``refuses``: why no instance can reach a container here; empty = they can."""
        self._cards = cards
        self._knife = knife
        self._worker = worker
        self._clock = clock
        self._refuses = refuses
        self._ready: set[str] = set()
        self._once_ready: set[str] = set()
        self._why: dict[str, str] = {}
        self._failing_since: dict[str, float] = {}
        self._turn = asyncio.Lock()
        self._taker = Taker(knife, worker, book, self._make)
        self.book = book

    # What is asked

    @property
    def pods(self) -> tuple[PodRef, ...]:
        """Return the pods that have instances, or for which one was begun."""
        return self.book.pods

    def complaint(self, card: str) -> str:
        """Say why a card takes no pods; empty = it does."""
        if card in self._why:
            return self._why[card]
        if card not in self._ready:
            return "it is not taken over yet"
        late = [p for p in self.book.of_card(card) if self._is_stuck(p.pod.uid)]
        return f"{late[0]} of pod {late[0].pod}, which is gone, cannot be destroyed" if late else ""

    def objection(self, wanted: Iterable[Piece]) -> str | None:
        """Say whose instance stands where one is wanted."""
        for piece in wanted:
            other = self.book.in_the_way(piece)
            if other is not None:
                return f"MIG instance {piece} cannot be made while pod {other.pod} has {other}"
        return None

    # What is done

    async def take_over(self, users: Callable[[], Users]) -> None:
        """Make every card ready that is to be cut, as far as it can be now."""
        for card, is_on in dict(self._cards.to_cut).items():
            if not is_on:
                self._ready.discard(card)
            if card not in self._ready:
                async with self._turn:
                    await self._take_over(card, users().get(card, {}))

    async def run(self, users: Callable[[], Users]) -> None:
        """Go on taking over cards that were not ready."""
        while True:
            await asyncio.sleep(LOOK_EVERY)
            await self.take_over(users)

    async def make(self, pod: PodRef, container: str, grants: Iterable[Grant]) -> tuple[Piece, ...]:
        """Return the instances of a container, made where they are not there yet; raise ``CannotCut``.

        The same container asked for again gets the same. Whoever gets none leaves none of this call behind.
        """
        wanted = pieces(pod, container, grants)
        new = [piece for piece in wanted if self.book.find(piece.key) is None]
        async with self._turn:
            try:
                return tuple([await self._make(piece) for piece in wanted])
            except DriverTrouble as e:
                self._ready -= {piece.card for piece in wanted}  # somebody may have cut it meanwhile
                await self._take_back(new)
                raise CannotCut(f"MIG instances of {container} cannot be made: {e}") from e

    async def destroy_of(self, pod: PodRef) -> bool:
        """Destroy what a pod had whose containers are gone; say whether nothing of it is left."""
        async with self._turn:
            for piece in self.book.of_pod(pod.uid):
                try:
                    await self._destroy(piece)
                except (DriverTrouble, OSError) as e:
                    self._note_failure(pod.uid, f"MIG instance {piece} of pod {pod} cannot be destroyed now: {e}")
                    return False
            self._failing_since.pop(pod.uid, None)
            return True

    # How

    async def _make(self, wanted: Piece) -> Piece:
        known = self.book.find(wanted.key)
        is_same = known is not None and (known.card, known.placement) == (wanted.card, wanted.placement)
        self.book.put(wanted)
        try:
            instance = await self._worker.do(
                lambda: self._knife.make(wanted.card, wanted.profile, wanted.placement, adopts=is_same)
            )
        except Unfinished:
            raise
        except DriverTrouble as e:
            if known is None:
                self.book.drop(wanted)
            raise DriverTrouble(f"{wanted}: {e}") from e
        piece = made(wanted, instance)
        self.book.put(piece)
        log.info("MIG instance %s is %s, for %s of %s", piece, piece.uuid, piece.container, piece.pod)
        return piece

    async def _take_back(self, new: Iterable[Piece]) -> None:
        """Destroy what was made in vain; what cannot be now is destroyed with its pod."""
        for wanted in new:
            piece = self.book.find(wanted.key)
            try:
                if piece is not None:
                    await self._destroy(piece)
            except DriverTrouble as e:
                log.warning("MIG instance %s, made in vain, cannot be destroyed now: %s", piece, e)

    async def _destroy(self, piece: Piece) -> None:
        await self._worker.do(lambda: self._knife.destroy(piece.card, piece.profile, piece.placement, uuid=piece.uuid))
        self.book.drop(piece)
        log.info("MIG instance %s of %s is destroyed", piece, piece.pod)

    def _is_stuck(self, uid: str) -> bool:
        since = self._failing_since.get(uid)
        return since is not None and self._clock.monotonic() - since >= STUCK

    def _note_failure(self, uid: str, why: str) -> None:
        if uid not in self._failing_since:
            log.warning("%s", why)
        self._failing_since.setdefault(uid, self._clock.monotonic())

    # Taking over

    async def _take_over(self, card: str, using: Mapping[str, tuple[Piece, ...]]) -> None:
        before = self._why.pop(card, "")
        why = self._refuses or await self._prepare(card, using)
        if why:
            self._why[card] = why
        else:
            self._ready.add(card)
            self._once_ready.add(card)
        if why != before or not why:
            log.log(logging.WARNING if why else logging.INFO, "card %s: %s", card, why or "it can be cut")
            self._cards.hurry()

    async def _prepare(self, card: str, using: Mapping[str, tuple[Piece, ...]]) -> str:
        try:
            return await self._taker.prepare(card, using, again=card in self._once_ready)
        except (DriverTrouble, OSError) as e:
            return str(e)
