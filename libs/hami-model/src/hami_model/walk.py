"""Walk one pod over many nodes at once: every container takes its cards of a node's table, or the node refuses the pod.

One rule: what runs at the same time is added up. An ordinary init container sees the node and the sidecars started
before it, nothing else of the pod; containers see each other and all sidecars.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from msgspec import Struct

from hami_model.alike import alike
from hami_model.allocation import ContainerGrants
from hami_model.checks import Ask
from hami_model.cutting import slices
from hami_model.fit import Fit, Purse, fit
from hami_model.fleet import Fleet
from hami_model.picking import Given
from hami_model.quota import Room
from hami_model.request import ContainerDemand, Demand, Role
from hami_model.rows import Floats, Ints, Mask, Rows

FITS = -1
_ENDLESS = 2**62
"""More than all cards together have: the room of a namespace without a limit."""


class Step(Struct, frozen=True):
    """One container with its demands as the checks want them."""

    container: ContainerDemand
    asks: tuple[Ask, ...]


class Walked(Struct, frozen=True):
    """What nodes with equally many cards answer to a pod; arrays are indexed by node, in the order of ``at``."""

    at: Ints
    """Positions among the nodes that were asked."""
    steps: Sequence[Step]
    fits: tuple[tuple[Fit, ...], ...]
    """By container and demand, as far as any node came."""
    refused_by: Ints
    """Which of the fits, one after another, refused the node; ``FITS`` = none."""

    @property
    def fitting(self) -> Ints:
        """Return the nodes that take the pod."""
        return np.flatnonzero(self.refused_by == FITS)

    def refusals(self) -> Iterator[tuple[Fit, Ints]]:
        """Yield each fit that refused nodes, with those nodes."""
        for number, answer in enumerate(self._all_fits()):
            refused = np.flatnonzero(self.refused_by == number)
            if len(refused):
                yield answer, refused

    def texts(self) -> Iterator[tuple[str, Ints]]:
        """Yield HAMi's words with the nodes that say them, by their positions among the nodes that were asked."""
        for answer, refused in self.refusals():
            for text, members in answer.texts(refused):
                yield text, self.at[refused[members]]

    def containers(self, node: int) -> tuple[ContainerGrants, ...]:
        """Return what each container takes on a node that fits."""
        return tuple(
            ContainerGrants(
                name=step.container.name,
                role=step.container.role,
                grants=tuple(grant for answer in answers for grant in answer.grants(node)),
            )
            for step, answers in zip(self.steps, self.fits, strict=True)
        )

    def bonus(self) -> Floats:
        """Return what the vendors add to each node's score for its cards; ask only where some node fits."""
        bonus, answers = np.zeros(len(self.at), dtype=np.float64), self._all_fits()
        for vendor in {answer.ask.vendor.word: answer.ask.vendor for answer in answers}.values():
            if vendor.node_score is not None:
                mine = [Given(a.rows, a.positions, a.ask) for a in answers if a.ask.vendor.word == vendor.word]
                if mine[0].ask.constraints.is_scored:
                    bonus += vendor.node_score(vendor, mine)
        return bonus

    def _all_fits(self) -> list[Fit]:
        return [answer for answers in self.fits for answer in answers]


def walk(fleet: Fleet, nodes: Ints, steps: Sequence[Step]) -> Iterator[Walked]:
    """Place a pod on each node by itself, container after container; nodes with equally many cards go together.

    Nodes that have cards cut into parts go with their like: one such card may be taken several times.
    """
    words = dict.fromkeys(ask.vendor.word for step in steps for ask in step.asks)
    columns = [fleet.cards[word].sizes(nodes) for word in words] or [np.zeros(len(nodes), dtype=np.int64)]
    columns += [fleet.cards[word].are_cut(nodes).astype(np.int64) for word in words if fleet.cards[word].gives_parts]
    for at in alike(columns):
        yield _walk(fleet, nodes[at], at, steps)


