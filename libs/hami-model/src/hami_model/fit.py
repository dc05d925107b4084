"""Fit one demand on the cards of many nodes at once: which cards each node gives, in which order, or why it refuses.

One rule: cards are asked in walk order, one card of every node at a time, and each answer may depend on the cards taken
before (quota, NUMA runs). The caller books what was taken; nothing is written here.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from msgspec import Struct, structs

from hami_model.allocation import Grant
from hami_model.checks import FITS, Ask, Codes, first_refusals, modes_allowed, parts_of
from hami_model.cutting import Part, first_free, slices
from hami_model.picking import Passed, Picker
from hami_model.quota import Room
from hami_model.reason import Reason
from hami_model.refusals import NOTHING, Tally
from hami_model.request import Demand
from hami_model.rows import Ints, Mask, Rows
from hami_model.score import card_scores, walk_order

BEFORE_NUMA = frozenset({Reason.UNHEALTHY, Reason.CORDONED, Reason.TYPE_MISMATCH})
"""A card refused for one of these is not there for numa-bind; any other card breaks the run (HAMi compat)."""


class Purse(Struct, frozen=True):
    """What the namespace may spend on each node. First axis: memory, cores."""

    left: Ints
    """[2, node]"""
    paid: Ints
    """[2, node, card]: what of a card is paid for and nobody uses: room left by an init container."""


class Fit(Struct, frozen=True, kw_only=True):
    """What the nodes answer to one demand; arrays are indexed by node, in the order of ``rows``."""

    ask: Ask
    rows: Rows
    fits: Mask
    positions: Ints
    """[node, place]: the cards taken, in the order of taking, where the node fits; elsewhere anything."""
    cores: Ints | int
    """[node, card]: the cores that each card would give, as they are booked."""
    order: Ints
    """[node, place]: positions of the node's cards in walk order, some several times where cards are cut into parts."""
    sorted: Ints
    """[node, place]: the same, each card once."""
    codes: Codes
    """[place, node]: which of ``reasons`` refused the card at that place of the walk order, or ``FITS``."""
    short: Ints
    """How many cards would do, but are not enough, or ``NOTHING`` where that is not said."""
    over: int | None = None
    """What stands for the node's cards in HAMi's text; None = all of them."""
    left: Ints | None = None
    """[2, node]: what of the quota was left at the end."""
    taken: Ints | None = None
    """[node, card]: the slices taken before, where some card of each node is cut into parts; else None."""

    @property
    def reasons(self) -> tuple[Reason, ...]:
        """Return what may refuse a card."""
        return _reasons(self.ask)

    def texts(self, nodes: Ints) -> Iterator[tuple[str, Ints]]:
        """Yield HAMi's words with the positions in ``nodes`` whose nodes say them."""
        codes, reasons = self.codes[:, nodes], self.reasons
        size, answers = codes.shape[1], len(reasons) + 1
        # One count for each node and answer; the last column, reached by FITS = -1, is the cards that pass.
        counts = np.bincount((np.arange(size) * answers + codes % answers).ravel(), minlength=size * answers)
        tally = Tally(
            wanted=self.ask.demand.count if _needs_many(self.rows, self.ask) else 0,
            reasons=reasons,
            counts=counts.reshape(size, answers)[:, :FITS],
            total=np.full(size, self.rows.shape[1]),
            short=self.short[nodes],
            over=self.over,
            told=self.ask.vendor.told,
        )
        return tally.texts(np.arange(size))

    def grants(self, node: int) -> tuple[Grant, ...]:
        """Return what one node gives, in the order of taking."""
        cards, rows = self.rows.cards, self.rows.numbers[node, self.positions[node]]
        amounts = (
            np.broadcast_to(amount, self.rows.shape)[node, self.positions[node]].tolist()
            for amount in (self.ask.memory_on(self.rows), self.cores)
        )
        parts = [part for _, part in self.parts(node)]
        devices = ((cards.devices[row], *of_it) for row, *of_it in zip(rows.tolist(), *amounts, parts, strict=True))
        return tuple(
            Grant(
                uuid=device.id,
                vendor=self.ask.vendor.word,
                memory=mib if part is None else part.memory,
                cores=cores if part is None else part.cores,
                index=device.index,
                model=device.model if self.ask.vendor.names_models else "",
                custom=device.custom,
                guest=self.ask.constraints.counts_as(cores),
                cuts=() if part is None else (part.cut,),
            )
            for device, mib, cores, part in devices
            if device is not None
        )

    def parts(self, node: int) -> list[tuple[int, Part | None]]:
        """Return, for each card that one node gives, its position and the part of it; None = it is not cut."""
        given: list[int] = self.positions[node].tolist()
        if self.taken is None:
            return [(card, None) for card in given]
        ways, cuts = list(self.rows.cards.cuts), self.rows.cut[node].tolist()
        taken: list[int] = self.taken[node].tolist()
        memory: list[int] = np.broadcast_to(self.ask.memory_on(self.rows), self.rows.shape)[node].tolist()
        found: list[tuple[int, Part | None]] = []
        for card in given:
            parts = ways[cuts[card]]
            part = None if parts is None else first_free(parts, taken[card], self.ask.of_part(parts, memory[card]))
            if part is not None:
                taken[card] |= slices([part.cut.placement])
            found.append((card, part))
        return found

    def card_codes(self) -> Codes:
        """Return ``codes`` as [node, card]."""
        codes: Codes = np.empty(self.rows.shape, dtype=self.codes.dtype)
        # Backwards: of a card that was asked several times the first answer stays.
        np.put_along_axis(codes, self.order[:, ::-1], self.codes.T[:, ::-1], axis=1)
        return codes


