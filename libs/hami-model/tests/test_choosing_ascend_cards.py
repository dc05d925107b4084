"""Several NPUs are taken where they reach each other quickly."""

import pytest
from hami_model.place import Placement
from hami_model.policies import NODE_KEY
from hami_model.quota import Room
from hami_testkit.builders import NodeBuilder, PodBuilder, a_card, a_fleet, a_node, a_pod
from hami_testkit.deciding import cards, placed, refused

B3, C = "Ascend910B3", "Ascend910C"


def npus(word: str, count: int, *, name: str = "node-1", networks: str = "00001111") -> NodeBuilder:
    """A node of NPUs N0, N1 and so on, each in its network."""
    node = a_node(name)
    for at in range(count):
        facts = {"memory": 65536, "cores": 20, "slots": 4, "custom": {"NetworkID": int(networks[at])}}
        node = node.with_card(a_card(f"{name}-N{at}", vendor=word, **facts))  # type: ignore[arg-type]
    return node


def wanting(word: str, count: int, **more: int) -> PodBuilder:
    """A pod that wants so many whole NPUs."""
    return a_pod().asking(**{f"huawei.com/{word}": count, f"huawei.com/{word}-memory": 65536, **more})


def taken(placement: Placement) -> str:
    """Return the cards of the only container, short."""
    return " ".join(uuid.removeprefix("node-1-") for uuid in cards(placement.containers)[0])


@pytest.mark.parametrize(
    ("count", "chosen", "score"),
    [(1, "N7", 10), (2, "N3 N2", 10), (3, "N3 N2 N1", 10), (4, "N3 N2 N1 N7", 7.5), (5, "N3 N2 N1 N7 N4", 6)],
)
def test_npus_of_the_biggest_network_group_come_first(count: int, chosen: str, score: float) -> None:
    """N0, N5 and N6 are full; N1 to N3 are one network, N4 and N7 the other."""
    node = npus(B3, 8)
    for full in ("N0", "N5", "N6"):
        node = node.using(f"node-1-{full}", memory=65536)

    placement = placed(a_fleet(node), wanting(B3, count))

    assert set(chosen.split()) == set(taken(placement).split())
    base = 10 * (3 / 32 + 3 * 65536 / (8 * 65536))
    assert pytest.approx(base + score, abs=1e-4) == placement.scores["node-1"]


def test_where_networks_are_unknown_walk_order_decides() -> None:
    """A node that names no networks has no groups and no bonus."""
    fleet = a_fleet(a_node().with_cards(4, vendor=B3, memory=65536))

    placement = placed(fleet, wanting(B3, 2))

    assert "3 2" == taken(placement)
    assert {"node-1": 0.0} == placement.scores


@pytest.mark.parametrize(
    "facts", [{}, {"NetworkID": None}, {"NetworkID": "0"}, {"NetworkID": [0]}, {"NetworkID": True}]
)
def test_one_npu_of_an_unknown_network_leaves_the_node_without_networks(facts: dict[str, object]) -> None:
    """HAMi compat, even where that NPU is not free; what is no number is no network, and does no harm."""
    broken = a_card("node-1-N8", vendor=B3, memory=65536, cores=20, slots=4, healthy=False, custom=facts)
    known = npus(B3, 4, networks="0110")

    assert "N3 N0" == taken(placed(a_fleet(known), wanting(B3, 2)))
    assert "N3 N2" == taken(placed(a_fleet(known.with_card(broken)), wanting(B3, 2)))


def test_an_unknown_network_earns_no_bonus() -> None:
    """The NPUs are taken all the same."""
    node = npus(B3, 1).with_card(a_card("node-1-N1", vendor=B3, memory=65536, slots=4, custom={"NetworkID": {}}))

    placement = placed(a_fleet(node), wanting(B3, 2))

    assert "N1 N0" == taken(placement)
    assert {"node-1": 0.0} == placement.scores


def test_a_network_that_the_quota_does_not_pay_is_no_place() -> None:
    """N3 is paid for by the init container, N1 and N2, one network, are not: the reason is the quota, not the cards."""
    size = {f"huawei.com/{B3}": 1, f"huawei.com/{B3}-memory": 65536}
    asking = wanting(B3, 2).starting_with(**size)

    assert {"node-1": "2/4 ResourceQuotaNotFit"} == refused(
        a_fleet(npus(B3, 4, networks="0001")), asking, quota={B3: Room(memory=2 * 65536)}
    )


def test_a_910c_gives_whole_modules() -> None:
    """N0 to N4 are free; N4's partner is not, so N2 and N3 or N0 and N1 serve."""
    node = npus(C, 6, networks="000000").using("node-1-N5", memory=65536)
    fleet = a_fleet(node)

    assert "N3 N2" == taken(placed(fleet, wanting(C, 2)))
    assert {"node-1": "1/3 CardInsufficientMemory, 4/3 AllocatedCardsInsufficientRequest"} == refused(
        fleet, wanting(C, 3)
    )
    assert "N3 N2 N1 N0" == taken(placed(fleet, wanting(C, 4)))


def test_no_free_module_is_told_with_a_zero() -> None:
    """HAMi compat: counts stand over the NPUs wanted, and the zero is written."""
    node = npus(C, 2, networks="00").using("node-1-N0", memory=65536).using("node-1-N1", memory=65536)

    assert {"node-1": "0/2 AllocatedCardsInsufficientRequest, 2/2 CardInsufficientMemory"} == refused(
        a_fleet(node), wanting(C, 2)
    )


@pytest.mark.parametrize("policy", ["binpack", "spread"])
def test_the_better_connected_node_wins_under_every_policy(policy: str) -> None:
    """Under spread HAMi prefers the worse one, since the bonus makes it look fuller (vendors-a ASC-10)."""
    fleet = a_fleet(npus(B3, 4, name="apart", networks="0123"), npus(B3, 4, name="together", networks="0000"))

    assert "together" == placed(fleet, wanting(B3, 4).annotated({NODE_KEY: policy})).node


def test_a_bonus_lifts_a_node_over_a_fuller_one() -> None:
    """The fuller node is walked first, and still loses."""
    fuller = npus(B3, 5, name="apart", networks="01234").using("apart-N4", memory=65536)
    fleet = a_fleet(fuller, npus(B3, 5, name="together", networks="00000"))

    placement = placed(fleet, wanting(B3, 4))

    assert "together" == placement.node
    assert {"apart", "together"} == placement.scores.keys()


def test_a_soft_split_needs_a_node_that_splits() -> None:
    """Said once for the node, whatever number of cards it has."""
    soft = {"huawei.com/vnpu-mode": "hami-core"}
    asking = a_pod().asking(**{f"huawei.com/{B3}": 1, f"huawei.com/{B3}-memory": 100, f"huawei.com/{B3}-core": 20})

    assert {"node-1": "1/4 ModeNotFit"} == refused(a_fleet(npus(B3, 4)), asking.annotated(soft))

    split = npus(B3, 4).annotated({"hami-vnpu-core": "true"})

    assert "N3" == taken(placed(a_fleet(split), asking.annotated(soft)))
