"""Whether the books are right: what is booked, beside what the allocations add up to.

One rule: use is defined by the allocations; wherever something else is booked, the booking is wrong.
"""

from collections.abc import Iterable, Mapping

from msgspec import Struct

from hami_model.charge import NOTHING, Card, Charge, Charges, charge
from hami_model.life import Entry

NodeUses = Mapping[str, Charges]
"""Use by card, by node."""
QuotaUses = Mapping[tuple[str, str], tuple[int, int]]
"""(memory, cores) by (namespace, vendor word)."""


class Discrepancy(Struct, frozen=True, kw_only=True):
    """A booking other than what the allocations add up to. ``where``: a node, or a namespace if ``uuid`` is empty."""

    where: str
    vendor: str
    uuid: str = ""
    counted: Charge
    booked: Charge

    def __str__(self) -> str:
        what = f"{self.vendor} card {self.uuid}" if self.uuid else self.vendor
        return f"{self.where}: {what} is booked {_words(self.booked)}, allocations add up to {_words(self.counted)}"


def use_of(entries: Iterable[Entry]) -> dict[str, dict[Card, Charge]]:
    """Return what is used on each card of each node: by definition the sum over the allocations."""
    total: dict[str, dict[Card, Charge]] = {}
    for entry in entries:
        there = total.setdefault(entry.node, {})
        for card, cost in charge(entry.allocation, entry.pod).items():
            there[card] = there.get(card, NOTHING) + cost
    return total


def quota_use_of(entries: Iterable[Entry]) -> dict[tuple[str, str], tuple[int, int]]:
    """Return what each namespace uses of each vendor, in MiB and percent: the same sum."""
    total: dict[tuple[str, str], tuple[int, int]] = {}
    for entry in entries:
        for (word, _), cost in charge(entry.allocation, entry.pod).items():
            key = (entry.allocation.pod.namespace, word)
            memory, cores = total.get(key, (0, 0))
            total[key] = (memory + cost.memory, cores + cost.cores)
    return total


def audit(entries: Iterable[Entry], nodes: NodeUses, quotas: QuotaUses) -> tuple[Discrepancy, ...]:
    """Compare bookings with the definition; empty = the books are right."""
    entries = tuple(entries)
    return (*_node_discrepancies(use_of(entries), nodes), *_quota_discrepancies(quota_use_of(entries), quotas))


def _node_discrepancies(counted: NodeUses, booked: NodeUses) -> Iterable[Discrepancy]:
    for node in dict.fromkeys([*counted, *booked]):
        right, there = counted.get(node, {}), booked.get(node, {})
        for word, uuid in dict.fromkeys([*right, *there]):
            is_counted, is_booked = right.get((word, uuid), NOTHING), there.get((word, uuid), NOTHING)
            if is_counted != is_booked:
                yield Discrepancy(where=node, vendor=word, uuid=uuid, counted=is_counted, booked=is_booked)


def _quota_discrepancies(counted: QuotaUses, booked: QuotaUses) -> Iterable[Discrepancy]:
    for namespace, word in dict.fromkeys([*counted, *booked]):
        right, there = counted.get((namespace, word), (0, 0)), booked.get((namespace, word), (0, 0))
        if right != there:
            yield Discrepancy(where=namespace, vendor=word, counted=_charge(right), booked=_charge(there))


def _charge(used: tuple[int, int]) -> Charge:
    return Charge(memory=used[0], cores=used[1])


def _words(cost: Charge) -> str:
    return f"{cost.slots} slots, {cost.memory} MiB, {cost.cores} %"
