"""Say why, card by card: what every offered node answers to a pod, in HAMi's words and in numbers.

One rule: the verdicts come from the very walk that decides; numbers are read from the cards as that walk saw them.
"""

from collections.abc import Callable, Sequence

import numpy as np

from hami_model.bus.messages import CardVerdict, NodeVerdict
from hami_model.checks import FITS, Ask, first_refusals
from hami_model.columns import NOBODY, Rows
from hami_model.fit import Refusal
from hami_model.fleet import Fleet
from hami_model.objects import Pod
from hami_model.place import steps_of
from hami_model.policies import PodPolicies
from hami_model.quota import UNLIMITED, QuotaView
from hami_model.reason import NODE_UNREGISTERED, Reason
from hami_model.request import PodDemand
from hami_model.score import node_scores
from hami_model.walk import Fitted, Step, walk

Numbers = tuple[str, str]
"""What was wanted, and what the card had."""


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
    return [_verdict(fleet, steps, node) for node in candidates]


def _verdict(fleet: Fleet, steps: Sequence[Step], node: str) -> NodeVerdict:
    node_id = fleet.ids.get(node, NOBODY)
    if node_id == NOBODY:
        return NodeVerdict(node=node, fits=False, text=NODE_UNREGISTERED)
    outcome = walk(fleet, node_id, steps)
    if isinstance(outcome, Fitted):
        score = node_scores(fleet.used[node_id : node_id + 1], fleet.total[node_id : node_id + 1])[0]
        full = float(np.float32(score + outcome.bonus(steps)))
        asks = {ask.vendor.word: ask for step in reversed(steps) for ask in step.asks}
        cards = [card for ask in asks.values() for card in _cards(fleet.cards[ask.vendor.word].of(node_id), ask)]
        return NodeVerdict(node=node, fits=True, score=full, cards=cards)
    if isinstance(outcome, Refusal):
        cards = _refused(outcome.rows, outcome.ask, outcome.cards)
    else:
        cards = _cards(fleet.cards[outcome.ask.vendor.word].of(node_id), outcome.ask)
    return NodeVerdict(node=node, fits=False, text=outcome.text, cards=cards)


def _cards(rows: Rows, ask: Ask) -> list[CardVerdict]:
    """Return what each card by itself answers to a demand."""
    codes = first_refusals(rows, ask).tolist()
    return _refused(rows, ask, {at: ask.checks[code].reason for at, code in enumerate(codes) if code != FITS})


def _refused(rows: Rows, ask: Ask, reasons: dict[int, Reason]) -> list[CardVerdict]:
    verdicts = []
    for at, device in enumerate(rows.devices):
        reason = reasons.get(at)
        if reason is None:
            verdicts.append(CardVerdict(device=device.id))
        else:
            wanted, had = _NUMBERS[reason](rows, ask, at) if reason in _NUMBERS else ("", "")
            verdicts.append(CardVerdict(device=device.id, reason=reason.value, wanted=wanted, had=had))
    return verdicts


def _memory(rows: Rows, ask: Ask, at: int) -> Numbers:
    return f"{_wanted_memory(rows, ask, at)} MiB", f"{rows.free_memory[at]} MiB"


def _cores(rows: Rows, ask: Ask, at: int) -> Numbers:
    total = ask.total_cores(rows)
    free = (total if isinstance(total, int) else int(total[at])) - int(rows.used_cores[at])
    return f"{ask.cores} %", f"{max(free, 0)} %"


def _slots(rows: Rows, ask: Ask, at: int) -> Numbers:
    return "1 slot", f"{rows.used_slots[at]} of {rows.slots[at]} taken"


def _exclusive(rows: Rows, ask: Ask, at: int) -> Numbers:
    return "a card for itself", f"{rows.used_slots[at]} on it"


def _model(rows: Rows, ask: Ask, at: int) -> Numbers:
    rules, device = ask.constraints, rows.devices[at]
    lists = (("", rules.use_models), ("not ", rules.nouse_models), ("mode ", (rules.modes,) if rules.modes else None))
    wanted = "; ".join(word + ", ".join(names) for word, names in lists if names is not None)
    return wanted, f"{device.model}, mode {device.mode}" if rules.modes else device.model


def _uuid(rows: Rows, ask: Ask, at: int) -> Numbers:
    rules = ask.constraints
    lists = (("", rules.use_uuids), ("not ", rules.nouse_uuids))
    wanted = "; ".join(word + ", ".join(sorted(ids)) for word, ids in lists if ids is not None)
    return wanted, rows.devices[at].id


def _quota(rows: Rows, ask: Ask, at: int) -> Numbers:
    room = ask.room
    left = [f"{amount} {unit}" for amount, unit in ((room.memory, "MiB"), (room.cores, "%")) if amount is not None]
    return f"{_wanted_memory(rows, ask, at)} MiB, {ask.cores} %", f"{' and '.join(left)} left in the namespace"


def _numa(rows: Rows, ask: Ask, at: int) -> Numbers:
    return f"{ask.demand.count} cards on one NUMA node", f"NUMA node {rows.numa[at]}"


def _wanted_memory(rows: Rows, ask: Ask, at: int) -> int:
    memory = ask.memory_on(rows)
    return memory if isinstance(memory, int) else int(memory[at])


_NUMBERS: dict[Reason, Callable[[Rows, Ask, int], Numbers]] = {
    Reason.UNHEALTHY: lambda rows, ask, at: ("a healthy card", "unhealthy, or nobody serves it"),
    Reason.CORDONED: lambda rows, ask, at: ("an open card", "cordoned"),
    Reason.TYPE_MISMATCH: _model,
    Reason.UUID_MISMATCH: _uuid,
    Reason.SLOTS_EXHAUSTED: _slots,
    Reason.EXCLUSIVE_CONFLICT: _exclusive,
    Reason.QUOTA_EXCEEDED: _quota,
    Reason.INSUFFICIENT_MEMORY: _memory,
    Reason.INSUFFICIENT_CORES: _cores,
    Reason.COMPUTE_EXHAUSTED: lambda rows, ask, at: ("some cores left", "all cores booked"),
    Reason.NUMA_MISMATCH: _numa,
}
