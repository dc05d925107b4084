"""Which cards of a node a pod takes, and in which order."""

import pytest
from hami_model.policies import CARD_KEY, PodPolicies, Policies, SortKey
from hami_testkit.builders import NodeBuilder, a_card, a_fleet, a_node, a_pod
from hami_testkit.deciding import cards, placed, refused

SMALL = {"gpu": 1, "gpumem": 1000, "gpucores": 30}
SPREAD, BINPACK = Policies(), Policies(card="binpack")
NUMA_BIND = {"nvidia.com/numa-bind": "true"}
TOPOLOGY = Policies(card="topology-aware")


def test_of_two_idle_cards_the_later_one_is_taken() -> None:
    """The list is walked from its end (HAMi compat)."""
    fleet = a_fleet(a_node().with_cards(2))

    assert [["node-1-1"]] == cards(placed(fleet, a_pod().asking(**SMALL)).containers)


def test_spread_takes_the_emptier_card() -> None:
    """A half booked card comes after an idle one."""
    fleet = a_fleet(a_node().with_cards(2).using("node-1-1", slots=5, memory=4000, cores=50))

    assert [["node-1-0"]] == cards(placed(fleet, a_pod().asking(**SMALL)).containers)


def test_several_cards_stand_in_the_order_of_taking() -> None:
    """The order inside a container is the one that the plugin sees."""
    fleet = a_fleet(a_node().with_cards(2))

    assert [["node-1-1", "node-1-0"]] == cards(
        placed(fleet, a_pod().asking(gpu=2, gpumem=1000, gpucores=30)).containers
    )


def test_a_container_without_cards_keeps_its_place() -> None:
    """Every container has a group, empty or not."""
    fleet = a_fleet(a_node().with_cards(1))

    assert [[], ["node-1-0"], []] == cards(placed(fleet, a_pod().asking().asking(**SMALL).asking()).containers)


def test_the_second_container_sees_what_the_first_took() -> None:
    """8000 MiB fill the last card, so the next container goes to the other."""
    fleet = a_fleet(a_node().with_cards(2))
    asking = a_pod().asking(gpu=1, gpumem=8000, gpucores=10).asking(gpu=1, gpumem=1000, gpucores=10)

    assert [["node-1-1"], ["node-1-0"]] == cards(placed(fleet, asking).containers)


def test_cards_that_come_to_be_equal_stand_as_the_container_before_left_them() -> None:
    """HAMi sorts one list again and again: after the second of three like containers the first card stands last."""
    fleet = a_fleet(a_node().with_cards(2))
    asking = a_pod().asking(**SMALL).asking(**SMALL).asking(**SMALL)

    assert [["node-1-1"], ["node-1-0"], ["node-1-0"]] == cards(placed(fleet, asking).containers)


def test_an_init_container_leaves_its_card_to_the_containers() -> None:
    """It has ended when they start, so both may have the very same card."""
    fleet = a_fleet(a_node().with_cards(2))
    asking = a_pod().starting_with(**SMALL).asking(**SMALL)

    assert [["node-1-1"], ["node-1-1"]] == cards(placed(fleet, asking, policies=BINPACK).containers)


def test_an_init_container_may_take_more_cards_than_the_containers() -> None:
    """Two at the start, one afterwards."""
    fleet = a_fleet(a_node().with_cards(2))
    asking = a_pod().starting_with(gpu=2, gpumem=1000, gpucores=30).asking(**SMALL)

    assert [["node-1-1", "node-1-0"], ["node-1-1"]] == cards(placed(fleet, asking, policies=BINPACK).containers)


def test_an_init_container_without_cards_keeps_its_place_too() -> None:
    """Init containers come first, empty groups included."""
    fleet = a_fleet(a_node().with_cards(1))
    asking = a_pod().starting_with().starting_with(**SMALL).asking(**SMALL)

    assert [[], ["node-1-0"], ["node-1-0"]] == cards(placed(fleet, asking).containers)


def test_a_sidecar_and_its_container_share_a_card_only_if_both_fit() -> None:
    """A sidecar runs beside the containers: 12000 and 15000 MiB do not fit on 24564 (HAMi places them)."""
    asking = a_pod().beside(gpu=1, gpumem=12000, gpucores=30).asking(gpu=1, gpumem=15000, gpucores=30)

    assert {"node-1": "1/1 CardInsufficientMemory"} == refused(a_fleet(a_node().with_cards(1, memory=24564)), asking)

    two = a_fleet(a_node().with_cards(2, memory=24564))

    assert [["node-1-1"], ["node-1-0"]] == cards(placed(two, asking).containers)


def test_an_init_container_runs_beside_the_sidecars_started_before_it() -> None:
    """What the sidecar holds is not there for the init container after it, but for the one before it."""
    fleet = a_fleet(a_node().with_cards(1))
    before = a_pod().starting_with(gpu=1, gpumem=6000).beside(gpu=1, gpumem=3000).asking()
    after = a_pod().beside(gpu=1, gpumem=3000).starting_with(gpu=1, gpumem=6000).asking()

    assert [["node-1-0"], ["node-1-0"], []] == cards(placed(fleet, before).containers)
    assert {"node-1": "1/1 CardInsufficientMemory"} == refused(fleet, after)


