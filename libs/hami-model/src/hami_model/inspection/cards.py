"""What is wrong with cards: who is on each, and whether that is more than it has.

One rule: use is the sum over all bound pods that are not over; being deleted, lost or crashing frees nothing.
"""

from collections.abc import Iterable, Iterator, Mapping
from functools import reduce
from itertools import combinations
from operator import or_
from typing import assert_never

from hami_model.catalog import Catalog
from hami_model.inspection import rules
from hami_model.inspection.findings import Finding
from hami_model.inspection.nodes import CardPlace
from hami_model.inspection.pods import Holder
from hami_model.inspection.reading import Card
from hami_model.inspection.use import WHOLE, Use
from hami_model.request import CoreUnit

NAMED = 10
"""Pods of one card that a sentence names."""

Shares = list[tuple[Holder, Use]]
Parts = list[tuple[Holder, range]]


def card_findings(cards: Mapping[CardPlace, Card], holders: Iterable[Holder], catalog: Catalog) -> Iterator[Finding]:
    """Yield what is wrong with any card that any pod holds."""
    shares: dict[CardPlace, Shares] = {}
    parts: dict[CardPlace, Parts] = {}
    for holder in holders:
        for (word, uuid), use in holder.uses.items():
            shares.setdefault((holder.node, word, uuid), []).append((holder, use))
        for (word, uuid), held in holder.parts.items():
            parts.setdefault((holder.node, word, uuid), []).extend((holder, part) for part in held)
    for place, on_it in shares.items():
        card = cards.get(place)
        yield from _unknown(place, on_it) if card is None else _crowded(place, card, on_it)
    for place, of_card in parts.items():
        yield from _overlapping(place, of_card)
    yield from _in_both_forms(cards, shares, catalog)


def _in_both_forms(
    cards: Mapping[CardPlace, Card], shares: Mapping[CardPlace, Shares], catalog: Catalog
) -> Iterator[Finding]:
    """Yield the cards that some pods have whole and others in shares: the same index, in another form."""
    forms = {(node, word, cards[place].index): place for place in shares if place in cards for node, word, _ in [place]}
    for vendor in catalog.vendors:
        for (node, word, index), place in forms.items():
            other = forms.get((node, vendor.other_form, index))
            if word == vendor.word and other is not None and vendor.word < vendor.other_form:
                who = _named(holder.name for holder, _ in (*shares[place], *shares[other]))
                says = f"card {index} of node {node} is given as {word} and as {vendor.other_form}: {who}"
                yield rules.NOT_ALONE.broken(says, node=node, card=cards[place].id)


def _overlapping(place: CardPlace, parts: Parts) -> Iterator[Finding]:
    node, word, card = place
    for (one, part), (other, its) in combinations(parts, 2):
        shared = range(max(part.start, its.start), min(part.stop, its.stop))
        if shared:
            says = f"{word} card {card} of node {node}: slices {shared.start} to {shared.stop - 1} are in parts of "
            yield rules.PARTS_OVERLAP.broken(f"{says}{one.name} and of {other.name}", node=node, card=card)


def _unknown(place: CardPlace, shares: Shares) -> Iterator[Finding]:
    node, word, card = place
    for holder, _ in shares:
        says = f"pod {holder.name} holds {word} card {card}, which its node {node} does not register"
        yield rules.CARD_UNKNOWN.broken(says, node=node, card=card, pod=holder.name)


def _crowded(place: CardPlace, card: Card, shares: Shares) -> Iterator[Finding]:
    node, word, _ = place
    is_cut = any((word, card.id) in holder.parts for holder, _ in shares)
    cores = WHOLE if any(word in holder.soft for holder, _ in shares) else card.cores
    taken = [use.cores for _, use in shares]
    amounts = (
        (rules.OVER_MEMORY, "MiB", card.memory, [use.memory for _, use in shares]),
        (rules.OVER_CORES, *_core_amounts(card, cores, taken)),
        (rules.OVER_SLOTS, "slots", card.slots, [use.slots for _, use in shares]),
    )
    for rule, unit, had, parts in amounts:
        used = sum(parts)
        if used > had and not (is_cut and rule is rules.OVER_CORES):  # cores of parts are rounded up
            who = _named(f"{holder.name} {part}" for (holder, _), part in zip(shares, parts, strict=True) if part)
            says = f"{word} card {card.id} of node {node} has {had} {unit} and gave {used}: {who}"
            yield rule.broken(says, node=node, card=card.id, amount=(had, used))
    alone = [holder.name for holder, use in shares if use.whole]
    if alone and cores == WHOLE and len(shares) > 1:
        says = f"{word} card {card.id} of node {node} is wholly {alone[0]}'s and shared: "
        says += _named(holder.name for holder, _ in shares)
        yield rules.NOT_ALONE.broken(says, node=node, card=card.id, amount=(1, len(shares)))


def _core_amounts(card: Card, had: int, taken: list[int]) -> tuple[str, int, list[int]]:
    """Return the unit of cores, how many the card has, and what each pod has of them.

    Where they are given one by one, a core that two pods have counts twice, though the card has it once.
    """
    match card.core_unit:
        case CoreUnit.PERCENT:
            return "% of cores", had, taken
        case CoreUnit.UNITS:
            return "compute units", had, taken
        case CoreUnit.BITS:
            there = reduce(or_, taken) & card.cores
            return "cores in use", there.bit_count(), [mask.bit_count() for mask in taken]
        case _ as never:
            assert_never(never)


def _named(names: Iterable[str]) -> str:
    listed = sorted(names)
    more = f" and {len(listed) - NAMED} more" if len(listed) > NAMED else ""
    return ", ".join(listed[:NAMED]) + more
