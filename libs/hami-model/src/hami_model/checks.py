"""One rule, one line, for one card or for forty thousand: columns and a demand in, a mask of who passes out.

One rule: a check looks at a card, and at most at the others of its node, which are always there too; booking more
never makes a card pass. What depends on the cards taken before (``Ask.room``, NUMA runs, pickers) is the walk's.
``None`` = the check does not apply: everybody passes.
"""

from collections.abc import Callable, Iterator
from typing import assert_never

import numpy as np
import numpy.typing as npt
from msgspec import Struct, structs

from hami_model import cores
from hami_model.alike import alike
from hami_model.cores import WHOLE_CARD
from hami_model.cutting import Parts, largest, one_after_another
from hami_model.device import Size
from hami_model.picking import Picker
from hami_model.policies import MUTEX, PodPolicies
from hami_model.quota import Room
from hami_model.reason import Reason
from hami_model.request import CoreUnit, Demand, Exactly, Percent, Whole
from hami_model.rows import Ints, Mask, Rows
from hami_model.sizes import chosen
from hami_model.vendor import Constraints, Vendor

Codes = npt.NDArray[np.int8]
"""For each row the position of the first check that refuses it, or ``FITS``."""
FITS = -1


class Ask(Struct, frozen=True, kw_only=True):
    """One demand with all that the pod and the process say about it."""

    vendor: Vendor
    demand: Demand
    constraints: Constraints = Constraints()
    policies: PodPolicies = PodPolicies()
    room: Room = Room()
    """What the namespace's quota still allows."""
    checks: tuple["Check", ...] = ()
    picker: Picker | None = None

    @property
    def quota_at(self) -> int:
        """Return the position of the quota's check: cards that pass those before it are asked for their price."""
        return self.checks.index(WITHIN_QUOTA)

    @property
    def cores(self) -> int:
        """Return the cores wanted of each card; more than a card has means the whole of it (HAMi compat)."""
        return min(self.demand.cores, WHOLE_CARD) if self.constraints.counts_cores else 0

    def memory_on(self, rows: Rows) -> Ints | int:
        """Return the MiB wanted of each card, as one number where it is the same on all."""
        if self.demand.slices is not None:
            return self._of_size(rows, lambda size: size.memory)
        match self.demand.memory:
            case Exactly(mib):
                return mib
            case Percent(percent):
                wanted: Ints = rows.memory * percent // 100
                return wanted
            case Whole():
                return rows.memory
            case _ as never:
                assert_never(never)

    def of_part(self, parts: Parts, memory: int) -> int:
        """Return the MiB wanted of one part: who wants the whole card has enough of its largest part."""
        is_whole = self.demand.memory in (Whole(), Percent(100))
        return min(memory, largest(parts)) if is_whole else memory

    def cores_on(self, rows: Rows) -> Ints | int:
        """Return the cores wanted of each card, in the form in which they are booked."""
        if self.demand.slices is not None:
            return self._of_size(rows, lambda size: size.cores)
        if self.demand.core_unit is CoreUnit.PERCENT:
            return self.cores
        return cores.taken(self.demand, rows.cores, rows.used_cores)

    def has_size(self, rows: Rows) -> Mask:
        """Say which cards give shares of a size that has what is wanted."""
        return self._of_size(rows, lambda size: 1) > 0

    def _of_size(self, rows: Rows, number: Callable[[Size], int]) -> Ints:
        """Return a number of the size that each card would give; 0 where none has what is wanted."""
        found = [chosen(sizes, self.demand) for sizes in rows.cards.size_lists]
        numbers: Ints = np.array([0 if size is None else number(size) for size in found], dtype=np.int64)[rows.size]
        return numbers

    def total_cores(self, rows: Rows) -> Ints | int:
        """Return what the cards have; a soft split counts in percent, whatever unit the node lists (HAMi compat)."""
        return WHOLE_CARD if self.constraints.soft_split else rows.cores


class Check(Struct, frozen=True):
    """A rule with the reason it gives; its place in the tuple is its priority."""

    reason: Reason
    passes: Callable[[Rows, Ask], Mask | None]


def mode_served(rows: Rows, ask: Ask) -> Mask | None:
    """The node splits cards in software, if the pod wants that."""
    return rows.soft_split if ask.constraints.soft_split else None


