"""Decide which of the offered nodes takes a pod, and which cards there.

One rule: the survey of the whole fleet only prunes and explains; the walk of nodes decides, the best ones first.
Among equal nodes the first in the request's order wins. Nothing is booked here.
"""

from collections.abc import Iterator, Sequence
from itertools import repeat
from typing import NamedTuple

import numpy as np
from msgspec import Struct

from hami_model.allocation import ContainerGrants
from hami_model.checks import Ask, ask_of
from hami_model.columns import NOBODY
from hami_model.fleet import Fleet
from hami_model.objects import Pod
from hami_model.policies import PodPolicies
from hami_model.quota import UNLIMITED, QuotaView, Room
from hami_model.reason import NODE_UNREGISTERED, TYPE_NOT_FOUND
from hami_model.refusals import Refusals
from hami_model.request import Demand, PodDemand
from hami_model.rows import Floats, Ints, Mask
from hami_model.score import Scores, node_scores
from hami_model.survey import Survey, rows_for
from hami_model.vendor import Constraints
from hami_model.walk import Step, Walked, walk

_SOME = 8
"""So many more nodes are walked when the best one refuses, and when those refuse too, all others."""


class Placement(Struct, frozen=True, kw_only=True):
    """The node and what each container takes there. ``scores``: of the nodes that were walked and fit."""

    node: str
    containers: tuple[ContainerGrants, ...]
    scores: dict[str, float]
    fitting: int = 1
    """How many of the offered nodes had enough cards for each demand by itself."""


class Unfit(Struct, frozen=True, kw_only=True):
    """No node takes the pod: HAMi's words -> positions among the offered names."""

    reasons: dict[str, list[int]]


def place(
    fleet: Fleet,
    pod: Pod,
    demand: PodDemand,
    candidates: Sequence[str],
    *,
    policies: PodPolicies,
    quota: QuotaView = UNLIMITED,
) -> Placement | Unfit:
    """Choose a node and cards for a pod among the candidates, or say for each why not."""
    if any(fleet.catalog.find(d.vendor) is None for container in demand for d in container.demands):
        return Unfit(reasons={TYPE_NOT_FOUND: list(range(len(candidates)))})
    search = _Search(fleet, steps_of(fleet, pod, demand, policies=policies, quota=quota), candidates)
    best = search.best(prefer_full=policies.prefers_full_nodes)
    return Unfit(reasons=search.reasons()) if best is None else best


def why_not(
    fleet: Fleet,
    pod: Pod,
    demand: PodDemand,
    candidates: Sequence[str],
    *,
    policies: PodPolicies,
    quota: QuotaView = UNLIMITED,
) -> dict[str, list[int]]:
    """Return HAMi's words for each candidate that does not take the pod, whether or not another one does."""
    return _Search(fleet, steps_of(fleet, pod, demand, policies=policies, quota=quota), candidates).reasons()


def steps_of(fleet: Fleet, pod: Pod, demand: PodDemand, *, policies: PodPolicies, quota: QuotaView) -> tuple[Step, ...]:
    """Resolve every container's demands against the pod's annotations and the namespace's quota."""
    constraints: dict[str, Constraints] = {}

    def ask(wanted: Demand) -> Ask:
        vendor = fleet.catalog.by_word(wanted.vendor)
        if vendor.word not in constraints:
            constraints[vendor.word] = vendor.constraints(vendor, pod)
        room = quota.get(vendor.word, Room()) if vendor.quota_in_fit else Room()
        return ask_of(vendor, wanted, constraints=constraints[vendor.word], policies=policies, room=room)

    return tuple(Step(container, tuple(ask(wanted) for wanted in container.demands)) for container in demand)


