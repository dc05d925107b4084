"""Metrics count cores in percent of a card, whatever unit the vendor books them in."""

import pytest
from hami_allocator.in_percent import InPercent
from hami_model.allocation import Allocation, ContainerGrants, Grant, State
from hami_model.bus.messages import Booking, DeviceUse, NodeUse
from hami_model.objects import PodRef
from hami_model.request import Role
from hami_testkit.builders import a_card, a_catalog

PERCENT = InPercent.of(a_catalog().vendors)


@pytest.mark.parametrize(
    ("word", "cores", "booked", "shown"),
    [
        ("AMD", 304, 76, 25),
        ("AMD", 304, 1, 1),
        ("AMD", 304, 304, 100),
        ("AWSNeuron", 3, 2, 50),
        ("AWSNeuron", 15, 7, 75),
        ("AWSNeuron", 0, 0, 0),
    ],
)
def test_units_and_single_cores_are_shown_in_percent(word: str, cores: int, booked: int, shown: int) -> None:
    """Rounded up, of a card of a hundred."""
    card = a_card("d0", vendor=word, cores=cores)
    use = NodeUse(node="n", devices=[DeviceUse(device=card, used_slots=1, used_memory=5, used_cores=booked)])
    (seen,) = PERCENT.node(use).devices
    held = PERCENT.booking(booking(word, booked), lambda node: [card])

    assert (100, shown, 5) == (seen.device.cores, seen.used_cores, seen.used_memory)
    assert shown == held.allocation.containers[0].grants[0].cores


def test_who_books_in_percent_stays_untouched() -> None:
    """The very same values, an Ascend's twenty cores too."""
    card = a_card("d0", vendor="Ascend910B3", cores=20)
    use = NodeUse(node="n", devices=[DeviceUse(device=card, used_slots=1, used_memory=5, used_cores=10)])
    held = booking("Ascend910B3", 10)

    assert use is PERCENT.node(use)
    assert held is PERCENT.booking(held, lambda node: [card])


def test_cores_of_a_card_that_is_gone_stay_as_they_are_booked() -> None:
    """Nobody knows what they are a share of."""
    held = booking("AMD", 76)

    assert held == PERCENT.booking(held, lambda node: [])


def booking(word: str, cores: int) -> Booking:
    grants = (Grant(uuid="d0", vendor=word, memory=5, cores=cores),)
    containers = (ContainerGrants(name="c0", role=Role.APP, grants=grants),)
    pod = PodRef(namespace="team-a", name="p", uid="u")
    return Booking(allocation=Allocation(pod=pod, node="n", containers=containers), state=State.ACTIVE)