def size_there(rows: Rows, ask: Ask) -> Mask | None:
    """A card that gives shares of certain sizes has one that is large enough."""
    return None if ask.demand.slices is None else ask.has_size(rows)


def healthy(rows: Rows, ask: Ask) -> Mask | None:
    """The card works, and somebody alive serves it."""
    return rows.healthy


def not_cordoned(rows: Rows, ask: Ask) -> Mask | None:
    """Nobody closed the card to new pods."""
    return ~rows.cordoned if ask.vendor.keys.cordon else None


def model_allowed(rows: Rows, ask: Ask) -> Mask | None:
    """The pod's lists of models, and its kinds of operation (HAMi's vgpu-mode), allow the card."""
    rules = ask.constraints
    if rules.use_models is None and rules.nouse_models is None and rules.modes is None:
        return None
    models = np.array([_names(model, rules) for model in rows.cards.models], dtype=np.bool_)
    allowed: Mask = (
        models[rows.model] & modes_allowed(rows, ask) if len(models) else np.zeros(rows.shape, dtype=np.bool_)
    )
    return allowed


def modes_allowed(rows: Rows, ask: Ask) -> Mask:
    """Say which cards are in one of the modes that the pod wants, if it names any."""
    wanted = ask.constraints.modes
    modes = np.array([wanted is None or mode in wanted for mode in rows.cards.modes], dtype=np.bool_)
    found: Mask = modes[rows.mode]
    return found


def uuid_allowed(rows: Rows, ask: Ask) -> Mask | None:
    """The pod's lists of cards allow this one."""
    use, nouse = ask.constraints.use_uuids, ask.constraints.nouse_uuids
    if use is None and nouse is None:
        return None
    ids = rows.ids
    allowed = np.ones(len(ids), dtype=np.bool_)
    if use is not None:
        allowed &= np.fromiter(map(use.__contains__, ids), np.bool_, len(ids))
    if nouse is not None:
        allowed &= ~np.fromiter(map(nouse.__contains__, ids), np.bool_, len(ids))
    return allowed.reshape(rows.shape)


def unused(rows: Rows, ask: Ask) -> Mask | None:
    """Nobody has the card."""
    idle: Mask = rows.used_slots == 0
    return idle


def in_this_form(rows: Rows, ask: Ask) -> Mask | None:
    """Nobody has the card in its other form: shares of it, or all of it. HAMi does not look."""
    return rows.elsewhere == 0 if ask.vendor.other_form else None


def slot_free(rows: Rows, ask: Ask) -> Mask | None:
    """One more pod may share the card."""
    return rows.used_slots < rows.slots


def unshared_if_mutex(rows: Rows, ask: Ask) -> Mask | None:
    """Under the policy ``mutex`` nobody else is on the card."""
    return rows.used_slots == 0 if MUTEX in ask.constraints.card_policies else None


def within_quota(rows: Rows, ask: Ask) -> Mask | None:
    """The namespace may take this much more."""
    room = ask.room
    if room == Room():
        return None
    fits = np.ones(rows.shape, dtype=np.bool_)
    if room.memory is not None:
        fits &= np.asarray(ask.memory_on(rows) <= room.memory)
    if room.cores is not None:
        fits &= np.asarray(ask.cores_on(rows) <= room.cores)
    return fits


def memory_free(rows: Rows, ask: Ask) -> Mask | None:
    """The memory asked for is not booked."""
    return rows.free_memory >= ask.memory_on(rows)


def cores_free(rows: Rows, ask: Ask) -> Mask | None:
    """The cores asked for are not booked. HAMi compat: a card with more booked than it lists refuses even none."""
    if ask.demand.core_unit is not CoreUnit.PERCENT:
        return cores.are_free(ask.demand, rows.cores, rows.used_cores)
    fits: Mask = rows.used_cores + ask.cores_on(rows) <= ask.total_cores(rows)
    return fits


def alone_if_exclusive(rows: Rows, ask: Ask) -> Mask | None:
    """Who asks for a whole card never joins one in use. HAMi compat: a card of other than 100 cores is never whole."""
    if ask.cores != WHOLE_CARD:
        return None
    fits: Mask = (rows.used_slots == 0) | np.asarray(ask.total_cores(rows) != WHOLE_CARD)
    return fits


