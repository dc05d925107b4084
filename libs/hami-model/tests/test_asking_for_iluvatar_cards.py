"""Iluvatar GPUs: what a container's limits mean for each chip, what admission writes, and which cards are taken."""

import msgspec
import pytest
from hami_model.admission import Admit, admit
from hami_model.demands import pod_demand
from hami_model.errors import BadDemand
from hami_model.objects import Pod
from hami_model.request import Demand, Exactly, Whole
from hami_model.vendor import Change
from hami_testkit.builders import a_card, a_catalog, a_fleet, a_node, a_pod
from hami_testkit.deciding import cards, placed, refused

CATALOG = a_catalog()
CHIPS = ("MR-V100", "MR-V50", "BI-V150", "BI-V100")
VGPU, VMEM, VCORE = "iluvatar.ai/MR-V100-vgpu", "iluvatar.ai/MR-V100.vMem", "iluvatar.ai/MR-V100.vCore"


def an_iluvatar_pod(limits: dict[str, object], **more: object) -> Pod:
    """A pod of one container ``c0``; ``more`` are other fields of the container."""
    container = {"name": "c0", "resources": {"limits": limits}, **more}
    return msgspec.convert({"spec": {"containers": [container]}}, Pod)


def demands_of(limits: dict[str, object]) -> tuple[Demand, ...]:
    return pod_demand(an_iluvatar_pod(limits), CATALOG)[0].demands


def admitted(pod: Pod) -> Admit:
    answer = admit(pod, CATALOG, scheduler_name="hami-scheduler", force_overwrite=True)
    assert isinstance(answer, Admit)
    return answer


@pytest.mark.parametrize("chip", CHIPS)
def test_every_chip_has_names_of_its_own(chip: str) -> None:
    """Memory counts units of 256 MiB."""
    limits: dict[str, object] = {
        f"iluvatar.ai/{chip}-vgpu": "1", f"iluvatar.ai/{chip}.vMem": "64", f"iluvatar.ai/{chip}.vCore": "50",
    }  # fmt: skip

    assert (Demand(vendor=chip, count=1, memory=Exactly(16384), cores=50),) == demands_of(limits)


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ({VGPU: "1"}, Demand(vendor="MR-V100", count=1, memory=Whole())),
        ({VGPU: 2, VCORE: "200"}, Demand(vendor="MR-V100", count=2, memory=Whole(), cores=100)),
        ({VGPU: "1", VMEM: "0", VCORE: "20"}, Demand(vendor="MR-V100", count=1, memory=Whole(), cores=20)),
        ({VGPU: "1", VMEM: "4096"}, Demand(vendor="MR-V100", count=1, memory=Exactly(1048576))),
    ],
)
def test_every_form_of_the_limits(limits: dict[str, object], expected: Demand) -> None:
    """A single card without cores is shared; cores are those of one card, 100 at most."""
    assert (expected,) == demands_of(limits)


@pytest.mark.parametrize("limits", [{VGPU: "0"}, {VMEM: "16", VCORE: "10"}])
def test_without_a_count_nothing_is_asked(limits: dict[str, object]) -> None:
    """Memory and cores alone, or zero cards, are no demand."""
    assert () == demands_of(limits)


@pytest.mark.parametrize(
    ("limits", "sentence"),
    [
        (
            {VGPU: "1", VMEM: "16Gi"},
            f"{VMEM} 16Gi in container c0 is too much: {VMEM} counts units of 256 MiB: write 64",
        ),
        ({VGPU: "1", VMEM: "1.5"}, f"{VMEM} 1.5 in container c0 cannot be read: write a whole number of units of 256"),
        ({VGPU: "1.5"}, f"{VGPU} 1.5 in container c0 cannot be read"),
        ({VGPU: "1", VCORE: "500m"}, f"{VCORE} 500m in container c0 cannot be read"),
    ],
)
def test_what_cannot_be_read_is_refused_with_the_way_out(limits: dict[str, object], sentence: str) -> None:
    """The way out is written in the resource's own unit."""
    with pytest.raises(BadDemand) as refusal:
        demands_of(limits)

    assert sentence in str(refusal.value)


