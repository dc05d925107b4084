"""Cards that are given whole or in shares, and Kunlun's wings, by a scheduler without columns.

One rule: a card's index alone says where it is, and which card of the other form is the same one.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations

from hami_model.device import Device
from hami_model.reason import Reason

from hami_testkit.slow_world import SlowNode, Use

FORMS = (("GCU", "Enflame"), ("kunlun", "XPU"), ("Metax-GPU", "Metax-SGPU"))
ALONE = ("GCU", "kunlun")
"""Words whose cards have one pod, of whose ask nothing else is looked at."""
WINGED = ("kunlun", "XPU")
LINKED_FOURS = ("0145", "2367", "0246", "1357", "0347", "1256")


def in_other_form(device: Device, node: SlowNode, use: Mapping[str, Use]) -> bool:
    """Say whether somebody has the card in its other form."""
    others = {other for pair in FORMS if device.vendor in pair for other in pair if other != device.vendor}
    return any(use[c.id].slots > 0 for c in node.devices if c.vendor in others and c.index == device.index)


def refusal(device: Device, memory: int, used: Use, *, mutex: bool) -> Reason | None:
    """Return why a card of words that look at little does not serve."""
    if device.vendor in ALONE:
        return Reason.EXCLUSIVE_CONFLICT if used.slots else None
    if max(device.memory - used.memory, 0) < memory:
        return Reason.INSUFFICIENT_MEMORY
    if used.slots and used.memory // used.slots != memory:
        return Reason.CUSTOM_RULE
    return Reason.EXCLUSIVE_CONFLICT if mutex and used.slots else None


def told(word: str, counts: Mapping[Reason, int]) -> Mapping[Reason, int]:
    """Return what Kunlun's refusals say: cards that others have (shares only), or that the lists bar, or one NUMA."""
    if word not in WINGED:
        return counts
    worth_telling = [Reason.EXCLUSIVE_CONFLICT, Reason.UUID_MISMATCH] if word == "XPU" else [Reason.UUID_MISMATCH]
    for reason in worth_telling:
        if counts.get(reason):
            return {reason: counts[reason]}
    return {Reason.NUMA_MISMATCH: 1}


def from_wings(passed: Sequence[Device], count: int) -> list[Device]:
    """Take cards of the first board of eight that has so many which belong together."""
    for board in sorted({card.index // 8 for card in passed}):
        here = {card.index % 8: card for card in passed if card.index // 8 == board}
        numbers = _of_board(set(here), count)
        if numbers:
            return [here[number] for number in numbers]
    return []


def _of_board(free: set[int], count: int) -> list[int]:
    if count == 8:
        return sorted(free) if len(free) == 8 else []
    if count not in (1, 2, 4):
        return []
    left, right = (sorted(number for number in free if number // 4 == wing) for wing in (0, 1))
    if count <= max(len(left), len(right)):
        for size in {1: [1, 3, 2, 4], 2: [2, 3, 4], 4: [4]}[count]:
            for wing in (left, right):
                if len(wing) == size:
                    return wing[:count]
    if count == 2:
        pairs = [[number, number + 4] for number in left if number + 4 in free]
        return pairs[0] if pairs else []
    return _four_across(free)


def _four_across(free: set[int]) -> list[int]:
    fours = [[int(number) for number in four] for four in LINKED_FOURS if {int(n) for n in four} <= free]
    if len(free) == 6:
        for four in fours:
            if _is_linked(*sorted(free - set(four))):
                return four
        return fours[-1] if fours else []
    return fours[0] if fours else []


def _is_linked(one: int, other: int) -> bool:
    return one // 4 == other // 4 or abs(one - other) == 4


def wing_bonus(used: Sequence[int], given: Sequence[int]) -> float:
    """Return 3000 where the cards given make whole what was broken up, down to 0 where they break most."""
    return {-1: 3000.0, 0: 2000.0, 2: 0.0}.get(_broken(given) - _broken(used), 1000.0)


def _broken(numbers: Sequence[int]) -> int:
    """HAMi compat: a wing of one card is broken most, an empty one as much as one of two; nothing at all is one.

    The same places of two boards count once.
    """
    wings = [sum(place // 4 == wing for place in {number % 8 for number in numbers}) for wing in (0, 1)]
    return sum({1: 2, 4: 0}.get(size, 1) for size in wings) if numbers else 1


def pairs_of(zones: Sequence[object]) -> int:
    """Count the pairs of cards that are in one zone; None is no zone."""
    return sum(one is not None and one == other for one, other in combinations(zones, 2))