class _Search:
    """One pod's search among the offered nodes."""

    def __init__(self, fleet: Fleet, steps: tuple[Step, ...], candidates: Sequence[str]) -> None:
        self._fleet = fleet
        self._steps = steps
        self._ids: Ints = np.fromiter(map(fleet.ids.get, candidates, repeat(NOBODY)), np.int64, len(candidates))
        self._surveys = self._survey()
        self._refusals = Refusals(fleet.capacity)

    def best(self, *, prefer_full: bool) -> Placement | None:
        """Return the best node that takes the pod."""
        positions = np.flatnonzero(self._may_fit())
        if not len(positions):
            return None
        nodes = self._ids[positions]
        scores = node_scores(self._fleet.used[nodes], self._fleet.total[nodes])
        ranks = scores if prefer_full else -scores
        best = _Best(self._most_bonus())
        for part in _best_first(ranks):
            if best.beats(float(ranks[part[0]]), int(part[0])):
                break
            best.offer(self._fitting(nodes, part), ranks=ranks, scores=scores)
        if best.node is None:
            return None
        return Placement(
            node=self._fleet.name(int(nodes[best.node.at])),
            containers=best.node.walked.containers(best.node.row),
            scores={self._fleet.name(int(nodes[at])): score for at, score in best.scores.items()},
            fitting=len(positions),
        )

    def reasons(self) -> dict[str, list[int]]:
        """Return why no candidate takes the pod."""
        self._refusals.note(np.array([NOBODY]), NODE_UNREGISTERED)
        if self._surveys:
            first, nodes = self._surveys[0], self._refusals.unheard(self._ids)
            is_final = first.is_final[nodes]
            for text, members in first.tally.texts(nodes[is_final]):
                self._refusals.note(nodes[is_final][members], text)
            for _ in self._walk(nodes[~is_final]):
                pass
        return self._refusals.by_text(self._ids)

    def _survey(self) -> list[Survey]:
        """Ask every different demand of the fleet, the one that is walked first first."""
        nodes = self._ids[self._ids != NOBODY]
        asks = {ask.demand: ask for step in self._steps for ask in step.asks}
        rows = {word: rows_for(self._fleet, word, nodes) for word in {demand.vendor for demand in asks}}
        return [Survey(rows[demand.vendor], ask, self._fleet.capacity) for demand, ask in asks.items()]

    def _may_fit(self) -> Mask:
        fits: Mask = self._ids != NOBODY
        for answered in self._surveys:
            fits = fits & answered.may_fit[self._ids]
        return fits

    def _most_bonus(self) -> float:
        asks = [ask for step in self._steps for ask in step.asks if ask.constraints.is_scored]
        return sum(ask.vendor.best_bonus for ask in asks)

    def _walk(self, nodes: Ints) -> Iterator[Walked]:
        """Walk nodes; what those that refuse say is kept, for it is asked for when no node fits."""
        for walked in walk(self._fleet, nodes, self._steps):
            for text, members in walked.texts():
                self._refusals.note(nodes[members], text)
            yield walked

    def _fitting(self, nodes: Ints, part: Ints) -> "list[_Offer]":
        """Walk some of the nodes; return those that fit, in the order given."""
        offers: list[_Offer | None] = [None] * len(part)
        for walked in self._walk(nodes[part]):
            rows = walked.fitting
            if not len(rows):
                continue
            places = walked.at[rows]
            found = zip(part[places].tolist(), rows.tolist(), walked.bonus()[rows].tolist(), strict=True)
            for place, (at, row, bonus) in zip(places.tolist(), found, strict=True):
                offers[place] = _Offer(at, walked, row, bonus)
        return [offer for offer in offers if offer is not None]


class _Offer(NamedTuple):
    """A node that fits, with what its vendors add to its score."""

    at: int
    walked: Walked
    row: int
    bonus: float


class _Best:
    """The best node found so far, where a vendor's bonus may put a later node before an earlier one."""

    def __init__(self, most_bonus: float) -> None:
        self._most_bonus = most_bonus
        self._rank = -np.inf
        self.node: _Offer | None = None
        self.scores: dict[int, float] = {}

    def beats(self, rank: float, at: int) -> bool:
        """Say whether neither this node nor any after it can be better, in the order of ranks."""
        return self._is_beyond(float(np.float32(rank + self._most_bonus)), at)

    def offer(self, offers: "Sequence[_Offer]", *, ranks: Scores, scores: Scores) -> None:
        """Take note of nodes that fit, in the order of ranks. Under spread a bonus counts against the score."""
        at: Ints = np.array([offer.at for offer in offers], dtype=np.int64)
        bonus: Floats = np.array([offer.bonus for offer in offers], dtype=np.float64)
        sums = (ranks[at] + np.float64(self._most_bonus), ranks[at] + bonus, scores[at] + bonus)
        for offer, highest, rank, score in zip(offers, *(s.astype(np.float32).tolist() for s in sums), strict=True):
            if self._is_beyond(highest, offer.at):
                return
            self.scores[offer.at] = score
            if self.node is None or rank > self._rank or (rank == self._rank and offer.at < self.node.at):
                self._rank, self.node = rank, offer

    def _is_beyond(self, highest: float, at: int) -> bool:
        return self.node is not None and (highest < self._rank or (highest == self._rank and at > self.node.at))


def _best_first(ranks: Scores) -> Iterator[Ints]:
    """Yield positions by falling rank, equals in order: one, which is often all that is wanted, then some, then all."""
    first = int(np.argmax(ranks))
    yield np.array([first])
    order = np.argsort(-ranks, kind="stable")
    order = order[order != first]
    yield from (part for part in (order[:_SOME], order[_SOME:]) if len(part))
