"""Vendors pick connected cards on many nodes at once as plain loops do on each."""

from collections.abc import Sequence
from itertools import combinations

import numpy as np
from hami_model.columns import Cards
from hami_model.device import Device
from hami_model.picking import Passed, Picker
from hami_model.policies import TOPOLOGY
from hami_model.request import Demand, Exactly
from hami_model.vendor import Constraints
from hami_model.vendors.ascend import groups
from hami_model.vendors.nvidia import topology
from hami_testkit.builders import a_card, a_catalog
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Struct

CATALOG = a_catalog()
BIG = 16


class Node(Struct):
    """A node's cards, the order in which they are walked, and which of them passed every check."""

    cards: list[Device]
    order: list[int]
    passed: list[bool]

    @property
    def candidates(self) -> list[Device]:
        """Return the cards that passed, in walk order."""
        return [self.cards[at] for at, passed in zip(self.order, self.passed, strict=True) if passed]


@st.composite
def nodes(draw: st.DrawFn) -> list[Node]:
    """Draw a few nodes of equally many cards, connected anyhow."""
    size = draw(st.integers(1, 8))
    return [draw(a_node(f"n{number}", size)) for number in range(draw(st.integers(1, 5)))]


@st.composite
def a_node(draw: st.DrawFn, name: str, size: int) -> Node:
    """Draw one node; some know no networks, or no scores."""
    networks = draw(st.lists(st.sampled_from([0, 0, 1, 1, 2, None]), min_size=size, max_size=size))
    scores = draw(st.lists(st.integers(-3, 3), min_size=size * size, max_size=size * size))
    numa = draw(st.lists(st.integers(-1, 1), min_size=size, max_size=size))
    ids = [f"{name}-{at}" for at in range(size)]
    cards = [
        a_card(
            ids[at],
            index=at,
            numa=numa[at],
            custom={} if networks[at] is None else {groups.NETWORK: networks[at]},
            links={ids[to]: scores[at * size + to] for to in range(size)} if any(scores) else {},
        )
        for at in range(size)
    ]
    passed = draw(st.lists(st.sampled_from([True, True, True, False]), min_size=size, max_size=size))
    return Node(cards, draw(st.permutations(range(size))), passed)


def picked(picker: Picker | None, made: Sequence[Node]) -> list[list[str]]:
    """Ask a picker about all nodes at once."""
    assert picker is not None
    cards, ids = Cards(), np.arange(1, len(made) + 1)
    for number, node in zip(ids.tolist(), made, strict=True):
        cards.put(number, node.cards, [groups.network(card) for card in node.cards])
    order = np.array([node.order for node in made])
    rows, passes = cards.table(ids), np.array([node.passed for node in made])
    answer = picker(Passed(rows, order, passes, ids))
    return [
        [node.cards[node.order[place]].id for place in places[:number]]
        for node, places, number in zip(made, answer.places.tolist(), answer.number.tolist(), strict=True)
    ]


def plain_networks(node: Node, count: int) -> list[Device]:
    """Take NPUs network by network, the biggest first, where the node knows all of them."""
    cards = node.candidates
    names = [card.custom.get(groups.NETWORK) for card in cards]
    if len(cards) <= count or not all(groups.NETWORK in card.custom for card in node.cards):
        return cards[:count]
    by_size = sorted(dict.fromkeys(names), key=names.count, reverse=True)
    return [card for name in by_size for card in cards if card.custom[groups.NETWORK] == name][:count]


def plain_modules(cards: list[Device], count: int) -> list[Device]:
    """Take modules of two while NPUs are wanted."""
    taken: list[Device] = []
    for module in dict.fromkeys(card.index // 2 for card in cards):
        both = [card for card in cards if card.index // 2 == module]
        if len(both) == 2 and len(taken) < count:
            taken += both
    return taken


def plain_connected(cards: list[Device], count: int, *, same_numa: bool) -> list[Device]:
    """Take the cards whose pairs score highest together; a single one is the one that misses least."""
    if same_numa and cards:
        numas = [[card for card in cards if card.numa == numa] for numa in dict.fromkeys(c.numa for c in cards)]
        enough = [group for group in numas if len(group) >= count]
        cards = enough[-1] if enough else max(numas, key=len)
    if len(cards) <= count:
        return cards
    if count == 1:
        return [min(cards, key=lambda card: sum(_score(card, other) for other in cards))]
    subsets = combinations(cards, count)
    return list(max(subsets, key=lambda chosen: sum(_score(one, other) for one, other in combinations(chosen, 2))))


def _score(one: Device, other: Device) -> int:
    return 0 if one is other else one.links.get(other.id, 0)


def ids_of(found: Sequence[Sequence[Device]]) -> list[list[str]]:
    """Return uuids."""
    return [[card.id for card in cards] for cards in found]


def a_demand(word: str, count: int) -> Demand:
    """Return a demand for so many cards."""
    return Demand(vendor=word, count=count, memory=Exactly(1000))


@settings(max_examples=150)
@given(nodes(), st.integers(2, 6))
def test_npus_are_picked_as_plain_loops_do(made: list[Node], count: int) -> None:
    """By network on a 910, by module on a 910C."""
    singles, pairs = CATALOG.by_word("Ascend910B3"), CATALOG.by_word(groups.PAIRED)
    by_network = groups.choose(singles, a_demand(singles.word, count), Constraints())
    by_module = groups.choose(pairs, a_demand(pairs.word, count), Constraints())

    assert ids_of([plain_networks(node, count) for node in made]) == picked(by_network, made)
    assert ids_of([plain_modules(node.candidates, count) for node in made]) == picked(by_module, made)


@settings(max_examples=150)
@given(nodes(), st.integers(1, 5), st.booleans())
def test_gpus_are_picked_as_plain_loops_do(made: list[Node], count: int, same_numa: bool) -> None:
    """Whatever the nodes' scores, and however many cards passed."""
    constraints = Constraints(card_policies=frozenset({TOPOLOGY}), numa_bind=same_numa)
    picker = topology.choose(CATALOG.by_word("NVIDIA"), a_demand("NVIDIA", count), constraints)

    expected = [plain_connected(node.candidates, count, same_numa=same_numa) for node in made]

    assert ids_of(expected) == picked(picker, made)


@settings(max_examples=10)
@given(a_node("n", BIG))
def test_nodes_of_many_cards_are_searched_with_the_same_answer(node: Node) -> None:
    """Too many sets of cards to weigh them all."""
    constraints = Constraints(card_policies=frozenset({TOPOLOGY}))
    picker = topology.choose(CATALOG.by_word("NVIDIA"), a_demand("NVIDIA", 4), constraints)

    assert ids_of([plain_connected(node.candidates, 4, same_numa=False)]) == picked(picker, [node])
