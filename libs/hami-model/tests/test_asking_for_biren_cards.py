"""Biren GPUs: what a container's limits mean, what nodes publish, and who shares a card."""

import msgspec
import pytest
from hami_model import config, vendors
from hami_model.admission import Admit, admit
from hami_model.annotations import encode_register
from hami_model.demands import pod_demand
from hami_model.errors import BadDemand, MalformedInventory
from hami_model.objects import Node, Pod
from hami_model.policies import CARD_KEY
from hami_model.request import Demand, Exactly
from hami_testkit.builders import NodeBuilder, a_card, a_fleet, a_node, a_pod
from hami_testkit.deciding import cards, placed, refused

CATALOG = vendors.build(config.DEFAULTS, ascend=True, iluvatar=False)
BIREN = CATALOG.by_word("Biren")
GPU = "birentech.com/gpu"
REGISTER = "hami.io/node-biren-register"


def a_biren_pod(limits: dict[str, object], **more: object) -> Pod:
    containers = [{"name": "c0", "resources": {"limits": limits, **more}}]
    return msgspec.convert({"spec": {"containers": containers}}, Pod)


def birens(*slots: int) -> NodeBuilder:
    """A node of cards B0, B1 and so on, for so many pods each."""
    node = a_node()
    for at, count in enumerate(slots):
        node = node.with_card(a_card(f"B{at}", vendor="Biren", memory=65024, slots=count))
    return node


def wanting(count: int) -> dict[str, int]:
    return {GPU: count}


@pytest.mark.parametrize(("written", "count"), [("1", 1), (2, 2), ("1e0", 1)])
def test_a_count_is_all_there_is_to_ask(written: object, count: int) -> None:
    """No memory and no cores are booked; where cards are scored, the ask weighs a whole memory."""
    (container,) = pod_demand(a_biren_pod({GPU: written}), CATALOG)

    assert (Demand(vendor="Biren", count=count, memory=Exactly(0), percent_hint=100),) == container.demands


def test_a_count_in_the_requests_is_an_ask_too() -> None:
    """Admission looks at limits only, and leaves the pod alone."""
    pod = a_biren_pod({}, requests={GPU: "2"})

    assert 2 == pod_demand(pod, CATALOG)[0].demands[0].count
    assert Admit() == msgspec.structs.replace(admitted(pod), needs=())


def test_zero_cards_are_no_ask() -> None:
    """The pod is ours all the same, as with HAMi."""
    pod = a_biren_pod({GPU: "0"})

    assert () == pod_demand(pod, CATALOG)[0].demands
    assert "hami-scheduler" == admitted(pod).scheduler_name


@pytest.mark.parametrize(
    ("written", "way_out"), [("1.5", "such as 2"), ("-1", "such as 1"), ("3G", "from 0 to 2147483647")]
)
def test_what_cannot_be_read_is_refused_with_the_way_out(written: str, way_out: str) -> None:
    """HAMi takes negative and huge counts, and reads a fraction as no ask."""
    with pytest.raises(BadDemand) as refusal:
        pod_demand(a_biren_pod({GPU: written}), CATALOG)

    assert str(refusal.value).startswith(f"{GPU} {written} in container c0 cannot be read: write a whole number")
    assert way_out in str(refusal.value)


def admitted(pod: Pod) -> Admit:
    answer = admit(pod, CATALOG, scheduler_name="hami-scheduler", force_overwrite=True)
    assert isinstance(answer, Admit)
    return answer


def test_a_card_has_a_hundred_cores_whatever_it_lists() -> None:
    """Without cores it would have no score."""
    listed = a_card("card_0", vendor="Biren", memory=65024, slots=2, cores=0)

    assert (msgspec.structs.replace(listed, cores=100),) == published(encode_register([listed]))


@pytest.mark.parametrize("text", ["[]", "null"])
def test_no_cards_are_no_cards(text: str) -> None:
    """An empty list is an answer, not an error."""
    assert () == published(text)


@pytest.mark.parametrize("text", ["", "card_0,1,65024", '[{"id":"a:b"}]'])
def test_garbage_rejects_the_nodes_cards(text: str) -> None:
    """An empty text is no JSON either."""
    with pytest.raises(MalformedInventory):
        published(text)


def published(text: str) -> tuple[object, ...]:
    node = msgspec.convert({"metadata": {"name": "node-1", "annotations": {REGISTER: text}}}, Node)
    return BIREN.discover(BIREN, node)


def test_slots_alone_limit_who_shares_a_card() -> None:
    """However much memory the others use."""
    fleet = a_fleet(birens(2, 1).using("B0").using("B1"))

    assert [["B0"]] == cards(placed(fleet, a_pod().asking(**wanting(1))).containers)
    assert {"node-1": "1/2 AllocatedCardsInsufficientRequest, 1/2 CardTimeSlicingExhausted"} == refused(
        fleet, a_pod().asking(**wanting(2))
    )


@pytest.mark.parametrize(("policy", "card"), [("spread", "B0"), ("binpack", "B1")])
def test_the_emptier_or_the_fuller_card_is_taken(policy: str, card: str) -> None:
    """B1 has one pod of three."""
    fleet = a_fleet(birens(3, 3).using("B1"))

    assert [[card]] == cards(placed(fleet, a_pod().asking(**wanting(1)).annotated({CARD_KEY: policy})).containers)


def test_under_mutex_nobody_shares() -> None:
    """A used card is refused, free slots or not."""
    asking = a_pod().asking(**wanting(1)).annotated({CARD_KEY: "mutex"})

    assert {"node-1": "1/1 ExclusiveDeviceAllocateConflict"} == refused(a_fleet(birens(2).using("B0")), asking)


@pytest.mark.parametrize(("key", "card"), [("birentech.com/use-gpuuuid", "B0"), ("birentech.com/nouse-gpuuuid", "B1")])
def test_cards_are_chosen_and_excluded_by_id(key: str, card: str) -> None:
    """The list names B0."""
    asking = a_pod().asking(**wanting(1)).annotated({key: "B0, B7"})

    assert [[card]] == cards(placed(a_fleet(birens(1, 1)), asking).containers)
