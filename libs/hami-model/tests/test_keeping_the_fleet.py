"""The fleet's columns follow what nodes list and what is booked, in whatever order the two come."""

import numpy as np
from hami_model.charge import Charge
from hami_model.device import Device
from hami_model.fleet import Fleet
from hami_model.objects import Meta, Node
from hami_testkit.builders import a_card, a_catalog, a_fleet, a_node, a_pod
from hami_testkit.deciding import placed, refused
from hypothesis import given
from hypothesis import strategies as st

WORD = "NVIDIA"
HALF = Charge(slots=1, memory=4000, cores=50)
LARGE = a_pod().asking(gpu=1, gpumem=5000, gpucores=10)


def test_a_booking_outlives_its_card_and_counts_again_when_it_returns() -> None:
    """A card that falls off the bus for a minute is not given twice afterwards."""
    fleet = a_fleet(a_node().with_card(a_card("A")).with_card(a_card("B")))
    fleet.charge("node-1", {(WORD, "A"): HALF})
    fleet.set_devices("node-1", WORD, [a_card("B")])

    assert {(WORD, "A"): HALF} == fleet.drift("node-1")

    fleet.set_devices("node-1", WORD, [a_card("A")])

    assert {} == fleet.drift("node-1")
    assert {"node-1": "1/1 CardInsufficientMemory"} == refused(fleet, LARGE)


def test_a_booking_may_come_before_the_card() -> None:
    """Pods are listed before their node has registered."""
    fleet = Fleet(a_catalog())
    fleet.charge("node-1", {(WORD, "A"): HALF})
    fleet.set_devices("node-1", WORD, [a_card("A")])

    assert {"node-1": "1/1 CardInsufficientMemory"} == refused(fleet, LARGE)


def test_a_booking_outlives_its_node() -> None:
    """A node that leaves and returns under its name finds its bookings."""
    fleet = a_fleet(a_node().with_card(a_card("A")))
    fleet.charge("node-1", {(WORD, "A"): HALF})
    fleet.drop("node-1")

    assert () == fleet.nodes
    assert {(WORD, "A"): HALF} == fleet.use("node-1")

    fleet.set_devices("node-1", WORD, [a_card("A")])

    assert {"node-1": "1/1 CardInsufficientMemory"} == refused(fleet, LARGE)


def test_what_is_discharged_is_gone() -> None:
    """Nothing is remembered of a pod that ended."""
    fleet = a_fleet(a_node().with_card(a_card("A")))
    fleet.charge("node-1", {(WORD, "A"): HALF})
    fleet.discharge("node-1", {(WORD, "A"): HALF})

    assert {} == fleet.use("node-1")
    assert "node-1" == placed(fleet, LARGE).node


def test_a_node_may_call_a_card_unhealthy_between_two_lists() -> None:
    """A heartbeat's word counts until the next one says otherwise."""
    fleet = a_fleet(a_node().with_card(a_card("A")))
    fleet.set_unhealthy("node-1", ["A"])

    assert {"node-1": "1/1 CardNotHealth"} == refused(fleet, LARGE)

    fleet.set_unhealthy("node-1", [])

    assert "node-1" == placed(fleet, LARGE).node


def test_a_cordon_is_read_from_the_node_as_it_is_now() -> None:
    """HAMi sees a changed cordon only when the node registers anew (vendors-a HS-6)."""
    fleet = a_fleet(a_node().with_card(a_card("A")))
    fleet.set_node(Node(metadata=Meta(name="node-1", annotations={"hami.io/device-cordon": "A"})))

    assert {"node-1": "1/1 CardCordoned"} == refused(fleet, LARGE)

    fleet.set_node(Node(metadata=Meta(name="node-1")))

    assert "node-1" == placed(fleet, LARGE).node


def test_a_cordon_may_come_before_the_cards() -> None:
    """The node is watched before it registers."""
    fleet = Fleet(a_catalog())
    fleet.set_node(Node(metadata=Meta(name="node-1", annotations={"hami.io/device-cordon": "A"})))
    fleet.set_devices("node-1", WORD, [a_card("A")])

    assert {"node-1": "1/1 CardCordoned"} == refused(fleet, LARGE)