def test_admission_tells_the_container_its_name() -> None:
    """The variable is spelled as the vendor's gpu-manager reads it; one that is there stays."""
    named = Change(container="c0", env=("SOL_CONTINER_NAME", "c0"))
    own = [{"name": "SOL_CONTINER_NAME", "value": "mine"}]

    assert named in admitted(an_iluvatar_pod({VGPU: "1"})).changes
    assert named not in admitted(an_iluvatar_pod({VGPU: "1"}, env=own)).changes


@pytest.mark.parametrize(("count", "cores"), [("2", "200"), ("3", "300"), ("10", "1k")])
def test_several_cards_are_asked_for_with_all_their_cores(count: str, cores: str) -> None:
    """Whatever was named; requests that name cores say the same, or the API server would refuse the pod."""
    limits: dict[str, object] = {VGPU: count, VCORE: "50"}
    pod = an_iluvatar_pod(limits, resources={"limits": limits, "requests": {VCORE: "50"}})

    assert Change(container="c0", limit=(VCORE, cores)) in admitted(pod).changes
    assert Change(container="c0", request=(VCORE, cores)) in admitted(pod).changes
    assert not any(change.request for change in admitted(an_iluvatar_pod({VGPU: count})).changes)


def test_several_cards_count_once_against_the_quota() -> None:
    """Two cards are 200 percent; HAMi counts 400 at admission."""
    (need,) = admitted(an_iluvatar_pod({VGPU: "2"})).needs

    assert ("MR-V100", 0, 200) == (need.vendor, need.memory, need.cores)


def test_a_single_card_keeps_its_cores() -> None:
    """Named or not."""
    for limits in ({VGPU: "1"}, {VGPU: "1", VCORE: "50"}):
        assert not any(change.limit for change in admitted(an_iluvatar_pod(dict(limits))).changes)


@pytest.mark.parametrize(("units", "warned"), [("1024", False), ("4096", True)])
def test_mib_where_units_are_meant_are_warned_of(units: str, *, warned: bool) -> None:
    """4096 units are 1 TiB, which no card has: HAMi leaves such a pod pending without a word."""
    expected = (f"{VMEM} 4096 in container c0 counts units of 256 MiB and fits no card: for 4096 MiB write 16",)

    assert (expected if warned else ()) == admitted(an_iluvatar_pod({VGPU: "1", VMEM: units})).warnings


def test_whole_cards_are_those_that_nobody_uses() -> None:
    """Of three cards one has 256 MiB booked."""
    node = a_node().with_cards(3, vendor="MR-V100", memory=32768, slots=4).using("node-1-1", memory=256)
    two_whole = a_pod().asking(**{VGPU: 2, VCORE: 200})

    assert [{"node-1-0", "node-1-2"}] == [set(taken) for taken in cards(placed(a_fleet(node), two_whole).containers)]
    assert {"node-1": "1/3 AllocatedCardsInsufficientRequest, 2/3 CardInsufficientMemory"} == refused(
        a_fleet(node.using("node-1-0", memory=1)), two_whole
    )


def test_a_share_fits_exactly() -> None:
    """Half of a card that is half used, chosen by its id."""
    node = a_node().with_cards(2, vendor="MR-V100", memory=32768, slots=4).using("node-1-0", memory=16384, cores=50)
    half = a_pod().asking(**{VGPU: 1, VMEM: 64, VCORE: 50})

    for key, value in (("hami.io/use-MR-V100-uuid", "node-1-0"), ("hami.io/no-use-MR-V100-uuid", "node-1-1")):
        assert [["node-1-0"]] == cards(placed(a_fleet(node), half.annotated({key: value})).containers)


def test_a_chip_is_served_by_its_own_cards() -> None:
    """A node of another chip has none of it."""
    fleet = a_fleet(a_node().with_card(a_card("G0", vendor="BI-V100", memory=32768)))

    assert {"node-1": "NodeInsufficientDevice"} == refused(fleet, a_pod().asking(**{VGPU: 1}))
