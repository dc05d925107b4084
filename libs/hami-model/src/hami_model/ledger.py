"""Who holds what. Use *is* the sum of the charges of all allocations not released; there is no second counter to drift.

One rule: only ``apply`` changes anything, and an event told twice changes nothing the second time. The fleet and the
quotas are booked in the same step. Knows no clock, no API, and decides nothing.
"""

from typing import Protocol

from msgspec import structs

from hami_model.allocation import LEADS_TO, Allocation, State, advance
from hami_model.audit import Discrepancy, NodeUses, QuotaUses, audit
from hami_model.charge import Charges, charge
from hami_model.errors import InvariantError
from hami_model.life import BindSent, Entry, Event, Extended, FoundBound, Made, Released, Reserved, Seen, Transition
from hami_model.objects import Pod


class CardBooks(Protocol):
    """What the ledger needs of the fleet."""

    def charge(self, node: str, charges: Charges) -> None:
        """Add to what is used on the node's cards."""

    def discharge(self, node: str, charges: Charges) -> None:
        """Take back what ``charge`` added."""

    @property
    def uses(self) -> NodeUses:
        """Return what is booked on every node, on cards that are not there at present too."""


class QuotaBooks(Protocol):
    """What the ledger needs of the quotas."""

    def charge(self, namespace: str, charges: Charges) -> None:
        """Add to what the namespace uses."""

    def discharge(self, namespace: str, charges: Charges) -> None:
        """Take back what ``charge`` added."""

    @property
    def uses(self) -> QuotaUses:
        """Return what every namespace uses of every vendor."""


class Ledger:
    """The allocations of all pods, by uid and by node."""

    def __init__(self, fleet: CardBooks, quotas: QuotaBooks) -> None:
        self._fleet = fleet
        self._quotas = quotas
        self._entries: dict[str, Entry] = {}
        self._nodes: dict[str, dict[str, None]] = {}

    @property
    def entries(self) -> tuple[Entry, ...]:
        """Return every entry, oldest first."""
        return tuple(self._entries.values())

    def entry(self, uid: str) -> Entry | None:
        """Return what is known of the pod's allocation; ``None`` when it holds nothing."""
        return self._entries.get(uid)

    def on_node(self, node: str) -> tuple[Entry, ...]:
        """Return the entries of one node, oldest first."""
        return tuple(self._entries[uid] for uid in self._nodes.get(node, ()))

    def in_state(self, state: State, *, before: float) -> tuple[Entry, ...]:
        """Return the entries that came into the state at ``before`` or earlier."""
        return tuple(e for e in self._entries.values() if e.state is state and e.since <= before)

    def expired(self, now: float, timeout: float) -> tuple[Released, ...]:
        """Return the end of every reservation as old as ``timeout``. Nothing but a reservation ends by time."""
        why = f"reserved {timeout:g} s ago and not bound since"
        return tuple(Released(uid=e.uid, why=why) for e in self.in_state(State.RESERVED, before=now - timeout))

    def unwritten(self, why: str) -> tuple[Released, ...]:
        """Return the end of all that the API server does not hold: for who leads no more, or has fenced the past."""
        return tuple(Released(uid=e.uid, why=why) for e in self._entries.values() if not e.is_bound)

    def apply(self, event: Event) -> Entry | None:
        """Take note of an event and return the pod's entry after it; raise ``InvariantError`` if it cannot be."""
        entry = self._entries.get(event.uid)
        match event:
            case Seen():
                return entry and self._rebook(structs.replace(entry, is_watched=True), event.pod, entry.allocation)
            case Made():
                return entry and self._note(structs.replace(entry, instances=event.instances))
            case Extended():
                return entry and self._rebook(entry, entry.pod, event.allocation)
            case _ if _is_repeated(entry, event):
                return entry
            case Released():
                advance(entry.state if entry else None, event.step)
                self._drop(event.uid)
                return None
            case Reserved() | FoundBound() | BindSent() if entry is None:
                return self._enter(event)
            case _:
                return self._move(entry, event)

    def audit(self) -> tuple[Discrepancy, ...]:
        """Compare what is booked with what the allocations add up to; empty = the books are right."""
        return audit(self._entries.values(), self._fleet.uses, self._quotas.uses)

    def _enter(self, event: Reserved | FoundBound | BindSent) -> Entry:
        if event.pod is None or event.allocation is None:
            raise InvariantError(
                f"{type(event).__name__} of the unknown pod {event.uid} brings no pod or no allocation"
            )
        if event.allocation.pod.uid != event.uid:
            raise InvariantError(f"the event of pod {event.uid} brings the allocation of {event.allocation.pod.uid}")
        found = isinstance(event, FoundBound)
        entry = Entry(
            allocation=event.allocation,
            pod=event.pod,
            state=advance(None, event.step),
            since=event.at,
            charges=charge(event.allocation, event.pod),
            is_watched=found,
            everywhere=event.everywhere if isinstance(event, FoundBound) else (),
        )
        self._book(entry)
        return entry

    def _move(self, entry: Entry | None, event: Transition) -> Entry:
        if entry is None or isinstance(event, Released):
            raise InvariantError(f"{type(event).__name__} happened to {event.uid}, which holds nothing")
        brought = getattr(event, "allocation", None)
        if brought not in (None, entry.allocation):
            raise InvariantError(f"{type(event).__name__} changes the devices of {entry.allocation.pod} under way")
        moved = structs.replace(entry, state=advance(entry.state, event.step), since=event.at)
        self._entries[event.uid] = moved
        return moved

    def _rebook(self, entry: Entry, pod: Pod, allocation: Allocation) -> Entry:
        changed = structs.replace(entry, pod=pod, allocation=allocation, charges=charge(allocation, pod))
        self._entries[entry.uid] = changed
        if changed.charges != entry.charges:
            self._charge_back(entry)
            self._charge(changed)
        return changed

    def _note(self, entry: Entry) -> Entry:
        self._entries[entry.uid] = entry
        return entry

    def _book(self, entry: Entry) -> None:
        self._entries[entry.uid] = entry
        self._nodes.setdefault(entry.node, {})[entry.uid] = None
        self._charge(entry)

    def _drop(self, uid: str) -> None:
        entry = self._entries.pop(uid)
        there = self._nodes[entry.node]
        del there[uid]
        if not there:
            del self._nodes[entry.node]
        self._charge_back(entry)

    def _charge(self, entry: Entry) -> None:
        self._fleet.charge(entry.node, entry.charges)
        self._quotas.charge(entry.allocation.pod.namespace, entry.charges)

    def _charge_back(self, entry: Entry) -> None:
        self._fleet.discharge(entry.node, entry.charges)
        self._quotas.discharge(entry.allocation.pod.namespace, entry.charges)


def _is_repeated(entry: Entry | None, event: Transition) -> bool:
    """Say whether the event's outcome is already there."""
    if entry is None:
        return isinstance(event, Released)
    brought = getattr(event, "allocation", None)
    return LEADS_TO[event.step] is entry.state and brought in (None, entry.allocation)