def test_a_vendor_that_lists_no_cards_any_more_is_gone_from_the_node() -> None:
    """The node stays while another vendor has cards there."""
    fleet = a_fleet(a_node().with_cards(1).with_cards(1, vendor="MLU"))
    fleet.set_devices("node-1", WORD, [])

    assert {"node-1": "NodeInsufficientDevice"} == refused(fleet, LARGE)

    fleet.set_devices("node-1", "MLU", [])

    assert () == fleet.nodes


def test_a_snapshot_changes_on_its_own() -> None:
    """What-ifs never reach the fleet that they were taken from."""
    fleet = a_fleet(a_node().with_card(a_card("A")))
    copy = fleet.snapshot()
    copy.charge("node-1", {(WORD, "A"): HALF})
    copy.set_devices("node-2", WORD, [a_card("B")])

    assert {} == fleet.use("node-1")
    assert ("node-1",) == fleet.nodes
    assert "node-1" == placed(fleet, LARGE).node
    assert "node-2" == placed(copy, LARGE).node


CHANGES = st.lists(
    st.one_of(
        st.tuples(st.just("list"), st.integers(0, 5), st.lists(st.integers(0, 4), unique=True, max_size=5)),
        st.tuples(st.just("charge"), st.integers(0, 5), st.integers(0, 4)),
        st.tuples(st.just("drop"), st.integers(0, 5), st.none()),
    ),
    max_size=40,
)


def boxes(numbers: list[int]) -> list[Device]:
    """Return boxes of 24 cards each: when the first node's cards go, the gap is large enough to be closed."""
    return [a_card(f"GPU-{number}-{card}", numa=number) for number in numbers for card in range(24)]


@given(CHANGES)
def test_the_columns_are_what_the_lists_and_bookings_say(changes: list[tuple[str, int, object]]) -> None:
    """Whatever comes in whatever order: rows, sums and names equal a fleet built afresh from the end state."""
    fleet, listed, booked = Fleet(a_catalog()), {"node-0": [0, 1, 2], "node-1": [3]}, list[tuple[str, int]]()
    for node, numbers in listed.items():
        fleet.set_devices(node, WORD, boxes(numbers))
    for kind, number, what in changes:
        node = f"node-{number}"
        if kind == "list" and isinstance(what, list):
            listed[node] = what
            fleet.set_devices(node, WORD, boxes(what))
        elif kind == "charge" and isinstance(what, int):
            booked.append((node, what))
            fleet.charge(node, {(WORD, f"GPU-{what}-1"): HALF})
        else:
            listed.pop(node, None)
            fleet.drop(node)
    for node, numbers in listed.items():
        for what in numbers:
            booked.append((node, what))
            fleet.charge(node, {(WORD, f"GPU-{what}-1"): HALF})

    fresh = Fleet(a_catalog())
    for node, numbers in listed.items():
        fresh.set_devices(node, WORD, boxes(numbers))
    for node, number in booked:
        fresh.charge(node, {(WORD, f"GPU-{number}-1"): HALF})

    assert {node for node, numbers in listed.items() if numbers} == set(fleet.nodes)
    for node in fleet.nodes:
        assert fresh.devices(node) == fleet.devices(node)
        assert fresh.use(node) == fleet.use(node)
        assert np.array_equal(fresh.used[fresh.ids[node]], fleet.used[fleet.ids[node]])
        assert np.array_equal(fresh.total[fresh.ids[node]], fleet.total[fleet.ids[node]])
        rows, other = fleet.cards[WORD].of(fleet.ids[node]), fresh.cards[WORD].of(fresh.ids[node])
        assert other.used_memory.tolist() == rows.used_memory.tolist()
        assert other.numa.tolist() == rows.numa.tolist()
        assert {fleet.ids[node]} == set(rows.node.tolist())
