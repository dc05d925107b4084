"""Fit one demand on one node's cards: which cards it takes and in which order, or why it does not fit.

One rule: cards are asked in walk order, and each answer may depend on the cards taken before (quota, NUMA runs). The
caller books what was taken; nothing is written here.
"""

from collections import Counter

from msgspec import Struct, structs

from hami_model.allocation import Grant
from hami_model.checks import FITS, NODE_WIDE, Ask
from hami_model.columns import Rows
from hami_model.device import Device
from hami_model.errors import InvariantError
from hami_model.judge import Judged
from hami_model.quota import Room
from hami_model.reason import Reason, reason_text
from hami_model.vendor import Candidate, Picker

BEFORE_NUMA = frozenset({Reason.UNHEALTHY, Reason.CORDONED, Reason.TYPE_MISMATCH})
"""A card refused for one of these is not there for numa-bind; any other card breaks the run (HAMi compat)."""


class Taken(Struct, frozen=True):
    """The cards a demand takes: positions among the node's rows, and the grants, in the order of taking."""

    positions: tuple[int, ...]
    grants: tuple[Grant, ...]


class Refusal(Struct, frozen=True, kw_only=True):
    """Why a node's cards do not take a demand: reasons counted, and each refused card's own."""

    ask: Ask
    rows: Rows
    counts: dict[Reason, int]
    total: int
    cards: dict[int, Reason] = {}

    @property
    def text(self) -> str:
        """Return HAMi's words."""
        return reason_text(self.counts, self.total)


def fit(rows: Rows, ask: Ask, judged: Judged) -> Taken | Refusal:
    """Take cards for one demand from one node."""
    walk = _Walk(rows, ask, judged)
    if walk.is_closed:
        return walk.refusal()
    return walk.take() if ask.picker is None else walk.pick(ask.picker)


