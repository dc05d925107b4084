"""Walk one pod over one node: every container takes its cards on a scratch copy, or the node refuses the pod.

One rule: what runs at the same time is added up. An ordinary init container sees the node and the sidecars started
before it, nothing else of the pod; containers see each other and all sidecars.
"""

from collections.abc import Iterable, Sequence

import numpy as np
from msgspec import Struct, structs

from hami_model.allocation import ContainerGrants, Grant
from hami_model.checks import Ask
from hami_model.columns import Ints, Rows
from hami_model.fit import Refusal, Taken, fit
from hami_model.fleet import Fleet
from hami_model.judge import Judged, judge
from hami_model.quota import Room
from hami_model.reason import NODE_INSUFFICIENT
from hami_model.request import ContainerDemand, Demand, Role


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


def walk(fleet: Fleet, node_id: int, steps: Sequence[Step], *, first: Judged | None = None) -> Fitted | NodeRefusal:
    """Place a pod on a node, container after container, or return the first refusal.

    ``first``: the node's cards as judged for the first demand, where that was done for many nodes at once.
    """
    benches: dict[str, _Bench] = {}
    containers: list[ContainerGrants] = []
    for step in steps:
        taken: list[tuple[_Bench, Taken]] = []
        for ask in step.asks:
            bench = benches.get(ask.vendor.word)
            if bench is None:
                bench = benches[ask.vendor.word] = _Bench(fleet, node_id, ask)
            outcome, first = bench.fit(ask, step.container.demands, first), None
            if not isinstance(outcome, Taken):
                return outcome
            taken.append((bench, outcome))
        for bench, cards in taken:
            bench.book(cards, step.container.role)
        grants = tuple(grant for _, cards in taken for grant in cards.grants)
        containers.append(ContainerGrants(name=step.container.name, role=step.container.role, grants=grants))
    return Fitted(tuple(containers))


class _Bench:
    """One vendor's cards of the node, with what this pod has taken of them so far."""

    def __init__(self, fleet: Fleet, node_id: int, ask: Ask) -> None:
        self._rows: Rows = fleet.cards[ask.vendor.word].of(node_id)
        self._room = ask.room
        self._is_scratch = False
        self._asked: list[int] = []
        """The order in which the cards were asked last."""
        self._listed: list[int] | None = None
        """HAMi compat: each container's sort begins where the one before it left the list, so equals stand as there."""
        self._running: list[Taken] = []
        """What sidecars and containers take: those run beside each other."""
        self._starts: list[tuple[Taken, ...]] = []
        """What each ordinary init container takes, together with the sidecars before it."""

    def fit(self, ask: Ask, demands: Sequence[Demand], judged: Judged | None) -> Taken | NodeRefusal:
        """Take cards for one demand of a container."""
        if len(self._rows) < ask.demand.count:
            return TooFew(ask)
        if self._room != Room():
            ask = structs.replace(ask, room=self._room_left())
        judged = judged or judge(self._rows, ask, demands, listed=self._listed)
        self._asked = judged.order
        return fit(self._rows, ask, judged)

    def book(self, taken: Taken, role: Role) -> None:
        """Count what was taken, as far as it is there while the next container runs."""
        if role is Role.INIT:
            self._starts.append((*self._running, taken))
            return
        self._running.append(taken)
        self._listed = self._asked[::-1]
        if not self._is_scratch:
            self._rows, self._is_scratch = self._rows.scratch(), True
        for position, grant in zip(taken.positions, taken.grants, strict=True):
            self._rows.used_slots[position] += 1
            self._rows.used_memory[position] += grant.memory
            self._rows.used_cores[position] += grant.cores

    def _room_left(self) -> Room:
        """Return the quota's room after what the pod has; a smaller share of a card that it has paid for is free."""
        running, paid = self._sum(self._running), self._sum(self._running)
        for start in self._starts:
            paid = np.maximum(paid, self._sum(start))
        self._rows.paid_memory, self._rows.paid_cores = paid - running
        memory, cores = paid.sum(axis=1).tolist()
        return self._room.less(memory, cores)

    def _sum(self, shares: Iterable[Taken]) -> Ints:
        """Add up memory and cores by card."""
        total: Ints = np.zeros((2, len(self._rows)), dtype=np.int64)
        for taken in shares:
            for position, grant in zip(taken.positions, taken.grants, strict=True):
                total[0, position] += grant.memory
                total[1, position] += grant.cores
        return total
