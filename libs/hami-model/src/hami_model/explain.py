"""Say why, card by card: what every offered node answers to a pod, in HAMi's words and in numbers.

One rule: the verdicts come from the very walk that decides; numbers are read from the cards as that walk saw them.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import repeat

import numpy as np
from msgspec import Struct

from hami_model import cores
from hami_model.bus.messages import CardVerdict, NodeVerdict
from hami_model.checks import FITS, Ask, Codes, first_refusals
from hami_model.device import Device
from hami_model.fleet import Fleet
from hami_model.objects import Pod
from hami_model.place import steps_of
from hami_model.policies import PodPolicies
from hami_model.quota import UNLIMITED, QuotaView
from hami_model.reason import NODE_UNREGISTERED, Reason
from hami_model.request import Exactly, PodDemand
from hami_model.rows import Ints, Rows
from hami_model.score import node_scores
from hami_model.walk import Walked, walk

At = tuple[Ints, Ints]
"""Some cards of a table: their nodes, and their positions there."""


def explain(
    fleet: Fleet,
    pod: Pod,
    demand: PodDemand,
    candidates: Sequence[str],
    *,
    policies: PodPolicies,
    quota: QuotaView = UNLIMITED,
) -> list[NodeVerdict]:
    """Return every candidate's verdict, in the order in which they are offered."""
    steps = steps_of(fleet, pod, demand, policies=policies, quota=quota)
    nodes = np.array(sorted({fleet.ids[name] for name in candidates if name in fleet.ids}), dtype=np.int64)
    verdicts = {
        verdict.node: verdict
        for walked in walk(fleet, nodes, steps)
        for verdict in (*_fitting(fleet, nodes, walked), *_refusing(fleet, nodes, walked))
    }
    return [verdicts.get(name) or NodeVerdict(node=name, fits=False, text=NODE_UNREGISTERED) for name in candidates]


def _fitting(fleet: Fleet, nodes: Ints, walked: Walked) -> Iterator[NodeVerdict]:
    """Yield the verdicts of nodes that take the pod; each card says what it answers by itself."""
    fits = walked.fitting
    if not len(fits):
        return
    mine = nodes[walked.at[fits]]
    scores = (node_scores(fleet.used[mine], fleet.total[mine]) + walked.bonus()[fits]).astype(np.float32)
    cards: list[list[CardVerdict]] = [[] for _ in mine]
    for ask in {ask.vendor.word: ask for step in reversed(walked.steps) for ask in step.asks}.values():
        rows = fleet.cards[ask.vendor.word].table(mine)
        reasons = tuple(check.reason for check in ask.checks)
        seen = Seen(rows=rows, ask=ask, codes=first_refusals(rows, ask), reasons=reasons)
        for known, more in zip(cards, seen.verdicts(np.arange(len(mine))), strict=True):
            known.extend(more)
    for node, score, of_node in zip(mine.tolist(), scores.tolist(), cards, strict=True):
        yield NodeVerdict(node=fleet.name(node), fits=True, score=score, cards=of_node)


def _refusing(fleet: Fleet, nodes: Ints, walked: Walked) -> Iterator[NodeVerdict]:
    """Yield the verdicts of nodes that refuse the pod; each card says what it answered where the walk stopped."""
    for fit, refused in walked.refusals():
        seen = Seen(rows=fit.rows, ask=fit.ask, codes=fit.card_codes(), reasons=fit.reasons, left=fit.left)
        cards = seen.verdicts(refused)
        for text, members in fit.texts(refused):
            for at in members.tolist():
                node = fleet.name(int(nodes[walked.at[refused[at]]]))
                yield NodeVerdict(node=node, fits=False, text=text, cards=cards[at])


class Seen(Struct, frozen=True, kw_only=True):
    """The cards of many nodes as a demand saw them: tables of [node, card]."""

    rows: Rows
    ask: Ask
    codes: Codes
    """Which of the reasons refused the card, or ``FITS``."""
    reasons: tuple[Reason, ...]
    left: Ints | None = None
    """[2, node]: memory and cores that the quota still allowed; None = as ``ask.room`` says."""

    def verdicts(self, nodes: Ints) -> list[list[CardVerdict]]:
        """Return the verdicts of all cards of some of the nodes."""
        size, ids = self.codes.shape[1], self.rows.ids
        found = [[CardVerdict(device=uuid) for uuid in ids[node * size : (node + 1) * size]] for node in nodes.tolist()]
        codes = self.codes[nodes]
        for code in np.unique(codes[codes != FITS]).tolist():
            chosen, cards = np.nonzero(codes == code)
            reason = self.reasons[code]
            numbers, word = _NUMBERS.get(reason, _nothing)(self, (nodes[chosen], cards)), reason.value
            for at, card, (wanted, had) in zip(chosen.tolist(), cards.tolist(), numbers, strict=False):
                device = found[at][card].device
                found[at][card] = CardVerdict(device=device, reason=word, wanted=wanted, had=had)
        return found

    def memory(self, at: At) -> list[int]:
        """Return the MiB wanted of some cards."""
        wanted: list[int] = np.broadcast_to(self.ask.memory_on(self.rows), self.rows.shape)[at].tolist()
        return wanted

    def cores(self, at: At) -> list[str]:
        """Return the cores wanted of some cards, for people."""
        demand, rows = self.ask.demand, self.rows
        nothing = np.zeros_like(rows.used_cores)  # of single cores there may be fewer left than are wanted
        is_sized = demand.slices is not None
        each = self.ask.cores_on(rows) if is_sized else cores.taken(demand, rows.cores, nothing)
        wanted = np.broadcast_to(each, rows.shape)[at].tolist()
        return [cores.text(demand.core_unit, amount) for amount in wanted]

    def devices(self, at: At) -> list[Device]:
        """Return some cards themselves."""
        devices, size = self.rows.devices, self.codes.shape[1]
        return [devices[node * size + card] for node, card in zip(at[0].tolist(), at[1].tolist(), strict=True)]


