"""AMD GPUs: what a container's limits mean, what nodes publish, and how many compute units a share is."""

from collections.abc import Mapping

import msgspec
import pytest
from hami_model import config, vendors
from hami_model.admission import Admit, Deny, Skip, admit
from hami_model.allocation import Allocation
from hami_model.annotations import allocation_annotations, read_allocation
from hami_model.demands import pod_demand
from hami_model.device import Device
from hami_model.errors import BadDemand, MalformedInventory
from hami_model.explain import explain
from hami_model.holding import Holding, holding
from hami_model.objects import Node, Pod, PodRef
from hami_model.policies import Policies, for_pod
from hami_model.quota import Room
from hami_model.request import CoreUnit, Demand, Exactly, Whole
from hami_testkit.builders import NodeBuilder, PodBuilder, a_fleet, a_node, a_pod
from hami_testkit.deciding import cards, placed, refused
from msgspec import structs

CATALOG = vendors.build(config.DEFAULTS, ascend=True, iluvatar=True)
AMD = CATALOG.by_word("AMD")
GPU, MEM, CORES = "amd.com/gpu", "amd.com/gpumem", "amd.com/gpucores"
MODEL = "AMD Instinct MI300X VF"
ALLOCATED = "hami.io/amd-devices-allocated"


def an_amd_pod(limits: Mapping[str, object], requests: Mapping[str, object] = {}) -> Pod:
    resources = {"limits": limits, "requests": requests}
    return msgspec.convert({"spec": {"containers": [{"name": "c0", "resources": resources}]}}, Pod)


def admitted(pod: Pod) -> Admit | Deny | Skip:
    return admit(pod, CATALOG, scheduler_name="hami-scheduler", force_overwrite=True)


def amds(count: int, *, units: int = 304) -> NodeBuilder:
    """A node of cards node-1-0, node-1-1 and so on."""
    return a_node().with_cards(count, vendor="AMD", memory=196608, cores=units, model=MODEL)


def wanting(count: int = 1, **shares: int) -> PodBuilder:
    return a_pod().asking(**{GPU: count, **{f"amd.com/{name}": amount for name, amount in shares.items()}})


def units_given(node: NodeBuilder, asking: PodBuilder) -> list[int]:
    """Return the compute units that the only container gets, card by card."""
    return [grant.cores for grant in placed(a_fleet(node), asking).containers[0].grants]


# Asking


@pytest.mark.parametrize(
    ("limits", "memory", "cores"),
    [
        ({GPU: "1"}, Whole(), 100),
        ({GPU: "1", MEM: "16384", CORES: "25"}, Exactly(16384), 25),
        ({GPU: "1", MEM: "0", CORES: "1"}, Whole(), 1),
        ({GPU: "1", MEM: "3k"}, Exactly(3000), 100),
    ],
)
def test_every_form_of_the_limits(limits: dict[str, object], memory: Exactly | Whole, cores: int) -> None:
    """Memory in MiB, cores in percent; what is not named is the whole."""
    (container,) = pod_demand(an_amd_pod(limits), CATALOG)

    assert (Demand(vendor="AMD", count=1, memory=memory, cores=cores, core_unit=CoreUnit.UNITS),) == container.demands


@pytest.mark.parametrize(
    ("limits", "requests"), [({}, {GPU: "1"}), ({GPU: "0"}, {}), ({MEM: "100"}, {}), ({CORES: "10"}, {})]
)
def test_without_a_count_in_the_limits_nothing_is_asked(limits: dict[str, object], requests: dict[str, object]) -> None:
    """Requests alone are not looked at."""
    assert () == pod_demand(an_amd_pod(limits, requests), CATALOG)[0].demands


@pytest.mark.parametrize("cores", ["0", "101", "-1", "1500m", "1e2k"])
def test_cores_out_of_range_are_denied_in_hamis_words(cores: str) -> None:
    """With what was written, and where."""
    answer = admitted(an_amd_pod({GPU: "1", CORES: cores}))

    assert (
        Deny(
            code=500,
            message=f"{CORES} must be an integer percentage between 1 and 100, which {cores} in container c0 is not",
        )
        == answer
    )


@pytest.mark.parametrize(("name", "written"), [(MEM, "8192"), (CORES, "10")])
def test_a_share_of_no_card_is_denied(name: str, written: str) -> None:
    """HAMi lets the pod run, without a card."""
    answer = admitted(an_amd_pod({name: written}))

    assert Deny(code=403, message=f"{name} {written} in container c0 is of no card: add {GPU}: 1") == answer


def test_memory_under_its_former_name_is_warned_of() -> None:
    """The pod gets the whole card, as with HAMi."""
    answer = admitted(an_amd_pod({GPU: "1", "amd.com/gpu-memory": "8192"}))

    assert isinstance(answer, Admit)
    assert (f"amd.com/gpu-memory is read by nobody: write {MEM}, in MiB",) == answer.warnings


@pytest.mark.parametrize(("written", "way_out"), [("16Gi", "counts MiB: write 16384"), ("1.5", "such as 2")])
def test_memory_that_cannot_be_read_is_refused_with_the_way_out(written: str, way_out: str) -> None:
    """HAMi admits it, and then sees no ask."""
    with pytest.raises(BadDemand, match=way_out):
        pod_demand(an_amd_pod({GPU: "1", MEM: written}), CATALOG)


# What nodes publish


