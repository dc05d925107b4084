"""Kunlun XPUs: what a container's limits mean, what nodes publish, and which cards are given together."""

from itertools import combinations

import msgspec
import pytest
from hami_model import config, vendors
from hami_model.admission import Admit, admit
from hami_model.allocation import Allocation
from hami_model.annotations import allocation_annotations
from hami_model.demands import pod_demand
from hami_model.errors import BadDemand, MalformedInventory
from hami_model.objects import Node, Pod, PodRef
from hami_model.place import Placement
from hami_model.policies import CARD_KEY
from hami_model.request import Demand, Exactly, Whole
from hami_testkit.builders import NodeBuilder, a_card, a_fleet, a_node, a_pod
from hami_testkit.deciding import cards, decided, placed, refused
from hypothesis import given
from hypothesis import strategies as st

CATALOG = vendors.build(config.DEFAULTS, ascend=False, iluvatar=False)
WHOLE = CATALOG.by_word("kunlun")
XPU, VXPU, MEMORY = "kunlunxin.com/xpu", "kunlunxin.com/vxpu", "kunlunxin.com/vxpu-memory"


def a_kunlun_pod(limits: dict[str, object]) -> Pod:
    return msgspec.convert({"spec": {"containers": [{"name": "c0", "resources": {"limits": limits}}]}}, Pod)


def admitted(pod: Pod) -> Admit:
    answer = admit(pod, CATALOG, scheduler_name="hami-scheduler", force_overwrite=True)
    assert isinstance(answer, Admit)
    return answer


def xpus(number: int = 8, *, busy: tuple[int, ...] = (), word: str = "kunlun") -> NodeBuilder:
    """A node of cards X0, X1 and so on, some of which do not work."""
    node = a_node()
    for at in range(number):
        card = a_card(f"X{at}", vendor=word, memory=98304, slots=100, index=at, healthy=at not in busy)
        node = node.with_card(card)
    return node


def numbers(names: list[str]) -> list[int]:
    return [int(name.removeprefix("X")) for name in names]


def test_whole_cards_are_asked_for_by_number() -> None:
    """All of each card, whatever else is written."""
    (container,) = pod_demand(a_kunlun_pod({XPU: 2}), CATALOG)

    assert (Demand(vendor="kunlun", count=2, memory=Whole(), cores=100),) == container.demands
    assert [] == [change for change in admitted(a_kunlun_pod({XPU: 2})).changes if change.container]


@pytest.mark.parametrize(
    ("memory", "share", "cores"),
    [(None, 98304, 100), (0, 24576, 25), (1, 24576, 25), (24576, 24576, 25), (24577, 49152, 50), (49153, 98304, 100)],
)
def test_a_share_is_the_next_size_that_has_so_much(memory: int | None, share: int, cores: int) -> None:
    """A quarter, a half or the whole; admission writes the size that is meant."""
    pod = a_kunlun_pod({VXPU: 1} if memory is None else {VXPU: 1, MEMORY: memory})
    (container,) = pod_demand(pod, CATALOG)
    written = {change.limit for change in admitted(pod).changes if change.limit}

    assert (Demand(vendor="XPU", count=1, memory=Exactly(share), cores=cores),) == container.demands
    assert written == ({(MEMORY, str(share))} if memory is not None else set())


def test_more_than_a_card_is_cut_with_a_warning() -> None:
    """HAMi cuts it silently."""
    answer = admitted(a_kunlun_pod({VXPU: 1, MEMORY: 200000}))

    assert {(MEMORY, "98304")} == {change.limit for change in answer.changes if change.limit}
    assert (f"container c0 asks for 200000 of {MEMORY}: a card has 98304 MiB, which it gets",) == answer.warnings


@pytest.mark.parametrize("written", ["24Gi", "1.5", "-1"])
def test_memory_that_cannot_be_read_is_refused_with_the_way_out(written: str) -> None:
    """HAMi takes the number of a suffix for MiB, and a fraction for none."""
    with pytest.raises(BadDemand, match=f"{MEMORY} {written} in container c0"):
        pod_demand(a_kunlun_pod({VXPU: 1, MEMORY: written}), CATALOG)


def test_the_nodes_capacity_says_how_many_whole_cards_there_are() -> None:
    """Half of them on each NUMA node; a capacity that is no number is said."""
    node = msgspec.convert({"metadata": {"name": "n"}, "status": {"capacity": {XPU: "4"}}}, Node)
    found = WHOLE.discover(WHOLE, node)

    assert [("n-kunlun-0", 0), ("n-kunlun-1", 0), ("n-kunlun-2", 1), ("n-kunlun-3", 1)] == [
        (device.id, device.numa) for device in found
    ]
    broken = msgspec.convert({"metadata": {"name": "n"}, "status": {"capacity": {XPU: "many"}}}, Node)
    with pytest.raises(MalformedInventory, match=r"capacity kunlunxin\.com/xpu of node n is many"):
        WHOLE.discover(WHOLE, broken)