class _Walk:
    """One demand's way along a node's cards."""

    def __init__(self, rows: Rows, ask: Ask, judged: Judged) -> None:
        self._rows = rows
        self._ask = ask
        self._judged = judged
        self._room = ask.room
        self._is_limited = ask.room != Room()
        self._counts: Counter[Reason] = Counter()
        self._cards: dict[int, Reason] = {}

    @property
    def is_closed(self) -> bool:
        """Say whether the node itself refuses, and note why."""
        first = self._judged.codes[0] if self._judged.codes else FITS
        if first == FITS or self._reason(first) not in NODE_WIDE:
            return False
        self._counts[self._reason(first)] = 1
        return True

    def take(self) -> Taken | Refusal:
        """Take the first cards that pass; under numa-bind all of one unbroken run of a NUMA node."""
        numa = self._rows.numa.tolist() if self._ask.constraints.numa_bind else None
        run, taken = None, list[int]()
        for position in self._judged.order:
            if numa is not None and numa[position] != run and self._counts_for_numa(position):
                run = numa[position]
                self._give_up(taken)
                taken = []
            if not self._passes(position):
                continue
            taken.append(position)
            if len(taken) == self._ask.demand.count:
                return self._taken(taken)
            self._pay(position)
        if taken:
            self._counts[Reason.TOO_FEW_CARDS] = len(taken)
        return self.refusal()

    def pick(self, picker: Picker) -> Taken | Refusal:
        """Let the vendor pick among all cards that pass."""
        passed, together = self._all_that_pass()
        choice = picker([self._candidate(position) for position in passed], self._rows.devices)
        by_uuid = {self._device(position).id: position for position in passed}
        chosen = [by_uuid[grant.uuid] for grant in choice.grants]
        if len(chosen) == self._ask.demand.count:
            return self._taken(chosen) if self._is_paid(chosen) else self._unpaid(chosen, total=choice.total)
        # HAMi compat: under numa-bind the refusal counts the NUMA node walked last, whatever the others had.
        too_few = together if self._ask.constraints.numa_bind else len(chosen)
        if too_few or choice.total is not None:
            self._counts[Reason.TOO_FEW_CARDS] = too_few
        return self.refusal(total=choice.total)

    def _unpaid(self, positions: list[int], *, total: int | None) -> Refusal:
        """Refuse the picked cards, which cost the quota more than those it was asked about."""
        self._counts[Reason.QUOTA_EXCEEDED] += len(positions)
        self._cards.update(dict.fromkeys(positions, Reason.QUOTA_EXCEEDED))
        return self.refusal(total=total)

    def refusal(self, *, total: int | None = None) -> Refusal:
        """Return why not."""
        return Refusal(
            ask=structs.replace(self._ask, room=self._room) if self._is_limited else self._ask,
            rows=self._rows,
            counts=dict(self._counts),
            total=len(self._rows) if total is None else total,
            cards=self._cards,
        )

    def _all_that_pass(self) -> tuple[list[int], int]:
        """Return the cards that pass, and how many of them may be taken together: those of the last NUMA node."""
        numa = self._rows.numa.tolist() if self._ask.constraints.numa_bind else None
        run, together, passed = None, 0, list[int]()
        for position in self._judged.order:
            if numa is not None and numa[position] != run and self._counts_for_numa(position):
                run, together, self._room = numa[position], 0, self._ask.room
            if not self._passes(position):
                continue
            passed.append(position)
            together += 1
            if together < self._ask.demand.count:
                self._pay(position)
        return passed, together

    def _reason(self, code: int) -> Reason:
        return self._ask.checks[code].reason

    def _passes(self, position: int) -> bool:
        code = self._judged.codes[position]
        if self._is_limited and (code == FITS or code > self._ask.quota_at) and not self._is_affordable(position):
            code = self._ask.quota_at
        if code == FITS:
            return True
        reason = self._reason(code)
        self._counts[reason] += 1
        self._cards[position] = reason
        return False

    def _counts_for_numa(self, position: int) -> bool:
        code = self._judged.codes[position]
        return code == FITS or self._reason(code) not in BEFORE_NUMA

    def _give_up(self, taken: list[int]) -> None:
        """Put cards back that share no NUMA node with those to come."""
        if taken:
            self._counts[Reason.NUMA_MISMATCH] += len(taken)
            self._cards.update(dict.fromkeys(taken, Reason.NUMA_MISMATCH))
            self._room = self._ask.room

    def _pay(self, position: int) -> None:
        """Leave less room of the namespace's quota for the cards after this one."""
        if self._is_limited:
            memory, cores = self._cost(position)
            self._room = self._room.less(memory, cores)

    def _is_affordable(self, position: int) -> bool:
        return self._room.holds(*self._cost(position))

    def _is_paid(self, positions: list[int]) -> bool:
        costs = [self._cost(position) for position in positions]
        return self._ask.room.holds(sum(memory for memory, _ in costs), sum(cores for _, cores in costs))

    def _cost(self, position: int) -> tuple[int, int]:
        """Return what a card adds to the namespace's use: nothing for what an init container's share pays already."""
        paid_memory, paid_cores = self._rows.paid_on(position)
        return max(self._judged.memory[position] - paid_memory, 0), max(self._ask.cores - paid_cores, 0)

    def _device(self, position: int) -> Device:
        device = self._rows.entries[position]
        if device is None:
            raise InvariantError(f"row {position} of a node's cards is free")
        return device

    def _grant(self, position: int) -> Grant:
        device = self._device(position)
        return Grant(
            uuid=device.id,
            vendor=self._ask.vendor.word,
            memory=self._judged.memory[position],
            cores=self._ask.cores,
            index=device.index,
            custom=device.custom,
        )

    def _candidate(self, position: int) -> Candidate:
        return Candidate(
            device=self._device(position),
            grant=self._grant(position),
            used_slots=int(self._rows.used_slots[position]),
        )

    def _taken(self, positions: list[int]) -> Taken:
        return Taken(tuple(positions), tuple(self._grant(position) for position in positions))
