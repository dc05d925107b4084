"""How full a card and a node are, as HAMi counts it: 32-bit floats in the formula's order."""

import numpy as np
import pytest
from hami_model.policies import PodPolicies, Weights
from hami_model.request import Demand, Exactly, Percent, Whole
from hami_model.score import card_scores, node_scores
from hami_testkit.builders import a_card, a_fleet, a_node


def scores(used: tuple[int, int, int], demand: Demand | None, *, model: str = "NVIDIA", **facts: int) -> float:
    """Score one card with (slots, cores, memory) in use."""
    card = a_card("A", **{"memory": 100, "cores": 100, "slots": 10, "model": model, **facts})  # type: ignore[arg-type]
    fleet = a_fleet(a_node().with_card(card).using("A", slots=used[0], cores=used[1], memory=used[2]))
    rows = fleet.cards["NVIDIA"].of(fleet.ids["node-1"])
    return float(card_scores(rows, [demand] if demand else [], PodPolicies())[0])


FORTY_PERCENT = Demand(vendor="NVIDIA", count=1, memory=Percent(40))


@pytest.mark.parametrize(
    ("weights", "a", "b"),
    [(Weights(), 16.0, 15.0), (Weights(memory=3), 26.0, 27.0), (Weights(core=3), 34.0, 17.0)],
)
def test_weights_say_what_counts(weights: Weights, a: float, b: float) -> None:
    """A is full of cores, B of slots; what counts decides which is fuller."""
    node = a_node()
    for name in "AB":
        node = node.with_card(a_card(name, memory=100))
    used = node.using("A", slots=1, cores=90, memory=10).using("B", slots=7, cores=10, memory=20)
    fleet = a_fleet(used)
    rows = fleet.cards["NVIDIA"].of(fleet.ids["node-1"])

    assert [a, b] == card_scores(rows, [FORTY_PERCENT], PodPolicies(weights=weights)).tolist()


def test_what_is_asked_counts_beside_what_is_used() -> None:
    """Two of ten slots, one of four cores, 2048 of 8192 MiB; then one core and 1024 MiB more."""
    facts = {"memory": 8192, "cores": 4, "slots": 10}
    asked = Demand(vendor="NVIDIA", count=1, memory=Exactly(1024), cores=1)

    assert 7.0 == scores((2, 1, 2048), None, **facts)
    assert 11.75 == scores((2, 1, 2048), asked, **facts)


def test_what_is_asked_counts_only_where_the_model_is_the_vendors_word() -> None:
    """HAMi compat: NVIDIA cards register with the driver's model, so their score is what is used."""
    asked = Demand(vendor="NVIDIA", count=1, memory=Whole(), cores=100)

    assert 0.0 == scores((0, 0, 0), asked, model="NVIDIA A100")
    assert 21.0 == scores((0, 0, 0), asked)


def test_a_percentage_beside_an_exact_memory_weighs_instead_of_it() -> None:
    """Memory wins when cards are taken, the percentage when they are scored (HAMi compat)."""
    asked = Demand(vendor="NVIDIA", count=1, memory=Exactly(10), percent_hint=50)

    assert 6.0 == scores((0, 0, 0), asked)


def test_a_card_without_capacity_scores_nothing() -> None:
    """Nothing can be said of a share of nothing."""
    assert 0.0 == scores((0, 0, 0), FORTY_PERCENT, cores=0)


def test_a_node_s_score_adds_shares_of_all_its_cards() -> None:
    """Rows of (slots, cores, memory): 125 of 250 slots, 300 of 300 cores, 300 of 300 MiB."""
    used = np.array([[125, 300, 300], [1, 0, 1]])
    total = np.array([[250, 300, 300], [10, 0, 10]])

    assert [25.0, 0.0] == node_scores(used, total).tolist()
    assert np.float32 == node_scores(used, total).dtype
