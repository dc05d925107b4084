"""Vastai's dies are taken card by card: a node lists the dies of its physical cards (AICs), or whole cards."""

from collections.abc import Mapping

import pytest
from hami_model.place import Placement
from hami_model.policies import CARD_KEY, NODE_KEY
from hami_testkit.builders import NodeBuilder, PodBuilder, a_card, a_fleet, a_node, a_pod
from hami_testkit.deciding import cards, placed, refused

VA = "vastaitech.com/va"
MUTEX = {CARD_KEY: "mutex"}


def dies(aics: str, *, name: str = "node-1", **facts: object) -> NodeBuilder:
    """A node of dies D0, D1 and so on, each on the AIC of that letter; a dot is a die that names none."""
    node = a_node(name)
    for at, aic in enumerate(aics):
        custom = {"DeviceStrategy": "die", **({"AIC": aic} if aic != "." else {})}
        node = node.with_card(a_card(f"{name}-D{at}", vendor="Vastai", slots=1, custom=custom, **facts))
    return node


def whole_cards(count: int, **facts: object) -> NodeBuilder:
    return a_node().with_cards(count, vendor="Vastai", memory=32768, **facts)


def wanting(count: int, annotations: Mapping[str, str] = {}) -> PodBuilder:
    return a_pod().asking(**{VA: count}).annotated(annotations)


def taken(placement: Placement) -> str:
    """Return the dies of the only container, short."""
    return " ".join(uuid.removeprefix("node-1-") for uuid in cards(placement.containers)[0])


@pytest.mark.parametrize(
    ("count", "chosen", "score"),
    [(1, "D5", 1), (2, "D2 D1", 1), (3, "D2 D1 D0", 1), (4, "D2 D1 D0 D4", 0.75), (6, "D5 D4 D3 D2 D1 D0", 0.5)],
)
def test_dies_of_the_card_with_most_free_ones_come_first(count: int, chosen: str, score: float) -> None:
    """Three free dies on A, two on B, one on C; all of them are taken in walk order."""
    placement = placed(a_fleet(dies("AAABBC")), wanting(count))

    assert chosen == taken(placement)
    assert pytest.approx(score) == placement.scores["node-1"]


def test_dies_in_use_do_not_count() -> None:
    """A has three dies and one is free; B has two."""
    fleet = a_fleet(dies("AAABB").using("node-1-D0").using("node-1-D1"))

    assert "D4 D3" == taken(placed(fleet, wanting(2)))


def test_too_few_dies_are_told() -> None:
    """With how many there are."""
    fleet = a_fleet(dies("AAB").using("node-1-D0"))

    assert {"node-1": "1/3 CardTimeSlicingExhausted, 2/3 AllocatedCardsInsufficientRequest"} == refused(
        fleet, wanting(3)
    )


def test_a_die_that_names_no_card_leaves_the_node_without_groups() -> None:
    """HAMi drops such dies, and may give fewer than the pod asks for."""
    placement = placed(a_fleet(dies("AAB.")), wanting(2))

    assert "D3 D2" == taken(placement)
    assert {"node-1": 0.0} == placement.scores


def test_whole_cards_are_taken_in_walk_order() -> None:
    """They are on no AIC, whatever else they say, and nothing is added to the node's score."""
    placement = placed(a_fleet(whole_cards(3, custom={"AIC": "7"})), wanting(2))

    assert "2 1" == taken(placement)
    assert {"node-1": 0.0} == placement.scores


def test_under_mutex_an_aic_is_one_pods() -> None:
    """D1 is idle, but its neighbour D0 is in use; D2 and D3 are on another AIC."""
    fleet = a_fleet(dies("AABB").using("node-1-D0"))

    assert "D3 D2" == taken(placed(fleet, wanting(2, MUTEX)))
    assert {
        "node-1": "1/4 CardTimeSlicingExhausted, 1/4 ExclusiveDeviceAllocateConflict, "
        "2/4 AllocatedCardsInsufficientRequest"
    } == refused(fleet, wanting(3, MUTEX))
    assert "D3 D2 D1" == taken(placed(fleet, wanting(3)))


def test_under_mutex_a_whole_card_may_have_a_neighbour_in_use() -> None:
    """Only the card itself must be idle."""
    fleet = a_fleet(whole_cards(2, slots=2).using("node-1-0"))

    assert "1" == taken(placed(fleet, wanting(1, MUTEX)))


@pytest.mark.parametrize("policy", ["binpack", "spread"])
def test_the_node_with_the_dies_together_wins_under_every_policy(policy: str) -> None:
    """Both are empty."""
    fleet = a_fleet(dies("ABCD", name="apart"), dies("AABB", name="together"))

    assert "together" == placed(fleet, wanting(2, {NODE_KEY: policy})).node
