"""Neuron devices: single ones from the last, cores of one device together, several devices as one block."""

from collections.abc import Mapping

import pytest
from hami_model.demands import pod_demand
from hami_model.explain import explain
from hami_model.place import Placement
from hami_model.policies import CARD_KEY, Policies, for_pod
from hami_testkit.builders import NodeBuilder, PodBuilder, a_card, a_fleet, a_node, a_pod
from hami_testkit.deciding import placed, refused

DEVICES, CORES = "aws.amazon.com/neuron", "aws.amazon.com/neuroncore"
TRN, INF = "trn1.32xlarge", "inf2.48xlarge"


def neurons(count: int, *busy: int, instance: str = TRN, ill: int | None = None) -> NodeBuilder:
    """A node of devices 0, 1 and so on of two cores each; those that are busy have no core left."""
    node = a_node()
    for at in range(count):
        facts = {"slots": 2, "memory": 0, "cores": 3, "mode": instance, "healthy": at != ill}
        node = node.with_card(a_card(f"d{at}", vendor="AWSNeuron", **facts))  # type: ignore[arg-type]
    for at in busy:
        node = node.using(f"d{at}", cores=3)
    return node


def devices(count: int, annotations: Mapping[str, str] = {}) -> PodBuilder:
    return a_pod().asking(**{DEVICES: count}).annotated(annotations)


def cores(count: int, annotations: Mapping[str, str] = {}) -> PodBuilder:
    return a_pod().asking(**{CORES: count}).annotated(annotations)


def taken(placement: Placement) -> list[tuple[int, int]]:
    """Return number and mask of each device of the only container."""
    return [(int(grant.uuid[1:]), grant.cores) for grant in placement.containers[0].grants]


def block(node: NodeBuilder, count: int, annotations: Mapping[str, str] = {}) -> list[int]:
    return [number for number, _ in taken(placed(a_fleet(node), devices(count, annotations)))]


def test_a_single_device_is_the_last_idle_one() -> None:
    """With all of its cores."""
    assert [(2, 3)] == taken(placed(a_fleet(neurons(4, 3)), devices(1)))


@pytest.mark.parametrize(("used", "asked", "mask"), [(0, 1, 1), (0, 2, 3), (1, 1, 2), (2, 1, 1)])
def test_cores_are_the_first_free_ones_of_a_device(used: int, asked: int, mask: int) -> None:
    """One bit for each."""
    node = neurons(1).using("d0", cores=used, slots=1 if used else 0)

    assert [(0, mask)] == taken(placed(a_fleet(node), cores(asked)))


def test_a_device_with_a_core_in_use_gives_no_whole() -> None:
    """Neither as a device nor as two cores."""
    fleet = a_fleet(neurons(2).using("d0", cores=2).using("d1", cores=1))

    assert {"node-1": "2/2 CardInsufficientCore"} == refused(fleet, devices(1)) == refused(fleet, cores(2))


@pytest.mark.parametrize(
    ("instance", "busy", "count", "chosen"),
    [
        (TRN, (), 4, [0, 1, 2, 3]),
        (TRN, (0, 5), 4, [8, 9, 10, 11]),
        (TRN, (7,), 8, [8, 9, 10, 11, 12, 13, 14, 15]),
        (INF, (1,), 3, [2, 3, 4]),
        (INF, (5, 14), 8, [6, 7, 8, 9, 10, 11, 12, 13]),
    ],
)
def test_several_devices_are_the_first_block(
    instance: str, busy: tuple[int, ...], count: int, chosen: list[int]
) -> None:
    """Aligned on Trainium, anywhere on Inferentia; as cores or as devices."""
    node = neurons(16, *busy, instance=instance)

    assert chosen == block(node, count)
    assert [(at, 3) for at in chosen] == taken(placed(a_fleet(node), cores(2 * count)))


@pytest.mark.parametrize(
    ("instance", "busy", "count"), [(TRN, (), 2), (TRN, (), 6), (TRN, (7, 13), 8), (INF, (3, 7, 11, 13), 4)]
)
def test_where_there_is_no_block_it_is_said_once(instance: str, busy: tuple[int, ...], count: int) -> None:
    """HAMi compat: one of sixteen, whatever the devices are like."""
    fleet = a_fleet(neurons(16, *busy, instance=instance))

    assert {"node-1": "1/16 NumaNotFit"} == refused(fleet, devices(count))


def test_devices_that_nobody_serves_are_told() -> None:
    """Beside the block that is missing."""
    assert {"node-1": "1/4 CardNotHealth, 1/4 NumaNotFit"} == refused(a_fleet(neurons(4, ill=2)), devices(4))


def test_a_block_does_not_reach_over_to_the_next_node() -> None:
    """Two nodes of two devices are not four in a row."""
    near, far = neurons(2, instance=INF), neurons(4, 0, instance=INF)
    fleet = a_fleet(near, NodeBuilder(name="node-2", cards=far.cards, booked=far.booked))

    assert {"node-1": "NodeInsufficientDevice", "node-2": "1/4 NumaNotFit"} == refused(fleet, devices(4))
    assert "node-2" == placed(fleet, devices(3)).node


def test_a_busy_device_is_never_part_of_a_block() -> None:
    """Under mutex HAMi sorts by use, and gives device 1."""
    assert [2, 3] == block(neurons(4, 1, instance=INF), 2, {CARD_KEY: "mutex"})


def test_the_containers_of_a_pod_share_a_device() -> None:
    """One core each; an init container may have both before."""
    asking = a_pod().starting_with(**{CORES: 2}).asking(**{CORES: 1}).asking(**{CORES: 1})
    placement = placed(a_fleet(neurons(1)), asking)

    assert [3, 1, 2] == [grant.cores for container in placement.containers for grant in container.grants]


@pytest.mark.parametrize(
    ("key", "chosen"), [("aws.amazon.com/use-neuron-uuid", 0), ("aws.amazon.com/nouse-neuron-uuid", 2)]
)
def test_single_devices_are_chosen_by_name(key: str, chosen: int) -> None:
    """HAMi compat: a block takes no notice."""
    listed = {key: "d0,d3"}
    node = neurons(4, *([3] if "nouse" not in key else []))

    assert [(chosen, 3)] == taken(placed(a_fleet(node), devices(1, listed)))
    assert [0, 1, 2, 3] == block(neurons(4), 4, listed)


def test_why_not_is_told_in_cores() -> None:
    """Two are wanted, one is left."""
    fleet = a_fleet(neurons(1).using("d0", cores=2))
    pod = cores(2).pod()
    (verdict,) = explain(fleet, pod, pod_demand(pod, fleet.catalog), ["node-1"], policies=for_pod(pod, Policies()))
    (card,) = verdict.cards

    assert ("2 cores", "1 core") == (card.wanted, card.had)
