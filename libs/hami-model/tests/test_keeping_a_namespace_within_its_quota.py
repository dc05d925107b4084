"""ResourceQuota objects limit what a namespace takes, at admission and card by card."""

import pytest
from hami_model.bus.messages import QuotaDenied
from hami_model.charge import Charge
from hami_model.fleet import Fleet
from hami_model.quota import Quotas, complaints
from hami_model.request import CoreUnit
from hami_testkit.builders import a_card, a_catalog, a_fleet, a_node, a_pod
from hami_testkit.deciding import cards, placed, refused

MEM, CORES = "limits.nvidia.com/gpumem", "limits.nvidia.com/gpucores"
SIZES = (2000, 8000, 4000, 6000)


def quotas(**hard: int | str) -> Quotas:
    """Limit team-a: ``mem`` in MiB, ``cores`` in percent."""
    limited = Quotas(a_catalog())
    limited.set("team-a", "q", {{"mem": MEM, "cores": CORES}[key]: value for key, value in hard.items()})
    return limited


def four_cards() -> Fleet:
    """One node with cards of 2000, 8000, 4000 and 6000 MiB."""
    node = a_node()
    for at, memory in enumerate(SIZES):
        node = node.with_card(a_card(f"GPU-{at}", memory=memory))
    return a_fleet(node)


def test_two_whole_cards_fit_a_quota_that_holds_both() -> None:
    """4000 MiB and 200 percent: twice 2000 MiB of a whole card."""
    room = quotas(mem=4000, cores=200).view("team-a")

    assert "node-1" == placed(four_cards(), a_pod().asking(gpu=2, gpumem=2000, gpucores=100), quota=room).node


def test_the_second_card_is_refused_when_the_first_used_the_quota_up() -> None:
    """What was taken counts for the cards after it; quota is asked before memory."""
    room = quotas(mem=4000, cores=200).view("team-a")

    assert {"node-1": "1/4 AllocatedCardsInsufficientRequest, 3/4 ResourceQuotaNotFit"} == refused(
        four_cards(), a_pod().asking(gpu=2, gpumem=3000, gpucores=60), quota=room
    )


def test_a_whole_card_is_chosen_by_what_the_quota_still_pays() -> None:
    """Only the card of 2000 MiB fits a quota of 2000; none fits 1500."""
    asking = a_pod().asking(gpu=1, gpucores=10)

    assert [["GPU-0"]] == cards(placed(four_cards(), asking, quota=quotas(mem=2000).view("team-a")).containers)
    assert {"node-1": "4/4 ResourceQuotaNotFit"} == refused(four_cards(), asking, quota=quotas(mem=1500).view("team-a"))


def test_a_container_uses_the_card_that_its_init_container_paid_for() -> None:
    """The larger of the two counts, so 6000 and then 5000 MiB need 6000."""
    fleet = a_fleet(a_node().with_cards(2))
    asking = a_pod().starting_with(gpu=1, gpumem=6000).asking(gpu=1, gpumem=5000)

    assert "node-1" == placed(fleet, asking, quota=quotas(mem=6000).view("team-a")).node


def test_a_card_that_the_init_container_did_not_have_is_paid_for_beside_it() -> None:
    """6000 MiB are held for the start; the containers' second card comes on top."""
    fleet = a_fleet(a_node().with_cards(2))
    asking = a_pod().starting_with(gpu=1, gpumem=6000).asking(gpu=2, gpumem=5000)

    assert {"node-1": "1/2 AllocatedCardsInsufficientRequest, 1/2 ResourceQuotaNotFit"} == refused(
        fleet, asking, quota=quotas(mem=10999).view("team-a")
    )
    assert "node-1" == placed(fleet, asking, quota=quotas(mem=11000).view("team-a")).node


def test_containers_of_one_pod_are_added_up() -> None:
    """HAMi takes the larger of two containers where there is an init container (vendors-a QUO-1)."""
    fleet = a_fleet(a_node().with_cards(1, memory=24564))
    asking = a_pod().starting_with(gpu=1, gpumem=100).asking(gpu=1, gpumem=6000).asking(gpu=1, gpumem=6000)

    assert {"node-1": "1/1 ResourceQuotaNotFit"} == refused(fleet, asking, quota=quotas(mem=8000).view("team-a"))


@pytest.mark.parametrize(("memory", "cores", "fits"), [(1000, 200, True), (1001, 0, False), (0, 201, False)])
def test_use_and_need_together_stay_within_the_limit(memory: int, cores: int, *, fits: bool) -> None:
    """1000 of 2000 MiB and 200 of 400 percent are used."""
    limited = quotas(mem=2000, cores=400)
    limited.charge("team-a", {("NVIDIA", "GPU-0"): Charge(slots=1, memory=1000, cores=200)})

    assert fits == (limited.fits("team-a", "NVIDIA", memory, cores) is None)