def published(text: str) -> tuple[Device, ...]:
    node = msgspec.convert({"metadata": {"name": "node-1", "annotations": {AMD.keys.register: text}}}, Node)
    return AMD.discover(AMD, node)


def test_a_card_lists_its_compute_units() -> None:
    """304 of them, and its model."""
    (card,) = published(f'[{{"id":"n~0","count":10,"devmem":196288,"devcore":304,"type":"{MODEL}","health":true}}]')

    assert (304, MODEL, 10) == (card.cores, card.model, card.slots)


@pytest.mark.parametrize("model", ["AMD,MI300X", "AMD:MI300X", "AMD;MI300X"])
def test_a_model_that_would_break_device_lists_is_refused(model: str) -> None:
    """The pods' annotations name it."""
    with pytest.raises(MalformedInventory, match="card n~0 has the type"):
        published(f'[{{"id":"n~0","type":"{model}"}}]')


# Compute units


@pytest.mark.parametrize(
    ("units", "percent", "given"),
    [(304, 25, 76), (304, 33, 100), (304, 67, 203), (304, 100, 304), (304, 1, 3), (64, 1, 1), (60, 100, 60)],
)
def test_a_percentage_is_rounded_down_to_whole_units(units: int, percent: int, given: int) -> None:
    """At least one."""
    assert [given] == units_given(amds(1, units=units), wanting(gpumem=1000, gpucores=percent))


def test_units_are_given_until_none_is_left() -> None:
    """229 of the 304 are taken: 72 fit, 76 do not."""
    node = amds(1).using("node-1-0", memory=1000, cores=229)

    assert [72] == units_given(node, wanting(gpumem=1000, gpucores=24))
    assert {"node-1": "1/1 CardInsufficientCore"} == refused(a_fleet(node), wanting(gpumem=1000, gpucores=25))


def test_a_card_of_a_hundred_units_is_shared_like_any_other() -> None:
    """All units mean no others have any, and no more than that."""
    node = amds(2, units=100).using("node-1-1", memory=1000, cores=0)

    assert [100, 100] == units_given(node, wanting(2, gpumem=1000, gpucores=100))


def test_a_card_without_units_is_given_to_nobody() -> None:
    """Not even one is there."""
    assert {"node-1": "1/1 CardInsufficientCore"} == refused(a_fleet(amds(1, units=0)), wanting(gpumem=1, gpucores=1))


def test_a_quota_for_cores_is_not_asked_card_by_card() -> None:
    """Its percentage says nothing of units; memory counts as everywhere."""
    fleet = a_fleet(amds(1))

    placement = placed(fleet, wanting(gpumem=10), quota={"AMD": Room(memory=10, cores=1)})

    assert [["node-1-0"]] == cards(placement.containers)
    assert {"node-1": "1/1 ResourceQuotaNotFit"} == refused(fleet, wanting(gpumem=11), quota={"AMD": Room(memory=10)})


def test_why_not_is_told_in_units() -> None:
    """What is wanted of the card, and what it has left."""
    fleet = a_fleet(amds(1).using("node-1-0", memory=1000, cores=229))
    pod = wanting(gpumem=1000, gpucores=25).pod()
    (verdict,) = explain(fleet, pod, pod_demand(pod, CATALOG), ["node-1"], policies=for_pod(pod, Policies()))
    (card,) = verdict.cards

    assert ("76 compute units", "75 compute units") == (card.wanted, card.had)


# Device lists


def given_and_bound(asking: PodBuilder, node: NodeBuilder) -> tuple[Allocation, Pod]:
    pod, placement = asking.pod(), placed(a_fleet(node), asking)
    allocation = Allocation(pod=PodRef.of(pod), node="node-1", containers=placement.containers)
    written = allocation_annotations(CATALOG, allocation, pod, now=1)
    meta = structs.replace(pod.metadata, annotations=written)
    return allocation, structs.replace(pod, metadata=meta, spec=structs.replace(pod.spec, node_name="node-1"))


def test_device_lists_name_the_model_and_the_units() -> None:
    """A container without cards has its empty group."""
    _, pod = given_and_bound(a_pod().asking().asking(**{GPU: 1, MEM: 16384, CORES: 25}), amds(1))

    assert f";node-1-0,{MODEL},16384,76:;" == pod.annotations[ALLOCATED] == pod.annotations[AMD.keys.to_allocate]


def test_what_was_written_is_believed_and_written_again_the_same() -> None:
    """After a restart the model is known from the list itself."""
    node = amds(1)
    _, pod = given_and_bound(wanting(gpumem=16384, gpucores=25), node)
    read = read_allocation(CATALOG, pod)

    assert read is not None
    assert Holding(allocation=read) == holding(pod, CATALOG, node.cards)
    assert pod.annotations == allocation_annotations(CATALOG, read, pod, now=1)


def test_more_units_than_asked_for_are_not_believed() -> None:
    """A quarter of 304 is 76, whatever somebody wrote."""
    node = amds(1)
    _, pod = given_and_bound(wanting(gpumem=16384, gpucores=25), node)
    forged = {**pod.annotations, ALLOCATED: f"node-1-0,{MODEL},16384,304:;"}
    held = holding(
        structs.replace(pod, metadata=structs.replace(pod.metadata, annotations=forged)), CATALOG, node.cards
    )

    assert isinstance(held, Holding)
    assert 76 == held.allocation.containers[0].grants[0].cores
    assert "304 compute units of node-1-0 where the pod asks for 16384 MiB and 76 compute units" in held.complaints[0]