@pytest.mark.parametrize(
    ("policy", "numa_bind", "order"),
    [
        ("binpack", False, ["+score", "+numa"]),
        ("spread", False, ["-score", "+numa"]),
        ("topology-aware", False, ["-score", "+numa"]),
        ("bogus", False, ["-score", "+numa"]),
        ("", False, ["-score", "+numa"]),
        ("mutex", False, ["-used_slots", "+numa"]),
        ("numa", False, ["+numa", "+index"]),
        ("numa,spread", False, ["+numa", "-score", "+index"]),
        ("mutex,spread", False, ["-score", "+index"]),
        ("mutex,topology-aware", False, ["-score", "+index"]),
        ("numa,numa,spread", False, ["+numa", "-score", "+index"]),
        ("binpack", True, ["-numa", "+score"]),
        ("spread", True, ["+numa", "-score"]),
        ("mutex", True, ["-used_slots", "+numa"]),
        ("binpack,numa", False, ["+score", "+numa", "+index"]),
        ("binpack,numa", True, ["+numa", "+score", "+index"]),
    ],
)
def test_a_card_policy_is_an_order(policy: str, *, numa_bind: bool, order: list[str]) -> None:
    """The list is sorted so and walked from its end."""
    expected = tuple(SortKey(key[1:], descending=key[0] == "-") for key in order)

    assert expected == PodPolicies(card=policy).card_order(numa_bind=numa_bind)


def test_mutex_takes_idle_cards_only() -> None:
    """A card in use is refused, wherever mutex stands in the chain."""
    fleet = a_fleet(a_node().with_cards(1).using("node-1-0", memory=10))
    asking = a_pod().asking(**SMALL).annotated({CARD_KEY: "spread,mutex"})

    assert {"node-1": "1/1 ExclusiveDeviceAllocateConflict"} == refused(fleet, asking)


def test_numa_bind_needs_all_cards_on_one_numa_node() -> None:
    """One card on each of two NUMA nodes is not enough for two."""
    node = a_node().with_card(a_card("A", numa=0)).with_card(a_card("B", numa=1))
    asking = a_pod().asking(gpu=2, gpumem=100, gpucores=10).annotated(NUMA_BIND)

    assert {"node-1": "1/2 AllocatedCardsInsufficientRequest, 1/2 NumaNotFit"} == refused(a_fleet(node), asking)


def test_numa_bind_walks_numa_node_by_numa_node() -> None:
    """A and B share a NUMA node; their unequal use would part them without grouping."""
    node = a_node().with_card(a_card("A", numa=0)).with_card(a_card("B", numa=0)).with_card(a_card("C", numa=1))
    used = node.using("A", slots=2, memory=1000, cores=15).using("C", memory=800, cores=10)
    asking = a_pod().asking(gpu=2, gpumem=100, gpucores=10).annotated(NUMA_BIND)

    assert {"A", "B"} == set(cards(placed(a_fleet(used), asking).containers)[0])


def linked(**links: dict[str, int]) -> dict[str, dict[str, int]]:
    """Name the pair scores of cards in both directions."""
    both: dict[str, dict[str, int]] = {uuid: dict(scores) for uuid, scores in links.items()}
    for uuid, scores in links.items():
        for other, score in scores.items():
            both.setdefault(other, {})[uuid] = score
    return both


def a_node_linked(names: str, links: dict[str, dict[str, int]], default: int) -> NodeBuilder:
    """Build a node whose cards score ``default`` to each other where nothing else is said."""
    node = a_node()
    for name in names:
        scores = {other: links.get(name, {}).get(other, default) for other in names if other != name}
        node = node.with_card(a_card(name, links=scores))
    return node


def test_topology_takes_the_best_connected_cards() -> None:
    """Of six cards, c with a and f is the best three; the order is the walk's."""
    fleet = a_fleet(a_node_linked("abcdef", linked(a={"f": 100}, c={"f": 100}), 1))
    asking = a_pod().asking(gpu=3, gpumem=100, gpucores=10)

    assert [["f", "c", "a"]] == cards(placed(fleet, asking, policies=TOPOLOGY).containers)


def test_topology_leaves_well_connected_cards_to_others() -> None:
    """A single card is the one whose links are the weakest."""
    poor = dict.fromkeys("abcde", 1)
    fleet = a_fleet(a_node_linked("abcdef", linked(f=poor), 100))

    assert [["f"]] == cards(placed(fleet, a_pod().asking(**SMALL), policies=TOPOLOGY).containers)


def test_topology_and_numa_bind_take_the_numa_node_that_has_enough() -> None:
    """HAMi looks at the NUMA node walked last only, and refuses three free cards (vendors-a NV-6)."""
    node = a_node().with_card(a_card("A", numa=0))
    for name in "BCD":
        node = node.with_card(a_card(name, numa=1))
    asking = a_pod().asking(gpu=2, gpumem=100, gpucores=10).annotated(NUMA_BIND)

    assert [["D", "C"]] == cards(placed(a_fleet(node), asking, policies=TOPOLOGY).containers)


def test_topology_and_numa_bind_count_the_numa_node_walked_last() -> None:
    """Where no NUMA node has enough the words are HAMi's: cards of the others are not mentioned."""
    node = a_node()
    for name, numa in {"A": 0, "B": 1, "C": 1}.items():
        node = node.with_card(a_card(name, numa=numa))
    asking = a_pod().asking(gpu=3, gpumem=100, gpucores=10).annotated(NUMA_BIND)

    assert {"node-1": "1/3 AllocatedCardsInsufficientRequest"} == refused(a_fleet(node), asking, policies=TOPOLOGY)

    full = a_fleet(node.using("A", slots=1, memory=8000))

    assert {"node-1": "1/3 CardInsufficientMemory"} == refused(full, asking, policies=TOPOLOGY)
