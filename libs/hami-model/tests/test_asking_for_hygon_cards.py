"""Hygon DCUs: what a container's limits mean, what admission says to them, and which cards are taken."""

import msgspec
import pytest
from hami_model import config, vendors
from hami_model.admission import Admit, admit
from hami_model.demands import pod_demand
from hami_model.errors import BadDemand
from hami_model.objects import Pod
from hami_model.request import Demand, Exactly, Whole
from hami_testkit.builders import NodeBuilder, a_card, a_catalog, a_fleet, a_node, a_pod
from hami_testkit.deciding import cards, placed, refused

CATALOG = a_catalog()
NUM, MEM, CORES = "hygon.com/dcunum", "hygon.com/dcumem", "hygon.com/dcucores"


def demands_of(limits: dict[str, object], **section: object) -> tuple[Demand, ...]:
    """Read a container's limits; ``section`` changes the chart's section ``hygon``."""
    assert config.DEFAULTS.hygon is not None
    hygon = msgspec.structs.replace(config.DEFAULTS.hygon, **section)
    catalog = vendors.build(config.DeviceConfig(hygon=hygon), ascend=False, iluvatar=False)
    return pod_demand(a_dcu_pod(limits), catalog)[0].demands


def a_dcu_pod(limits: dict[str, object]) -> Pod:
    return msgspec.convert({"spec": {"containers": [{"name": "c0", "resources": {"limits": limits}}]}}, Pod)


def dcus(**models: str) -> NodeBuilder:
    """A node of cards for four pods each, by name and model."""
    node = a_node()
    for uuid, model in models.items():
        node = node.with_card(a_card(uuid, vendor="DCU", memory=65520, slots=4, model=model))
    return node


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ({NUM: "1", MEM: "2k", CORES: "60"}, Demand(vendor="DCU", count=1, memory=Exactly(2000), cores=60)),
        ({NUM: 2}, Demand(vendor="DCU", count=2, memory=Whole(), cores=100)),
        ({NUM: "1", MEM: "2000"}, Demand(vendor="DCU", count=1, memory=Exactly(2000), cores=100)),
        ({NUM: "1", MEM: "0", CORES: "0"}, Demand(vendor="DCU", count=1, memory=Whole())),
        ({NUM: "1", CORES: "250"}, Demand(vendor="DCU", count=1, memory=Whole(), cores=100)),
    ],
)
def test_every_form_of_the_limits(limits: dict[str, object], expected: Demand) -> None:
    """Memory counts MiB; who names no cores asks for all of them."""
    assert (expected,) == demands_of(limits)


@pytest.mark.parametrize("limits", [{NUM: "0"}, {MEM: "2000", CORES: "10"}])
def test_without_a_count_nothing_is_asked(limits: dict[str, object]) -> None:
    """Memory and cores alone, or zero cards, are no demand."""
    assert () == demands_of(limits)


@pytest.mark.parametrize(("factor", "mib"), [(0, 100), (1, 100), (2, 200)])
def test_a_unit_of_memory_is_what_the_device_config_says(factor: int, mib: int) -> None:
    """The chart's factor is 1; 0 is as good as none."""
    assert Exactly(mib) == demands_of({NUM: "1", MEM: "100"}, memory_factor=factor)[0].memory


@pytest.mark.parametrize(
    ("limits", "sentence"),
    [
        ({NUM: "1", MEM: "16Gi"}, f"{MEM} 16Gi in container c0 is too much: {MEM} counts MiB: write 16384"),
        ({NUM: "1", MEM: "1.5"}, f"{MEM} 1.5 in container c0 cannot be read: write a whole number of MiB"),
        ({NUM: "-1"}, f"{NUM} -1 in container c0 cannot be read: write a whole number of cards"),
        ({NUM: "1", CORES: "500m"}, f"{CORES} 500m in container c0 cannot be read"),
    ],
)
def test_what_cannot_be_read_is_refused_with_the_way_out(limits: dict[str, object], sentence: str) -> None:
    """HAMi gives the whole card for a fraction of memory, and asks nothing for 16Gi."""
    with pytest.raises(BadDemand) as refusal:
        demands_of(limits)

    assert sentence in str(refusal.value)


def admitted(limits: dict[str, object]) -> Admit:
    answer = admit(a_dcu_pod(limits), CATALOG, scheduler_name="hami-scheduler", force_overwrite=True)
    assert isinstance(answer, Admit)
    return answer


@pytest.mark.parametrize(
    "limits", [{NUM: "1", MEM: "2000", CORES: "60"}, {NUM: "1"}, {NUM: "1", MEM: "2k", CORES: "0"}]
)
def test_admission_changes_nothing_but_the_scheduler(limits: dict[str, object]) -> None:
    """The ask stays as written."""
    answer = admitted(limits)

    assert ("hami-scheduler", ()) == (answer.scheduler_name, answer.warnings)
    assert [("scheduler", "hami-scheduler")] == [
        (key, value) for change in answer.changes for key, value in msgspec.structs.asdict(change).items() if value
    ]


def test_a_share_of_memory_without_cores_is_warned_of() -> None:
    """It takes the card for itself, which few mean."""
    assert (
        f"container c0 names {MEM} and no {CORES}, which then is 100: nobody can share its cards; name {CORES} too",
    ) == admitted({NUM: "1", MEM: "2000"}).warnings


def test_cores_left_out_want_a_card_without_users() -> None:
    """D1 has a user; once D0 has one too, nothing is left."""
    asking = a_pod().asking(**{NUM: 1, MEM: 2000})
    one_used = dcus(D0="DCU-K100_AI", D1="DCU-K100_AI").using("D1", memory=2000, cores=10)

    assert [["D0"]] == cards(placed(a_fleet(one_used), asking).containers)
    assert {"node-1": "2/2 CardInsufficientCore"} == refused(a_fleet(one_used.using("D0", cores=60)), asking)


@pytest.mark.parametrize(
    ("key", "value", "card"),
    [
        ("hygon.com/use-dcutype", "z100,x", "D1"),
        ("hygon.com/nouse-dcutype", "Z100", "D0"),
        ("hygon.com/use-gpuuuid", "D0, D7", "D0"),
        ("hygon.com/nouse-gpuuuid", "D0", "D1"),
    ],
)
def test_cards_are_chosen_and_excluded_by_model_and_id(key: str, value: str, card: str) -> None:
    """Models by a part of their name in any case, ids exactly."""
    asking = a_pod().asking(**{NUM: 1}).annotated({key: value})

    assert [[card]] == cards(placed(a_fleet(dcus(D0="DCU-K100_AI", D1="DCU-Z100L")), asking).containers)


def test_every_card_says_why_it_is_refused() -> None:
    """One is too busy, the other one excluded."""
    fleet = a_fleet(dcus(D0="DCU-K100_AI", D1="DCU-K100_AI").using("D0", cores=60))
    asking = a_pod().asking(**{NUM: 1}).annotated({"hygon.com/nouse-gpuuuid": "D1"})

    assert {"node-1": "1/2 CardInsufficientCore, 1/2 CardUuidMismatch"} == refused(fleet, asking)


def test_a_card_whose_model_does_not_name_dcu_is_a_card() -> None:
    """HAMi never takes it; the annotation says whose it is."""
    assert [["D0"]] == cards(placed(a_fleet(dcus(D0="K100")), a_pod().asking(**{NUM: 1})).containers)