def computing_left(rows: Rows, ask: Ask) -> Mask | None:
    """Who asks for no cores still finds some: a card whose cores are all booked takes nobody."""
    if ask.cores or not ask.constraints.counts_cores:
        return None
    total = ask.total_cores(rows)
    fits: Mask = np.asarray(total == 0) | (rows.used_cores < total)
    return fits


def part_free(rows: Rows, ask: Ask) -> Mask | None:
    """A card that is cut into parts, in a mode that the pod wants, still has one that is large enough."""
    if not rows.cards.gives_parts:
        return None
    at = np.nonzero(rows.cut * modes_allowed(rows, ask))
    if not len(at[0]):
        return None
    fits = np.ones(rows.shape, dtype=np.bool_)
    there = np.zeros(len(at[0]), dtype=np.bool_)
    for members, parts in parts_of(rows, ask, at):
        there[members] = bool(parts)
    fits[at] = there
    return fits


def parts_of(rows: Rows, ask: Ask, at: tuple[Ints, ...]) -> Iterator[tuple[Ints, Parts]]:
    """Yield which of some cards give the demand which parts, one after the other; ``at``: their places in the rows."""
    memory = np.broadcast_to(ask.memory_on(rows), rows.shape)[at]
    columns, cuts = (rows.cut[at], rows.taken[at], memory), list(rows.cards.cuts)
    for members in alike(columns) if len(memory) else ():
        cut, taken, mib = (int(column[members[0]]) for column in columns)
        parts = cuts[cut] or ()
        yield members, one_after_another(parts, taken, ask.of_part(parts, mib))


WITHIN_QUOTA = Check(Reason.QUOTA_EXCEEDED, within_quota)
IN_THIS_FORM = Check(Reason.EXCLUSIVE_CONFLICT, in_this_form)

CHECKS = (
    Check(Reason.MODE_MISMATCH, mode_served),
    Check(Reason.MODE_MISMATCH, size_there),
    Check(Reason.UNHEALTHY, healthy),
    Check(Reason.CORDONED, not_cordoned),
    Check(Reason.TYPE_MISMATCH, model_allowed),
    Check(Reason.UUID_MISMATCH, uuid_allowed),
    IN_THIS_FORM,
    Check(Reason.SLOTS_EXHAUSTED, slot_free),
    Check(Reason.EXCLUSIVE_CONFLICT, unshared_if_mutex),
    WITHIN_QUOTA,
    Check(Reason.INSUFFICIENT_MEMORY, memory_free),
    Check(Reason.INSUFFICIENT_CORES, cores_free),
    Check(Reason.EXCLUSIVE_CONFLICT, alone_if_exclusive),
    Check(Reason.COMPUTE_EXHAUSTED, computing_left),
)
"""What every vendor's cards are asked, most important first."""

NODE_WIDE = frozenset({Reason.MODE_MISMATCH})
"""Reasons that concern the node and are counted once, whatever number of cards it has (HAMi compat)."""


def ask_of(vendor: Vendor, demand: Demand, *, constraints: Constraints, policies: PodPolicies, room: Room) -> Ask:
    """Put together all that decides about one demand."""
    known = structs.replace(constraints, card_policies=policies.card_words)
    if demand.core_unit is not CoreUnit.PERCENT:  # what is booked is no percentage, as a quota's limit is
        room = structs.replace(room, cores=None)
    checks = CHECKS if vendor.checks is None else vendor.checks
    return Ask(
        vendor=vendor,
        demand=demand,
        constraints=known,
        policies=policies,
        room=room if WITHIN_QUOTA in checks else Room(),
        checks=checks,
        picker=None if vendor.choose is None else vendor.choose(vendor, demand, known),
    )


def first_refusals(rows: Rows, ask: Ask) -> Codes:
    """Return, for each row, the position of the first check that refuses it, or ``FITS``."""
    codes = np.full(rows.shape, FITS, dtype=np.int8)
    for position in range(len(ask.checks) - 1, -1, -1):
        mask = ask.checks[position].passes(rows, ask)
        if mask is not None:
            codes[~mask] = position
    return codes


def _names(model: str, rules: Constraints) -> bool:
    text = model.upper()
    is_used = rules.use_models is None or any(item in text for item in rules.use_models)
    return is_used and not any(item in text for item in rules.nouse_models or ())