def _walk(fleet: Fleet, nodes: Ints, at: Ints, steps: Sequence[Step]) -> Walked:
    asks = {ask.vendor.word: ask for step in steps for ask in step.asks}
    benches = {word: _Bench(fleet.cards[word].table(nodes), nodes, ask) for word, ask in asks.items()}
    refused_by: Ints = np.full(len(nodes), FITS)
    found: list[tuple[Fit, ...]] = []
    number = 0
    for step in steps:
        taken: list[tuple[_Bench, Fit]] = []
        for ask in step.asks:
            bench = benches[ask.vendor.word]
            taken.append((bench, bench.fit(ask, step.container.demands)))
            refused_by[(refused_by == FITS) & ~taken[-1][1].fits] = number
            number += 1
        found.append(tuple(answer for _, answer in taken))
        is_open = refused_by == FITS
        if step is steps[-1] or not is_open.any():
            break  # nobody comes after
        for bench, answer in taken:
            bench.book(answer, step.container.role, is_open)
            other = benches.get(answer.ask.vendor.other_form)
            if other is not None:
                other.see_elsewhere(bench)
    return Walked(at, steps, tuple(found), refused_by)


class _Bench:
    """One vendor's cards of the nodes, with what this pod has taken of them so far."""

    def __init__(self, rows: Rows, nodes: Ints, ask: Ask) -> None:
        self._rows, self._nodes, self._room = rows, nodes, ask.room
        self._is_limited = ask.room != Room()
        self._listed: Ints | None = None
        """HAMi compat: each container's sort begins where the one before it left the list, so equals stand as there."""
        self._running: Ints = np.zeros((2, *rows.shape), dtype=np.int64)
        """Memory and cores that sidecars and containers take: those run beside each other."""
        self._paid = self._running
        """The most that ever runs at the same time, counting each ordinary init container."""

    def fit(self, ask: Ask, demands: Sequence[Demand]) -> Fit:
        """Take cards for one demand of a container."""
        purse = self._purse() if self._is_limited else None
        return fit(self._rows, self._nodes, ask, demands, purse=purse, listed=self._listed)

    def book(self, answer: Fit, role: Role, is_open: Mask) -> None:
        """Count what was taken on the nodes that are still open, as far as it is there while the next one runs."""
        nodes = np.flatnonzero(is_open)
        taken: Ints = np.zeros(self._rows.shape, dtype=np.int64)
        taken[nodes[:, np.newaxis], answer.positions[nodes]] = 1
        memory, cores = taken * answer.ask.memory_on(self._rows), taken * answer.cores
        if answer.taken is not None:
            self._cut(answer, nodes, taken, memory, cores)
        if self._is_limited:
            together = self._running + np.stack([memory, cores])
            self._paid = np.maximum(self._paid, together)
            self._running = self._running if role is Role.INIT else together
        if role is not Role.INIT:
            self._listed = answer.sorted[:, ::-1]
            self._rows.used_slots += taken
            self._rows.used_memory += memory
            self._rows.used_cores += cores

    def see_elsewhere(self, other: "_Bench") -> None:
        """Count the cards that were taken in their other form too: the same indexes."""
        same = self._rows.index[:, :, np.newaxis] == other._rows.index[:, np.newaxis]
        self._rows.elsewhere[:] = (same * other._rows.used_slots[:, np.newaxis]).sum(axis=2)

    def _cut(self, answer: Fit, nodes: Ints, taken: Ints, memory: Ints, cores: Ints) -> None:
        """Count the parts of cards that are cut, each with its own size. A part is held until the pod ends."""
        for node in nodes.tolist():
            given = [(card, part) for card, part in answer.parts(node) if part is not None]
            for card, _ in given:
                taken[node, card] = memory[node, card] = cores[node, card] = 0
            for card, part in given:
                taken[node, card] += 1
                memory[node, card] += part.memory
                cores[node, card] += part.cores
                self._rows.taken[node, card] |= slices([part.cut.placement])

    def _purse(self) -> Purse:
        """Return the quota's room after what the pod has; a smaller share of a card that it has paid for is free."""
        limits = (self._room.memory, self._room.cores)
        room = np.array([_ENDLESS if limit is None else max(min(limit, _ENDLESS), -_ENDLESS) for limit in limits])
        return Purse(left=room[:, np.newaxis] - self._paid.sum(axis=2), paid=self._paid - self._running)
