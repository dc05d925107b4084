"""Walk one pod over one node: every container takes its cards on a scratch copy, or the node refuses the pod.

One rule: what runs at the same time is added up. An ordinary init container sees the node and the sidecars started
before it, nothing else of the pod; containers see each other and all sidecars.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from msgspec import Struct, structs

from hami_model.allocation import ContainerGrants, Grant
from hami_model.checks import Ask
from hami_model.columns import Rows
from hami_model.fit import Refusal, Taken, fit
from hami_model.fleet import Fleet
from hami_model.quota import Room
from hami_model.reason import NODE_INSUFFICIENT
from hami_model.request import ContainerDemand, Role
from hami_model.score import card_scores


class Step(Struct, frozen=True):
    """One container with its demands as the checks want them."""

    container: ContainerDemand
    asks: tuple[Ask, ...]


class TooFew(Struct, frozen=True):
    """The node has fewer cards of the vendor than one container wants."""

    ask: Ask

    @property
    def text(self) -> str:
        """Return HAMi's words."""
        return NODE_INSUFFICIENT


NodeRefusal = Refusal | TooFew


class Fitted(Struct, frozen=True):
    """What each container takes on the node."""

    containers: tuple[ContainerGrants, ...]

    def bonus(self, steps: Sequence[Step]) -> float:
        """Return what the vendors add to the node's score for this choice of cards."""
        vendors = {ask.vendor.word: ask.vendor for step in steps for ask in step.asks}
        return sum(v.node_score(v, self._of(v.word)) for v in vendors.values() if v.node_score is not None)

    def _of(self, word: str) -> tuple[tuple[Grant, ...], ...]:
        return tuple(tuple(g for g in c.grants if g.vendor == word) for c in self.containers)


def walk(fleet: Fleet, node_id: int, steps: Sequence[Step]) -> Fitted | NodeRefusal:
    """Place a pod on a node, container after container, or return the first refusal."""
    benches = {ask.vendor.word: _Bench(fleet, node_id, ask) for step in steps for ask in step.asks}
    containers: list[ContainerGrants] = []
    for step in steps:
        grants = _serve(benches, step)
        if not isinstance(grants, tuple):
            return grants
        containers.append(ContainerGrants(name=step.container.name, role=step.container.role, grants=grants))
    return Fitted(tuple(containers))


def _serve(benches: Mapping[str, "_Bench"], step: Step) -> tuple[Grant, ...] | NodeRefusal:
    """Let one container take its cards; they are booked when all its demands are served."""
    taken: list[tuple[_Bench, Taken]] = []
    for ask in step.asks:
        bench = benches[ask.vendor.word]
        outcome = bench.fit(ask, step.container)
        if not isinstance(outcome, Taken):
            return outcome
        taken.append((bench, outcome))
    for bench, cards in taken:
        bench.book(cards, step.container.role)
    return tuple(grant for _, cards in taken for grant in cards.grants)


class _Bench:
    """One vendor's cards of the node, with what this pod has taken of them so far."""

    def __init__(self, fleet: Fleet, node_id: int, ask: Ask) -> None:
        self._rows: Rows = fleet.cards[ask.vendor.word].of(node_id).scratch()
        self._room = ask.room
        self._running = np.zeros((2, len(self._rows)), dtype=np.int64)
        """Memory and cores of sidecars and containers: those run beside each other."""
        self._peak = self._running.copy()
        """The most that an ordinary init container and the sidecars before it take."""

    def fit(self, ask: Ask, container: ContainerDemand) -> Taken | NodeRefusal:
        """Take cards for one demand of a container."""
        if len(self._rows) < ask.demand.count:
            return TooFew(ask)
        scores = card_scores(self._rows, container.demands, ask.policies)
        return fit(self._rows, structs.replace(ask, room=self._room_left()), scores)

    def book(self, taken: Taken, role: Role) -> None:
        """Count what was taken, as far as it is there while the next container runs."""
        positions = list(taken.positions)
        if role is Role.INIT:
            own = self._running.copy()
            _add(own, taken)
            self._peak = np.maximum(self._peak, own)
            return
        _add(self._running, taken)
        for position, grant in zip(positions, taken.grants, strict=True):
            self._rows.used_slots[position] += 1
            self._rows.used_memory[position] += grant.memory
            self._rows.used_cores[position] += grant.cores

    def _room_left(self) -> Room:
        """Return the quota's room after what the pod has; a smaller share of a card that it has paid for is free."""
        room = self._room
        if room == Room():
            return room
        paid = np.maximum(self._peak, self._running)
        self._rows.paid_memory, self._rows.paid_cores = paid - self._running
        memory, cores = (int(total) for total in paid.sum(axis=1))
        return Room(
            memory=None if room.memory is None else room.memory - memory,
            cores=None if room.cores is None else room.cores - cores,
        )


def _add(share: "np.ndarray[tuple[int, int], np.dtype[np.int64]]", taken: Taken) -> None:
    for position, grant in zip(taken.positions, taken.grants, strict=True):
        share[0, position] += grant.memory
        share[1, position] += grant.cores
