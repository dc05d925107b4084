"""The last fence: a card never holds more than it has."""

from hami_model.allocation import Cut, Grant
from hami_model.device import Device, Placement
from hami_model.objects import (
    Container,
    ContainerState,
    ContainerStatus,
    Pod,
    PodRef,
    PodSpec,
    PodStatus,
    Terminated,
)
from hami_model.request import Role
from hami_node_agent import fence
from hami_node_agent.table import Entry
from msgspec import structs

CUT = Cut(profile="3g.20gb", placement=Placement(0, 4))
CARD = Device(id="GPU-1", vendor="NVIDIA", slots=2, memory=10_000, cores=100, model="NVIDIA-A")


def an_entry(pod: str, memory: int, *, cores: int = 0, container: str = "a", role: Role = Role.APP) -> Entry:
    return Entry(
        pod=PodRef("default", pod, pod),
        container=container,
        position=0 if role is Role.INIT else 1,
        role=role,
        resource="nvidia.com/gpu",
        ids=(f"GPU-1-{pod}",),
        grants=(Grant(uuid="GPU-1", vendor="NVIDIA", memory=memory, cores=cores),),
        served=True,
    )


def why(new: Entry, *held: Entry, card: Device | None = CARD, pod: Pod | None = None) -> str | None:
    return fence.overfull(held, new, card=lambda _word, _id: card, pod=lambda _uid: pod)


def test_a_card_takes_pods_until_it_is_full() -> None:
    """What just fits is given; one MiB more is refused with the numbers."""
    assert why(an_entry("y", 4000), an_entry("x", 6000)) is None
    assert (
        why(an_entry("y", 4001), an_entry("x", 6000))
        == "card GPU-1 would hold 10001 MiB of 10000 MiB with what this node has given out already"
    )


def test_cores_and_slots_are_fenced_too() -> None:
    """Each of the three is a limit by itself."""
    assert "101% of 100% of its cores" in (why(an_entry("y", 1, cores=51), an_entry("x", 1, cores=50)) or "")
    assert "3 containers of at most 2" in (why(an_entry("z", 1), an_entry("x", 1), an_entry("y", 1)) or "")


def test_instances_are_given_of_cards_in_mode_mig_alone() -> None:
    """Seven of them add up to more than all cores, by rounding; whether their places are free is not asked here."""
    cut_card = structs.replace(CARD, mode="mig")
    part = an_entry("x", 9000, cores=60)
    cut = structs.replace(part, grants=(structs.replace(part.grants[0], cuts=(CUT,)),))

    assert why(cut, an_entry("y", 9000, cores=60), card=cut_card) is None
    assert why(part, card=cut_card) == (
        "card GPU-1 is in mode mig, and the allocation names no MIG instance of it: create the pod again"
    )
    assert why(cut, card=structs.replace(CARD, mode="hami-core")) == (
        "card GPU-1 is in mode hami-core, and the allocation names a MIG instance of it: create the pod again"
    )


def test_an_init_container_and_its_successor_count_once() -> None:
    """They run one after the other: the larger of the two is what the pod takes."""
    init = an_entry("p", 8000, container="prepare", role=Role.INIT)

    assert why(an_entry("p", 9000), init) is None
    assert why(an_entry("q", 3000), init) is not None


def test_an_init_container_that_ended_well_takes_nothing_any_more() -> None:
    """Its part falls away when all ordinary init containers have ended with 0."""
    ended = ContainerStatus(name="prepare", state=ContainerState(terminated=Terminated(exit_code=0)))
    pod = Pod(
        spec=PodSpec(init_containers=[Container(name="prepare")]), status=PodStatus(init_container_statuses=[ended])
    )

    assert why(an_entry("q", 9000), an_entry("p", 8000, container="prepare", role=Role.INIT), pod=pod) is None


def test_a_container_served_again_does_not_count_twice() -> None:
    """Its own older entry is replaced, not added to."""
    assert why(an_entry("x", 6000), an_entry("x", 6000)) is None


def test_a_card_that_is_missing_or_unhealthy_is_given_to_nobody() -> None:
    """The allocation may be older than the card's trouble."""
    sick = Device(id="GPU-1", vendor="NVIDIA", slots=2, memory=10_000, cores=100, model="A", healthy=False)

    assert why(an_entry("x", 1), card=None) == "card GPU-1 of the allocation is not on this node"
    assert why(an_entry("x", 1), card=sick) == "card GPU-1 of the allocation is unhealthy"