Numbers = Iterable[tuple[str, str]]
"""For each card what was wanted, and what it had."""


def _nothing(seen: Seen, at: At) -> Numbers:
    return repeat(("", ""))


def _memory(seen: Seen, at: At) -> Numbers:
    had = seen.rows.free_memory[at].tolist()
    return zip((f"{mib} MiB" for mib in seen.memory(at)), (f"{mib} MiB" for mib in had), strict=True)


def _cores(seen: Seen, at: At) -> Numbers:
    unit, rows = seen.ask.demand.core_unit, seen.rows
    total = np.broadcast_to(seen.ask.total_cores(rows), rows.shape)
    free, wanted = cores.left(unit, total, rows.used_cores)[at], seen.cores(at)
    return ((asked, cores.text(unit, had)) for asked, had in zip(wanted, free.tolist(), strict=True))


def _slots(seen: Seen, at: At) -> Numbers:
    used, slots = seen.rows.used_slots[at].tolist(), seen.rows.slots[at].tolist()
    return (("1 slot", f"{taken} of {size} taken") for taken, size in zip(used, slots, strict=True))


def _exclusive(seen: Seen, at: At) -> Numbers:
    return (("a card for itself", f"{taken} on it") for taken in seen.rows.used_slots[at].tolist())


def _model(seen: Seen, at: At) -> Numbers:
    rules = seen.ask.constraints
    lists = (("", rules.use_models), ("not ", rules.nouse_models), ("mode ", (rules.modes,) if rules.modes else None))
    wanted = "; ".join(word + ", ".join(names) for word, names in lists if names is not None)
    mode = ", mode {}" if rules.modes else ""
    return ((wanted, device.model + mode.format(device.mode)) for device in seen.devices(at))


def _uuid(seen: Seen, at: At) -> Numbers:
    rules = seen.ask.constraints
    lists = (("", rules.use_uuids), ("not ", rules.nouse_uuids))
    wanted = "; ".join(word + ", ".join(sorted(ids)) for word, ids in lists if ids is not None)
    return ((wanted, device.id) for device in seen.devices(at))


def _quota(seen: Seen, at: At) -> Numbers:
    room, nodes = seen.ask.room, at[0]
    limits, units = (room.memory, room.cores), ("MiB", "%")
    left = seen.left if seen.left is not None else [np.full(len(seen.codes), limit or 0) for limit in limits]
    known = [(amounts[nodes], u) for amounts, limit, u in zip(left, limits, units, strict=True) if limit is not None]
    rows = zip(*(amounts.tolist() for amounts, _ in known), strict=True)
    had = (" and ".join(f"{n} {u}" for n, (_, u) in zip(row, known, strict=True)) for row in rows)
    return (
        (f"{mib} MiB, {asked}", f"{text} left in the namespace")
        for mib, asked, text in zip(seen.memory(at), seen.cores(at), had, strict=True)
    )


def _numa(seen: Seen, at: At) -> Numbers:
    wanted = f"{seen.ask.demand.count} cards on one NUMA node"
    return ((wanted, f"NUMA node {numa}") for numa in seen.rows.numa[at].tolist())


def _part(seen: Seen, at: At) -> Numbers:
    return ((f"a part of {mib} MiB", "no such part is free") for mib in seen.memory(at))


def _size(seen: Seen, at: At) -> Numbers:
    demand = seen.ask.demand
    if demand.slices is None:
        return _nothing(seen, at)
    memory = demand.memory.mib if isinstance(demand.memory, Exactly) else 0
    wanted = f"a share of {demand.slices} slices" if demand.slices else f"a share of {memory} MiB and {demand.cores} %"
    sizes = (", ".join(size.name for size in device.sizes) for device in seen.devices(at))
    return ((wanted, f"shares of {names or 'no size'}") for names in sizes)


def _company(seen: Seen, at: At) -> Numbers:
    return repeat(("cards shared by pods of its kind", "shared by others, or by pods that keep to themselves"))


_NUMBERS: dict[Reason, Callable[[Seen, At], Numbers]] = {
    Reason.MODE_MISMATCH: _size,
    Reason.UNHEALTHY: lambda seen, at: repeat(("a healthy card", "unhealthy, or nobody serves it")),
    Reason.CARD_UNHEALTHY: lambda seen, at: repeat(("a healthy card", "unhealthy, or nobody serves it")),
    Reason.CLASS_MISMATCH: _company,
    Reason.QOS_MISMATCH: _company,
    Reason.CORDONED: lambda seen, at: repeat(("an open card", "cordoned")),
    Reason.TYPE_MISMATCH: _model,
    Reason.UUID_MISMATCH: _uuid,
    Reason.SLOTS_EXHAUSTED: _slots,
    Reason.EXCLUSIVE_CONFLICT: _exclusive,
    Reason.QUOTA_EXCEEDED: _quota,
    Reason.INSUFFICIENT_MEMORY: _memory,
    Reason.INSUFFICIENT_CORES: _cores,
    Reason.COMPUTE_EXHAUSTED: lambda seen, at: repeat(("some cores left", "all cores booked")),
    Reason.NUMA_MISMATCH: _numa,
    Reason.MIG_INFEASIBLE: _part,
}
