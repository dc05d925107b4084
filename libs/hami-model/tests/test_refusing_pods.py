"""Why a card does not take a pod, in HAMi's words; the first rule that refuses gives the reason."""

import pytest
from hami_testkit.builders import NodeBuilder, PodBuilder, a_card, a_fleet, a_node, a_pod
from hami_testkit.deciding import placed, refused

SMALL = a_pod().asking(gpu=1, gpumem=1000, gpucores=30)


def one(**facts: object) -> NodeBuilder:
    """A node with one card."""
    return a_node().with_cards(1, **facts)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("node", "asking", "reason"),
    [
        (one(memory=50), SMALL, "CardInsufficientMemory"),
        (one(healthy=False), SMALL, "CardNotHealth"),
        (one().annotated({"hami.io/device-cordon": " node-1-0 ,,x"}), SMALL, "CardCordoned"),
        (one(model="NVIDIA A40"), SMALL.annotated({"nvidia.com/use-gputype": "a100"}), "CardTypeMismatch"),
        (one(model="NVIDIA A40"), SMALL.annotated({"nvidia.com/nouse-gputype": "a40"}), "CardTypeMismatch"),
        (one(mode="mps"), SMALL.annotated({"nvidia.com/vgpu-mode": "hami-core"}), "CardTypeMismatch"),
        (one(), SMALL.annotated({"nvidia.com/use-gpuuuid": "node-1"}), "CardUuidMismatch"),
        (one(), SMALL.annotated({"nvidia.com/nouse-gpuuuid": "node-1-0"}), "CardUuidMismatch"),
        (one(slots=4).using("node-1-0", slots=5), SMALL, "CardTimeSlicingExhausted"),
        (one().using("node-1-0", cores=80), SMALL, "CardInsufficientCore"),
        (one(cores=4), a_pod().asking(gpu=1, gpumem=10, gpucores=200), "CardInsufficientCore"),
        (one(cores=20).using("node-1-0", cores=25), a_pod().asking(gpu=1, gpumem=10), "CardInsufficientCore"),
        (one().using("node-1-0", memory=8000), a_pod().asking(gpu=1, gpucores=10), "CardInsufficientMemory"),
        (one().using("node-1-0"), a_pod().asking(gpu=1, gpumem=10, gpucores=100), "ExclusiveDeviceAllocateConflict"),
        (one().using("node-1-0", cores=100), a_pod().asking(gpu=1, gpumem=10), "CardComputeUnitsExhausted"),
    ],
)
def test_a_card_says_why_it_refuses(node: NodeBuilder, asking: PodBuilder, reason: str) -> None:
    """One card, one rule."""
    assert {"node-1": f"1/1 {reason}"} == refused(a_fleet(node), asking)


def test_reasons_are_counted_and_sorted_as_text() -> None:
    """Each card counts once, under the first rule that refuses it."""
    node = a_node().with_cards(3).with_cards(1, healthy=False)
    used = node.using("node-1-0", memory=8000).using("node-1-1", slots=10)

    expected = "1/4 AllocatedCardsInsufficientRequest, 1/4 CardInsufficientMemory, 1/4 CardNotHealth, "
    assert {"node-1": expected + "1/4 CardTimeSlicingExhausted"} == refused(
        a_fleet(used), a_pod().asking(gpu=2, gpumem=1000)
    )


def test_a_node_with_fewer_cards_than_wanted_says_so() -> None:
    """No card is even looked at."""
    assert {"node-1": "NodeInsufficientDevice"} == refused(a_fleet(one()), a_pod().asking(gpu=2, gpumem=100))


def test_a_node_of_another_vendor_has_too_few_cards() -> None:
    """Vendors are told apart by their whole word: a 910B4-1 is no 910B4 (HAMi: part of the name suffices)."""
    fleet = a_fleet(a_node().with_cards(2, vendor="Ascend910B4-1", memory=65536))

    asking = a_pod().asking(**{"huawei.com/Ascend910B4": 1})

    assert {"node-1": "NodeInsufficientDevice"} == refused(fleet, asking)


def test_the_first_container_that_does_not_fit_speaks() -> None:
    """The init container is asked first."""
    two = a_node().with_cards(2).using("node-1-0", memory=7500).using("node-1-1", memory=7500)
    asking = a_pod().starting_with(gpu=1, gpumem=4000).asking(gpu=1, gpumem=100)

    assert {"node-1": "2/2 CardInsufficientMemory"} == refused(a_fleet(two), asking)


def test_an_init_container_that_wants_too_many_cores_stops_the_pod() -> None:
    """Two cards with twenty percent left do not serve thirty, even for a start."""
    two = a_node().with_cards(2).using("node-1-0", cores=80).using("node-1-1", cores=80)
    asking = a_pod().starting_with(gpu=1, gpumem=10, gpucores=30).asking(gpu=1, gpumem=10, gpucores=10)

    assert {"node-1": "2/2 CardInsufficientCore"} == refused(a_fleet(two), asking)


def test_the_second_container_s_refusal_counts_what_the_first_took() -> None:
    """Alone each would fit."""
    asking = a_pod().asking(gpu=1, gpumem=5000).asking(gpu=1, gpumem=5000)

    assert {"node-1": "1/1 CardInsufficientMemory"} == refused(a_fleet(one()), asking)


def test_a_card_of_more_than_a_hundred_cores_is_never_exclusive() -> None:
    """Where a node scales cores, all cores of one card are shared with who came before (HAMi compat)."""
    node = a_node().with_card(a_card("A", cores=200)).using("A", cores=50)

    assert "node-1" == placed(a_fleet(node), a_pod().asking(gpu=1, gpumem=10, gpucores=100)).node


def test_a_shrunken_card_has_nothing_left_rather_than_less_than_nothing() -> None:
    """A card that lists less memory than is booked on it takes no memory."""
    node = a_node().with_card(a_card("A", memory=1000)).using("A", memory=5000)

    assert {"node-1": "1/1 CardInsufficientMemory"} == refused(a_fleet(node), a_pod().asking(gpu=1, gpumem=1))


def test_all_vendors_of_a_pod_must_be_on_one_node() -> None:
    """GPU and MLU in one container need a node with both."""
    asking = a_pod().asking(gpu=1, gpumem=100, mlu=1, mlumem=4, mlucores=10)
    gpu_only = a_node("gpu").with_cards(1)
    both = a_node("both").with_cards(1).with_cards(1, vendor="MLU")

    assert {"gpu": "NodeInsufficientDevice"} == refused(a_fleet(gpu_only), asking)
    assert "both" == placed(a_fleet(gpu_only, both), asking).node