def fit(
    rows: Rows,
    nodes: Ints,
    ask: Ask,
    demands: Sequence[Demand],
    *,
    purse: Purse | None = None,
    listed: Ints | None = None,
) -> Fit:
    """Take cards for one demand from each node; ``demands`` are all of the container's: they weigh in the scores.

    ``listed``: the order in which the nodes' cards stand before they are sorted; None = the nodes' own.
    """
    if rows.shape[1] < ask.demand.count and _needs_many(rows, ask):
        return _too_few(rows, ask)
    walk = _Walk(rows, ask, demands, purse, listed)
    for place in range(walk.length):
        walk.ask(place)
        if walk.is_done:
            break
    return walk.first_ones() if ask.picker is None else walk.picked(ask.picker, nodes)


class _Walk:
    """One demand's way along the cards of all nodes: tables of [place in walk order, node]."""

    def __init__(
        self, rows: Rows, ask: Ask, demands: Sequence[Demand], purse: Purse | None, listed: Ints | None
    ) -> None:
        self._rows, self._ask, self._purse = rows, ask, purse
        keys = ask.policies.card_order(numa_bind=ask.constraints.numa_bind)
        self._order = walk_order(rows, card_scores(rows, demands, ask.policies), keys, listed=listed)
        nodes, cards = rows.shape
        codes = first_refusals(rows, structs.replace(ask, room=Room()))
        self._sorted = self._order
        self._again: _Again | None = None
        if rows.cards.gives_parts and rows.cut.any():
            self._again = _Again(rows, ask, self._order, codes)
            self._order = self._again.order
        self._where = np.ascontiguousarray((self._order + np.arange(nodes)[:, np.newaxis] * cards).T)
        self._reasons = _reasons(ask)
        self._cores = ask.cores_on(rows)
        self._codes: Codes = self._in_order(codes)
        if self._again is not None:
            self._codes[self._again.ends] = self._reasons.index(Reason.MIG_INFEASIBLE)
            self._codes[self._again.beyond] = FITS
        self._taken: Mask = np.zeros(self._codes.shape, dtype=np.bool_)
        self._together: Ints = np.zeros(nodes, dtype=np.int64)
        """How many of the cards that passed may be taken together."""
        self._binds = ask.constraints.numa_bind
        if self._binds:
            self._numa = self._in_order(rows.numa)
            self._run = self._numa[0]
            skipped = [code for code, reason in enumerate(self._reasons) if reason in BEFORE_NUMA]
            self._counts_for_numa = ~np.isin(self._codes, skipped)
            if self._again is not None:
                self._counts_for_numa &= ~self._again.beyond
        if purse is not None:
            memory = np.broadcast_to(ask.memory_on(rows), rows.shape)
            amounts = zip((memory, self._cores), purse.paid, strict=True)
            self._price = np.stack([self._in_order(np.maximum(amount - paid, 0)) for amount, paid in amounts])
            if self._again is not None:
                self._again.put_prices(self._price, purse.paid)
            self._left = purse.left.copy()

    @property
    def length(self) -> int:
        """Return how many places the way has."""
        return len(self._codes)

    @property
    def is_done(self) -> bool:
        """Say whether every node has all the cards that are wanted, and nobody is to pick among more."""
        return self._ask.picker is None and bool((self._together >= self._ask.demand.count).all())

    def ask(self, place: int) -> None:
        """Ask the next card of every node."""
        count, picks = self._ask.demand.count, self._ask.picker is not None
        is_open = (self._together < count) | picks
        if self._binds:
            self._leave_run(place, is_open)
        code = self._codes[place]
        if self._purse is not None:
            is_asked = (code == FITS) | (code > self._ask.quota_at)
            is_dear = (self._price[:, place] > self._left).any(axis=0)
            code[is_asked & is_dear] = self._ask.quota_at
        passes = (code == FITS) & is_open
        if self._again is not None:
            passes &= self._again.is_asked(place, self._codes)
        self._taken[place] = passes
        self._together += passes
        if self._purse is not None:
            self._left -= self._price[:, place] * (passes & (self._together < count))

    def first_ones(self) -> Fit:
        """Take the first cards that pass."""
        fits = self._together == self._ask.demand.count
        places: Ints = np.zeros((len(fits), self._ask.demand.count), dtype=np.int64)
        places[fits] = np.nonzero(self._taken.T[fits])[1].reshape(-1, self._ask.demand.count)
        return self._fit(fits, places, np.where(self._together > 0, self._together, NOTHING))

    def picked(self, picker: Picker, nodes: Ints) -> Fit:
        """Let the vendor pick among all cards that pass."""
        choice, count = picker(Passed(self._rows, self._order, self._taken.T, nodes)), self._ask.demand.count
        is_enough, is_paid = choice.number == count, self._are_paid(choice.places)
        unpaid = np.flatnonzero(is_enough & ~is_paid)
        # Cards that cost the quota more than those it was asked about.
        self._codes[choice.places[unpaid, :count].T, unpaid] = self._ask.quota_at if len(unpaid) else FITS
        # HAMi compat: under numa-bind the refusal counts the NUMA node walked last, whatever the others had.
        number = self._together if self._binds else choice.number
        is_told = ~is_enough & ((number > 0) | (choice.total is not None))
        short = np.where(is_told, number, NOTHING)
        return self._fit(is_enough & is_paid, choice.places, short, over=choice.total)

    def _fit(self, fits: Mask, places: Ints, short: Ints, *, over: int | None = None) -> Fit:
        count = self._ask.demand.count
        return Fit(
            ask=self._ask,
            rows=self._rows,
            fits=fits,
            positions=np.take_along_axis(self._order, places[:, :count], axis=1),
            cores=self._cores,
            order=self._order,
            sorted=self._sorted,
            codes=self._codes,
            short=short,
            over=over,
            taken=None if self._again is None else self._rows.taken.copy(),
            left=None if self._purse is None else self._left,
        )

    def _leave_run(self, place: int, is_open: Mask) -> None:
        """Where this card begins a run of another NUMA node, put the cards of the run before back; a picker has all."""
        numa = self._numa[place]
        moves = is_open & self._counts_for_numa[place] & (numa != self._run)
        if not moves.any():
            return
        if self._ask.picker is None:
            self._codes[:place][self._taken[:place] & moves] = self._reasons.index(Reason.NUMA_MISMATCH)
            self._taken[:place] &= ~moves
        self._together[moves] = 0
        self._run = np.where(moves, numa, self._run)
        if self._purse is not None:
            self._left = np.where(moves, self._purse.left, self._left)

    def _are_paid(self, places: Ints) -> Mask:
        if self._purse is None:
            return np.ones(len(places), dtype=np.bool_)
        wanted = places.T[np.newaxis, : self._ask.demand.count]
        fits: Mask = (np.take_along_axis(self._price, wanted, axis=1).sum(axis=1) <= self._purse.left).all(axis=0)
        return fits

    def _in_order(self, column: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return np.take(column, self._where)


class _Again:
    """The way past cards that are cut into parts: each is asked again until it has no part left for the demand."""

    def __init__(self, rows: Rows, ask: Ask, order: Ints, codes: Codes) -> None:
        parts: Ints = np.zeros(rows.shape, dtype=np.int64)
        at = np.nonzero((rows.cut > 0) & (codes == FITS))
        self._given = [((at[0][members], at[1][members]), found) for members, found in parts_of(rows, ask, at)]
        for cards, found in self._given:
            parts[cards] = len(found)
        visits = np.take_along_axis(parts, order, axis=1) + 1
        ends = np.cumsum(visits, axis=1)
        places = np.arange(int(ends[:, -1].max(initial=0)))
        which = (places[np.newaxis, :, np.newaxis] >= ends[:, np.newaxis]).sum(axis=2)
        beyond = which == order.shape[1]
        which = np.minimum(which, order.shape[1] - 1)
        self.order: Ints = np.take_along_axis(order, which, axis=1)
        is_last = (np.take_along_axis(ends, which, axis=1) == places + 1) & ~beyond
        self.ends: Mask = (is_last & (np.take_along_axis(parts, self.order, axis=1) > 0)).T
        """[place, node]: where a card that has given all its parts is asked once more."""
        self.beyond: Mask = beyond.T
        """[place, node]: places after the last card."""
        self._same: Mask = np.zeros(self.beyond.shape, dtype=np.bool_)
        self._same[1:] = (which[:, 1:] == which[:, :-1]).T
        self._begins = np.zeros_like(parts)
        np.put_along_axis(self._begins, order, ends - visits, axis=1)
        """[node, card]: at which place the card is asked first."""

    def put_prices(self, price: Ints, paid: Ints) -> None:
        """Let each part cost what it is, whatever was asked for: a card's parts together cost what is not paid for.

        ``price``: [2, place, node]; ``paid``: [2, node, card].
        """
        for (nodes, cards), found in self._given:
            for amount, of_part in enumerate((lambda part: part.memory, lambda part: part.cores)):
                sums = np.cumsum([0, *map(of_part, found)])
                due = np.maximum(sums[:, np.newaxis] - paid[amount, nodes, cards], 0)
                for turn in range(len(found)):
                    price[amount, self._begins[nodes, cards] + turn, nodes] = due[turn + 1] - due[turn]

    def is_asked(self, place: int, codes: Codes) -> Mask:
        """Say where the card at this place is asked at all: one that refused is not asked again."""
        if place:
            refused = self._same[place] & ((codes[place - 1] != FITS) | self.beyond[place - 1])
            self.beyond[place] |= refused
        codes[place][self.beyond[place]] = FITS  # nobody is there to refuse
        asked: Mask = ~self.beyond[place]
        return asked


def _needs_many(rows: Rows, ask: Ask) -> bool:
    """Say whether as many cards are needed as are asked for: no card that the pod's modes allow is cut into parts."""
    return not rows.cards.gives_parts or not bool(((rows.cut > 0) & modes_allowed(rows, ask)).any())


def _too_few(rows: Rows, ask: Ask) -> Fit:
    """Refuse on nodes that have fewer cards than are wanted; each card says what it answers by itself."""
    nodes, cards = rows.shape
    codes = np.ascontiguousarray(first_refusals(rows, ask).T)
    return Fit(
        ask=ask,
        rows=rows,
        fits=np.zeros(nodes, dtype=np.bool_),
        positions=np.zeros((nodes, 0), dtype=np.int64),
        cores=ask.cores_on(rows),
        order=np.broadcast_to(np.arange(cards), rows.shape),
        sorted=np.broadcast_to(np.arange(cards), rows.shape),
        codes=codes,
        short=np.full(nodes, NOTHING),
    )


def _reasons(ask: Ask) -> tuple[Reason, ...]:
    return (*(check.reason for check in ask.checks), Reason.NUMA_MISMATCH)
