"""Which node takes a pod: how full nodes are, and what the policy makes of it."""

import pytest
from hami_model.demands import pod_demand
from hami_model.errors import DomainError
from hami_model.fleet import Fleet
from hami_model.place import Unfit, place
from hami_model.policies import NODE_KEY, WEIGHTS_KEY, Policies, for_pod
from hami_testkit.builders import NodeBuilder, a_fleet, a_node, a_pod
from hami_testkit.deciding import cards, decided, placed, refused

SMALL = a_pod().asking(gpu=1, gpumem=1000, gpucores=30)


def half(node: NodeBuilder, uuid: str) -> NodeBuilder:
    """Book half of a card."""
    return node.using(uuid, slots=5, memory=4000, cores=50)


def two_nodes() -> Fleet:
    """Two nodes of two cards: a quarter of device1 is booked, three quarters of device4."""
    one = a_node("node1").with_cards(2).using("node1-0", slots=2, memory=2000, cores=25)
    two = a_node("node2").with_cards(2).using("node2-1", slots=7, memory=6000, cores=75)
    return a_fleet(one, two)


def test_an_idle_node_scores_nothing() -> None:
    """What counts is what is booked before the pod comes."""
    fleet = a_fleet(a_node().with_cards(1))

    assert {"node-1": 0.0} == placed(fleet, SMALL).scores


def test_a_half_booked_node_scores_fifteen() -> None:
    """Slots, cores and memory are half booked: ten times a half, three times."""
    fleet = a_fleet(half(a_node().with_cards(1), "node-1-0"))

    assert {"node-1": 15.0} == placed(fleet, SMALL).scores


def test_the_score_is_that_of_all_cards_together() -> None:
    """One of two cards is half booked, so a quarter of the node is."""
    fleet = a_fleet(half(a_node().with_cards(2), "node-1-1"))

    outcome = placed(fleet, SMALL)

    assert {"node-1": 7.5} == outcome.scores
    assert [["node-1-0"]] == cards(outcome.containers)


@pytest.mark.parametrize(("policy", "node"), [("binpack", "node-1"), ("spread", "node-2"), ("bogus", "node-1")])
def test_binpack_fills_nodes_and_spread_spares_them(policy: str, node: str) -> None:
    """Both nodes fit; the policy decides, and an unknown word means binpack."""
    fleet = a_fleet(half(a_node("node-1").with_cards(1), "node-1-0"), a_node("node-2").with_cards(1))

    assert node == placed(fleet, SMALL, policies=Policies(node=policy)).node


@pytest.mark.parametrize(
    ("node_policy", "card_policy", "card"),
    [
        ("binpack", "binpack", "node2-1"),
        ("binpack", "spread", "node2-0"),
        ("spread", "binpack", "node1-0"),
        ("spread", "spread", "node1-1"),
    ],
)
def test_node_and_card_policy_are_chosen_apart(node_policy: str, card_policy: str, card: str) -> None:
    """One policy chooses the node, the other the card on it."""
    asking = a_pod().asking(gpu=1, gpumem=1000, gpucores=20)

    outcome = placed(two_nodes(), asking, policies=Policies(node=node_policy, card=card_policy))

    assert [[card]] == cards(outcome.containers)


def test_the_best_node_is_taken_even_where_its_best_card_is_too_full() -> None:
    """node2 is fuller; its fullest card has too little memory left, so the other one serves."""
    asking = a_pod().starting_with(gpu=1, gpumem=5000, gpucores=10).asking(gpu=1, gpumem=4000, gpucores=10)

    outcome = placed(two_nodes(), asking, policies=Policies(node="binpack", card="binpack"))

    assert "node2" == outcome.node
    assert [["node2-0"], ["node2-0"]] == cards(outcome.containers)


def test_among_equal_nodes_the_first_offered_wins() -> None:
    """The order of the request decides between equals, so an answer can be repeated."""
    fleet = a_fleet(*(a_node(f"node-{n}").with_cards(1) for n in range(5)))
    pod = SMALL.pod()
    demand = pod_demand(pod, fleet.catalog)

    for offered in (["node-3", "node-0", "node-4"], ["node-4", "node-3"]):
        outcome = place(fleet, pod, demand, offered, policies=for_pod(pod, Policies()))

        assert not isinstance(outcome, Unfit)
        assert offered[0] == outcome.node


def test_a_pod_may_bring_its_own_node_policy() -> None:
    """An annotation overrides the process, even with an empty value, which means binpack."""
    fleet = a_fleet(half(a_node("node-1").with_cards(1), "node-1-0"), a_node("node-2").with_cards(1))
    spread = Policies(node="spread")

    assert "node-2" == placed(fleet, SMALL, policies=spread).node
    assert "node-1" == placed(fleet, SMALL.annotated({NODE_KEY: ""}), policies=spread).node


def test_all_cards_of_all_vendors_make_the_score() -> None:
    """A node's MLUs count as much as its GPUs."""
    node = a_node().with_cards(1).with_cards(1, vendor="MLU", memory=8000)
    fleet = a_fleet(node.using("node-1-1", slots=10, memory=8000, cores=100))

    assert {"node-1": 15.0} == placed(fleet, SMALL).scores


def test_nodes_that_nobody_registered_say_so() -> None:
    """A name without cards is no candidate, and the others still are judged."""
    fleet = a_fleet(a_node("node-1").with_cards(1, memory=50))
    pod = SMALL.pod()
    demand = pod_demand(pod, fleet.catalog)

    outcome = place(fleet, pod, demand, ["cpu-1", "node-1", "cpu-2"], policies=for_pod(pod, Policies()))

    assert Unfit(reasons={"node unregistered": [0, 2], "1/1 CardInsufficientMemory": [1]}) == outcome


def test_equal_refusals_are_told_once_with_all_their_nodes() -> None:
    """Five thousand nodes give as many texts as there are different ones."""
    fleet = a_fleet(*(a_node(f"node-{n}").with_cards(1 + n % 2, memory=50) for n in range(6)))

    outcome = decided(fleet, SMALL)

    assert Unfit(reasons={"1/1 CardInsufficientMemory": [0, 2, 4], "2/2 CardInsufficientMemory": [1, 3, 5]}) == outcome


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("slot=1,core=-1,memory=3", '"core" weight must not be negative'),
        ("slot=0,core=0,memory=0", "at least one weight must be positive"),
        ("slot=1,core=1", "expected slot, core, and memory weights"),
        ("slot=1,core=1,memory=1,slot=1", 'duplicate "slot" weight'),
        ("slot=1,core=x,memory=1", '"core" weight must be an integer'),
        ("", "expected slot, core, and memory weights"),
    ],
)
def test_weights_that_cannot_be_read_are_an_error_in_hamis_words(text: str, why: str) -> None:
    """The pod is refused with what is wrong, and how to write it."""
    pod = SMALL.annotated({WEIGHTS_KEY: text}).pod()

    with pytest.raises(DomainError) as error:
        for_pod(pod, Policies())

    hamis = f'calcScore failed invalid {WEIGHTS_KEY} annotation "{text}": {why} for pod p1'
    assert str(error.value).startswith(hamis)


def test_a_dead_agent_s_cards_take_nobody() -> None:
    """Cards that nobody serves are as good as broken, until somebody does again."""
    fleet = a_fleet(a_node().with_cards(2))
    fleet.set_ready("node-1", "NVIDIA", ready=False)

    assert {"node-1": "2/2 CardNotHealth"} == refused(fleet, SMALL)

    fleet.set_ready("node-1", "NVIDIA", ready=True)

    assert "node-1" == placed(fleet, SMALL).node