@pytest.mark.parametrize(
    ("count", "busy", "taken"),
    [
        (1, (), [0]),
        (1, (5,), [4]),
        (1, (0, 1, 2), [3]),
        (1, (0, 4, 5), [1]),
        (2, (), [0, 1]),
        (2, (5,), [4, 6]),
        (2, (0, 1, 2, 4, 5, 6), [3, 7]),
        (2, (0, 1, 2, 5, 6, 7), None),
        (3, (), None),
        (4, (), [0, 1, 2, 3]),
        (4, (0,), [4, 5, 6, 7]),
        (4, (2, 3, 7), [0, 1, 4, 5]),
        (4, (3, 6), [0, 1, 4, 5]),
        (4, (0, 4), [2, 3, 6, 7]),
        (8, (), [0, 1, 2, 3, 4, 5, 6, 7]),
        (8, (0,), None),
    ],
)
@pytest.mark.parametrize("policy", ["spread", "binpack"])
def test_cards_are_taken_of_the_wing_that_is_nearly_used_up(
    count: int, busy: tuple[int, ...], taken: list[int] | None, policy: str
) -> None:
    """HAMi's table. The policy sorts a list, and the cards stand where they stand."""
    pod, fleet = a_pod().asking(**{XPU: count}).annotated({CARD_KEY: policy}), a_fleet(xpus(busy=busy))

    if taken is None:
        assert {"node-1": "1/8 NumaNotFit"} == refused(fleet, pod)
    else:
        assert [taken] == [numbers(names) for names in cards(placed(fleet, pod).containers)]


@given(busy=st.sets(st.integers(0, 15)), count=st.sampled_from([1, 2, 4, 8]), number=st.sampled_from([2, 4, 8, 16]))
def test_whoever_is_given_cards_is_given_as_many_as_were_asked_for(busy: set[int], count: int, number: int) -> None:
    """Idle ones, each once, of one eight, in one wing or linked across; HAMi gives fewer on nodes of sixteen."""
    pod, fleet = a_pod().asking(**{XPU: count}), a_fleet(xpus(number, busy=tuple(busy)))
    answer = decided(fleet, pod)
    if not isinstance(answer, Placement):
        return
    (names,) = cards(answer.containers)
    taken = numbers(names)

    assert count == len(set(taken))
    assert not busy & set(taken)
    assert 1 == len({card // 8 for card in taken})
    if count == 2:
        assert all(a // 4 == b // 4 or abs(a - b) == 4 for a, b in combinations(taken, 2))


def test_a_shared_card_carries_shares_of_one_size() -> None:
    """A quarter joins quarters; for a half the next card is opened, and where none is left there is no place."""
    quarters = xpus(2, word="XPU").using("X0", slots=2, memory=49152, cores=50)
    quarter, half = a_pod().asking(**{VXPU: 1, MEMORY: 24576}), a_pod().asking(**{VXPU: 1, MEMORY: 49152})
    full = a_fleet(quarters.using("X1", memory=24576, cores=25))

    assert [[["X0"]], [["X1"]]] == [cards(placed(a_fleet(quarters), pod).containers) for pod in (quarter, half)]
    assert {"node-1": "1/2 NumaNotFit"} == refused(full, half)


def test_both_pairs_of_uuid_lists_count() -> None:
    """Kunlun's own and Baidu's: a card must be on each list that is there, and on none that bars it."""
    fleet = a_fleet(xpus(4))
    both = {"hami.io/use-xpu-uuid": "X1,X2", "baidu.com/use-gpuuuid": "X2,X3"}
    barred = {"hami.io/no-use-xpu-uuid": "X0", "baidu.com/nouse-gpuuuid": "X1,X2"}

    assert [["X2"]] == cards(placed(fleet, a_pod().asking(**{XPU: 1}).annotated(both)).containers)
    assert [["X3"]] == cards(placed(fleet, a_pod().asking(**{XPU: 1}).annotated(barred)).containers)
    assert {"node-1": "3/4 CardUuidMismatch"} == refused(fleet, a_pod().asking(**{XPU: 2}).annotated(barred))


def test_the_plugin_is_told_the_numbers_of_the_last_container() -> None:
    """It reads one list for the whole pod (HAMi compat)."""
    pod = a_pod().asking(**{XPU: 1}).asking(**{XPU: 2})
    answer = placed(a_fleet(xpus()), pod)
    allocation = Allocation(pod=PodRef.of(pod.pod()), node="node-1", containers=answer.containers)

    written = allocation_annotations(CATALOG, allocation, pod.pod(), now=1.0)
    assert ("X0,kunlun,98304,100:;X1,kunlun,98304,100:X2,kunlun,98304,100:;", "1,2") == (
        written["hami.io/kunlun-allocated"],
        written["BAIDU_COM_DEVICE_IDX"],
    )
