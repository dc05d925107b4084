"""Decide which of the offered nodes takes a pod, and which cards there.

One rule: the survey of the whole fleet only prunes and explains; the walk of single nodes decides, best node first.
Among equal nodes the first in the request's order wins. Nothing is booked here.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import repeat

import numpy as np
from msgspec import Struct

from hami_model.allocation import ContainerGrants
from hami_model.checks import Ask, ask_of
from hami_model.columns import NOBODY, Ints, Mask
from hami_model.fleet import Fleet
from hami_model.judge import Judged, judge_each
from hami_model.objects import Pod
from hami_model.policies import PodPolicies
from hami_model.quota import UNLIMITED, QuotaView, Room
from hami_model.reason import NODE_UNREGISTERED, TYPE_NOT_FOUND
from hami_model.request import Demand, PodDemand
from hami_model.score import Scores, node_scores
from hami_model.survey import Survey, rows_for, survey
from hami_model.vendor import Constraints
from hami_model.walk import Fitted, NodeRefusal, Step, walk

_MANY = 16
"""After so many walks the cards of all candidates are judged at once."""


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
        self._refusals: dict[int, NodeRefusal] = {}
        self._judged: dict[int, Judged] = {}
        self._walked = 0

    def best(self, *, prefer_full: bool) -> Placement | None:
        """Return the best node that takes the pod."""
        positions = np.flatnonzero(self._may_fit())
        if not len(positions):
            return None
        nodes = self._ids[positions]
        scores = node_scores(self._fleet.used[nodes], self._fleet.total[nodes])
        ranks = scores if prefer_full else -scores
        found = _Best(self._most_bonus())
        for at in _best_first(ranks):
            if found.beats(float(ranks[at]), at):
                break
            fitted = self._walk(int(nodes[at]))
            if isinstance(fitted, Fitted):
                found.offer(at, fitted, rank=float(ranks[at]), score=float(scores[at]), bonus=fitted.bonus(self._steps))
        if found.fitted is None:
            return None
        names = {self._fleet.name(int(nodes[at])): score for at, score in found.scores.items()}
        node = self._fleet.name(int(nodes[found.at]))
        return Placement(node=node, containers=found.fitted.containers, scores=names, fitting=len(positions))

    def reasons(self) -> dict[str, list[int]]:
        """Return why no candidate takes the pod."""
        known = self._ids != NOBODY
        groups: dict[str, list[int]] = {}
        if not known.all():
            groups[NODE_UNREGISTERED] = np.flatnonzero(~known).tolist()
        if not self._surveys:
            return groups
        first = self._surveys[0]
        final = known & first.is_final[self._ids]
        positions = np.flatnonzero(final)
        if len(positions):
            for text, members in first.texts(self._ids[positions]).items():
                groups[text] = positions[members].tolist()
        for position in np.flatnonzero(known & ~final).tolist():
            outcome = self._walk(int(self._ids[position]))
            if not isinstance(outcome, Fitted):
                groups.setdefault(outcome.text, []).append(position)
        return {text: sorted(positions) for text, positions in groups.items()}

    def _survey(self) -> list[Survey]:
        """Ask every different demand of the fleet, the one that is walked first first."""
        nodes = self._ids[self._ids != NOBODY].tolist()
        asks = {ask.demand: ask for step in self._steps for ask in step.asks}
        rows = {word: rows_for(self._fleet, word, nodes) for word in {demand.vendor for demand in asks}}
        return [survey(rows[demand.vendor], ask, self._fleet.capacity) for demand, ask in asks.items()]

    def _may_fit(self) -> Mask:
        fits: Mask = self._ids != NOBODY
        for answered in self._surveys:
            fits = fits & answered.may_fit[self._ids]
        return fits

    def _most_bonus(self) -> float:
        return sum(ask.vendor.best_bonus for step in self._steps for ask in step.asks)

    def _walk(self, node_id: int) -> Fitted | NodeRefusal:
        """Walk a node; a refusal is remembered, for it is asked for again when no node fits."""
        if node_id in self._refusals:
            return self._refusals[node_id]
        self._walked += 1
        if self._walked == _MANY:
            self._judged = self._judge_all()
        outcome = walk(self._fleet, node_id, self._steps, first=self._judged.get(node_id))
        if not isinstance(outcome, Fitted):
            self._refusals[node_id] = outcome
        return outcome

    def _judge_all(self) -> dict[int, Judged]:
        """Judge all candidates' cards for the first demand in one pass, since many walks seem to be needed."""
        step = next(step for step in self._steps if step.asks)
        cards = self._fleet.cards[step.asks[0].vendor.word]
        return judge_each(cards.among(np.unique(self._ids).tolist()), step.asks[0], step.container.demands)


class _Best:
    """The best node found so far, where a vendor's bonus may put a later node before an earlier one."""

    def __init__(self, most_bonus: float) -> None:
        self._most_bonus = most_bonus
        self._rank = -np.inf
        self.at = 0
        self.fitted: Fitted | None = None
        self.scores: dict[int, float] = {}

    def beats(self, rank: float, at: int) -> bool:
        """Say whether neither this node nor any after it can be better, in the order of ranks."""
        highest = float(np.float32(rank + self._most_bonus))
        return self.fitted is not None and (highest < self._rank or (highest == self._rank and at > self.at))

    def offer(self, at: int, fitted: Fitted, *, rank: float, score: float, bonus: float) -> None:
        """Take note of a node that fits. Under spread a bonus counts against the score, not with it."""
        self.scores[at] = float(np.float32(score + bonus))
        full = float(np.float32(rank + bonus))
        if self.fitted is None or full > self._rank or (full == self._rank and at < self.at):
            self._rank, self.at, self.fitted = full, at, fitted


def _best_first(ranks: Scores) -> Iterator[int]:
    """Yield positions by falling rank, equals in order; the first is often all that is wanted."""
    first = int(np.argmax(ranks))
    yield first
    yield from _without(first, np.argsort(-ranks, kind="stable").tolist())


def _without(first: int, order: Iterable[int]) -> Iterator[int]:
    return (at for at in order if at != first)