def test_a_denial_names_the_resource_in_its_own_unit() -> None:
    """A Cambricon unit is 256 MiB."""
    limited = Quotas(a_catalog())
    limited.set("team-a", "q", {"limits.cambricon.com/mlu.smlu.vmemory": 100})
    limited.charge("team-a", {("MLU", "MLU-0"): Charge(slots=1, memory=50 * 256)})

    denied = QuotaDenied(resource="cambricon.com/mlu.smlu.vmemory", used=50, limit=100, wanted=51)
    assert denied == limited.fits("team-a", "MLU", 51 * 256, 0)
    assert limited.fits("team-a", "MLU", 50 * 256, 0) is None


def test_zero_blocks_and_nothing_said_allows() -> None:
    """An explicit 0 is a limit; another namespace has none."""
    limited = quotas(mem=0)

    assert limited.fits("team-a", "NVIDIA", 500, 0) is not None
    assert limited.fits("team-b", "NVIDIA", 500, 0) is None


def test_of_several_quotas_the_lowest_limit_counts() -> None:
    """In HAMi the last one written wins, and dropping either lifts the limit (scheduling W8)."""
    limited = quotas(mem="2k")
    limited.set("team-a", "other", {MEM: 1000})

    assert 1000 == limited.limit("team-a", "nvidia.com/gpumem")

    limited.drop("team-a", "other")

    assert 2000 == limited.limit("team-a", "nvidia.com/gpumem")


def test_a_value_that_is_no_whole_number_limits_nothing() -> None:
    """HAMi compat: ``1.5`` is not read."""
    assert {} == quotas(mem="1.5").view("team-a")


@pytest.mark.parametrize(
    ("key", "written", "sentence"),
    [
        (MEM, "10Gi", f"{MEM} 10Gi is too much to limit anything: it counts MiB: write 10240"),
        (MEM, 16777216, f"{MEM} 16777216 is too much to limit anything: it counts MiB: write 16"),
        (MEM, "1500m", f"{MEM} 1500m sets no limit: write a whole number of MiB, such as 2"),
        (MEM, "lots", f"{MEM} lots sets no limit: write a whole number of MiB, such as 1"),
        (CORES, "0.5", f"{CORES} 0.5 sets no limit: write a whole number of percent of a card's cores, such as 1"),
        (
            "limits.cambricon.com/mlu.smlu.vmemory",
            "16Gi",
            "limits.cambricon.com/mlu.smlu.vmemory 16Gi is too much to limit anything: it counts units of 256 MiB: "
            "write 64",
        ),
    ],
)
def test_a_limit_that_cannot_be_meant_is_complained_of(key: str, written: int | str, sentence: str) -> None:
    """HAMi is silent where a quota limits nothing; here its author hears the key, the value and what to write."""
    assert [sentence] == list(complaints({key: written, "cpu": "1.5"}, a_catalog()))


@pytest.mark.parametrize("hard", [{}, {MEM: 0}, {MEM: "2k", CORES: 400}, {MEM: "16777215"}, {"requests.cpu": "1.5"}])
def test_a_limit_that_can_be_meant_is_not(hard: dict[str, int | str]) -> None:
    """Whatever is not ours, or in its unit, is in order."""
    assert [] == list(complaints(hard, a_catalog()))


def test_what_is_given_back_is_free_again() -> None:
    """Charging and discharging the same leaves nothing behind."""
    limited = quotas(mem=2000)
    charges = {("NVIDIA", "GPU-0"): Charge(slots=1, memory=1500, cores=10)}
    limited.charge("team-a", charges)
    copy = limited.snapshot()
    limited.discharge("team-a", charges)

    assert (0, 0) == limited.used("team-a", "NVIDIA")
    assert (1500, 10) == copy.used("team-a", "NVIDIA")


MEASURED = [
    (vendor.word, measure) for vendor in a_catalog().vendors for measure in ("memory", "cores")
    if getattr(vendor.resources, measure)
]  # fmt: skip


@pytest.mark.parametrize(("word", "measure"), MEASURED)
def test_every_vendors_memory_and_cores_are_limited(word: str, measure: str) -> None:
    """In the vendor's own unit: 10 are allowed and 4 used, so 6 more fit, and of 7 the denial says all three."""
    vendor = a_catalog().by_word(word)
    resource: str = getattr(vendor.resources, measure)
    unit = max(vendor.resources.memory_factor, 1) if measure == "memory" else 1
    four = 0b1111 if measure == "cores" and vendor.resources.core_unit is CoreUnit.BITS else 4 * unit
    limited = Quotas(a_catalog())
    limited.set("team-a", "q", {f"limits.{resource}": 10})
    limited.charge("team-a", {(word, "card"): Charge(slots=1, **{measure: four})})

    def asking(amount: int) -> QuotaDenied | None:
        of = {"memory": 0, "cores": 0, measure: amount * unit}
        return limited.fits("team-a", word, of["memory"], of["cores"])

    assert asking(6) is None
    assert QuotaDenied(resource=resource, used=4, limit=10, wanted=7) == asking(7)
