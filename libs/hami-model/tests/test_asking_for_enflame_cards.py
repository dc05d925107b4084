"""Enflame GCUs: what a container's limits mean, what nodes publish, and which share of which card is given."""

from collections.abc import Mapping

import msgspec
import pytest
from hami_model import config, vendors
from hami_model.admission import Admit, Deny, admit
from hami_model.allocation import Allocation
from hami_model.annotations import allocation_annotations, read_allocation
from hami_model.demands import pod_demand
from hami_model.device import Device
from hami_model.errors import BadDemand, MalformedInventory
from hami_model.explain import explain
from hami_model.fleet import Fleet
from hami_model.holding import Holding, holding
from hami_model.objects import Node, Pod, PodRef
from hami_model.place import Placement
from hami_model.policies import Policies, for_pod
from hami_model.quota import Room
from hami_model.request import Demand, Exactly, Whole
from hami_testkit.builders import PodBuilder, a_pod
from hami_testkit.deciding import cards, decided, placed, refused
from hypothesis import example, given
from hypothesis import strategies as st
from msgspec import structs

CATALOG = vendors.build(config.DEFAULTS, ascend=False, iluvatar=False)
GCU, DRS, MEMORY, CORES = "enflame.com/gcu", "enflame.com/drs-gcu", "enflame.com/gcu-memory", "enflame.com/gcu-core"
CAPACITY, ALLOCATED = "enflame.com/gcu-drs-capacity", "hami.io/enflame-vgpu-devices-allocated"
SIX = {"1g.6gb": "0", "3g.20gb": "1", "6g.40gb": "2"}
"""Profiles of a card of six slices."""


def a_container_pod(limits: Mapping[str, object] | None = None, requests: Mapping[str, object] | None = None) -> Pod:
    written = {"limits": limits or {}, "requests": requests or {}}
    return msgspec.convert({"spec": {"containers": [{"name": "c0", "resources": written}]}}, Pod)


def demanded(limits: Mapping[str, object]) -> tuple[Demand, ...]:
    (container,) = pod_demand(a_container_pod(limits), CATALOG)
    return container.demands


def answered(pod: Pod) -> Admit | Deny:
    answer = admit(pod, CATALOG, scheduler_name="hami-scheduler", force_overwrite=True)
    assert isinstance(answer, Admit | Deny)
    return answer


def a_drs_node(*, number: int = 1, profiles: Mapping[str, str] = SIX, capacity: int = 6, name: str = "n1") -> Node:
    devices = [{"index": str(at), "minor": str(10 + at), "capacity": capacity} for at in range(number)]
    return publishing(msgspec.json.encode({"devices": devices, "profiles": profiles}).decode(), name=name)


def publishing(text: str, *, name: str = "n1") -> Node:
    return msgspec.convert({"metadata": {"name": name, "annotations": {CAPACITY: text}}}, Node)


def discovered(node: Node, word: str = "Enflame") -> tuple[Device, ...]:
    vendor = CATALOG.by_word(word)
    return vendor.discover(vendor, node)


def a_drs_fleet(*nodes: Node) -> Fleet:
    fleet = Fleet(CATALOG)
    for node in nodes:
        fleet.set_devices(node.metadata.name, "Enflame", discovered(node))
    return fleet


def asking(**amounts: int) -> PodBuilder:
    names = {"slices": DRS, "memory": MEMORY, "cores": CORES}
    return a_pod().asking(**{names[key]: amount for key, amount in amounts.items()})


def given_to(placement: Placement) -> list[tuple[int, int]]:
    """Return MiB and cores of every share, in the order of the containers."""
    return [(grant.memory, grant.cores) for container in placement.containers for grant in container.grants]


# Whole cards


def test_whole_cards_are_asked_for_by_number() -> None:
    """All of each; nothing is written into the pod but the scheduler's name."""
    answer = answered(a_container_pod({GCU: 2}))

    assert (Demand(vendor="GCU", count=2, memory=Whole(), cores=100),) == demanded({GCU: 2})
    assert isinstance(answer, Admit)
    assert ("hami-scheduler", []) == (answer.scheduler_name, [c for c in answer.changes if c.container])


def test_the_nodes_capacity_says_how_many_whole_cards_there_are() -> None:
    """Memory is 100 whatever they have; a capacity that is no number is said."""
    node = msgspec.convert({"metadata": {"name": "n1"}, "status": {"capacity": {GCU: "2"}}}, Node)
    broken = msgspec.convert({"metadata": {"name": "n1"}, "status": {"capacity": {GCU: "many"}}}, Node)

    assert [("n1-GCU-0", 1, 100), ("n1-GCU-1", 1, 100)] == [
        (device.id, device.slots, device.memory) for device in discovered(node, "GCU")
    ]
    with pytest.raises(MalformedInventory, match=r"capacity enflame\.com/gcu of node n1 is many"):
        discovered(broken, "GCU")


def test_a_whole_card_is_one_containers() -> None:
    """Whoever else asks is told that it is taken."""
    fleet = Fleet(CATALOG)
    node = msgspec.convert({"metadata": {"name": "n1"}, "status": {"capacity": {GCU: "2"}}}, Node)
    fleet.set_devices("n1", "GCU", discovered(node, "GCU"))

    assert [["n1-GCU-1"], ["n1-GCU-0"]] == cards(
        placed(fleet, a_pod().asking(**{GCU: 1}).asking(**{GCU: 1})).containers
    )
    assert {"n1": "1/2 AllocatedCardsInsufficientRequest, 1/2 ExclusiveDeviceAllocateConflict"} == refused(
        fleet, a_pod().asking(**{GCU: 1}).asking(**{GCU: 2})
    )


# What shares are asked for


@pytest.mark.parametrize(
    ("limits", "memory", "cores", "slices"),
    [
        ({DRS: 3}, 0, 0, 3),
        ({DRS: 3, MEMORY: 1, CORES: 1}, 0, 0, 3),
        ({MEMORY: 20}, 20480, 0, 0),
        ({MEMORY: 1023}, 1023 * 1024, 0, 0),
        ({MEMORY: 1024}, 1024, 0, 0),
        ({MEMORY: "20480", CORES: 40}, 20480, 40, 0),
        ({CORES: 50}, 0, 50, 0),
    ],
)
def test_a_share_is_asked_for_by_slices_or_by_memory_and_cores(
    limits: dict[str, object], memory: int, cores: int, slices: int
) -> None:
    """Slices win. Numbers of memory below 1024 are of GiB; HAMi guesses by the node's largest profile."""
    wanted = Demand(vendor="Enflame", count=1, memory=Exactly(memory), cores=cores, slices=slices)

    assert (wanted,) == demanded(limits)


@pytest.mark.parametrize(
    ("limits", "sentence"),
    [
        ({DRS: "1500m"}, f"{DRS} 1500m in container c0 cannot be read: write a whole number of slices of a card"),
        ({MEMORY: "16Gi"}, f"{MEMORY} 16Gi in container c0 is too much: {MEMORY} counts MiB: write 16384"),
        ({MEMORY: "500Mi"}, f"{MEMORY} 500Mi in container c0 is too much: {MEMORY} counts MiB: write 1024"),
        ({CORES: "0.5"}, f"{CORES} 0.5 in container c0 cannot be read: write a whole number of percent"),
    ],
)
def test_an_ask_that_cannot_be_read_is_refused_with_the_way_out(limits: dict[str, object], sentence: str) -> None:
    """HAMi takes it for none, and the pod would find no card."""
    with pytest.raises(BadDemand) as refusal:
        demanded(limits)

    assert str(refusal.value).startswith(sentence)


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ({DRS: 0}, f"{DRS} must be greater than 0: it is 0 in container c0"),
        ({DRS: -1}, f"{DRS} must be greater than 0: it is -1 in container c0"),
        ({MEMORY: 0, CORES: 10}, f"{MEMORY} must be greater than 0: it is 0 in container c0"),
        ({CORES: 0}, f"{CORES} must be in range (0,100]: it is 0 in container c0"),
        ({CORES: 101}, f"{CORES} must be in range (0,100]: it is 101 in container c0"),
    ],
)
def test_an_ask_for_nothing_or_too_much_is_denied_in_hamis_words(limits: dict[str, object], words: str) -> None:
    """With the value, and where it stands."""
    answer = answered(a_container_pod(limits))

    assert isinstance(answer, Deny)
    assert 500 == answer.code
    assert answer.message.startswith(words)


def test_what_stands_in_limits_or_requests_alone_is_written_in_both() -> None:
    """The API server wants them equal."""
    by_requests, by_limits = answered(a_container_pod(requests={MEMORY: 20})), answered(a_container_pod({DRS: 3}))

    assert isinstance(by_requests, Admit)
    assert isinstance(by_limits, Admit)
    assert [(MEMORY, "20")] == [change.limit for change in by_requests.changes if change.container]
    assert [(DRS, "3")] == [change.request for change in by_limits.changes if change.container]


def test_resources_that_nobody_reads_any_more_are_warned_of() -> None:
    """The pod is left alone, as HAMi leaves it."""
    answer = answered(a_container_pod({"enflame.com/vgcu": 1, "enflame.com/vgcu-percentage": 50}))

    assert isinstance(answer, Admit)
    assert (None, ()) == (answer.scheduler_name, answer.changes)
    assert [
        f"enflame.com/{name} is read by nobody: write {DRS} (slices of a card), or {MEMORY} and {CORES}"
        for name in ("vgcu", "vgcu-percentage")
    ] == list(answer.warnings)


def test_an_older_device_config_may_call_the_slices_vgcu() -> None:
    """Names that it lacks are those of the chart."""
    older = config.parse({"enflame": {"resourceNameGCU": GCU, "resourceNameVGCU": "enflame.com/vgcu"}})
    names = vendors.build(older, ascend=False, iluvatar=False).by_word("Enflame").resources

    assert ("enflame.com/vgcu", MEMORY, CORES) == (names.count, names.memory, names.cores)


# What nodes publish


def test_every_profile_can_be_had_of_every_card() -> None:
    """The largest is the card."""
    first, second = discovered(a_drs_node(number=2))

    assert ("n1-enflame-drs-0", "n1-enflame-drs-1") == (first.id, second.id)
    assert (6, 40960) == (first.slots, first.memory)
    assert [("1g.6gb", 1, 6144, 17), ("3g.20gb", 3, 20480, 50), ("6g.40gb", 6, 40960, 100)] == [
        (size.name, size.slices, size.memory, size.cores) for size in first.sizes
    ]


@pytest.mark.parametrize(
    ("name", "size"),
    [
        (" 3G.20GB ", (3, 20480)),
        ("3g.20gb.me", (3, 20480)),
        ("3g.much", None),
        ("g.20gb", None),
        ("20gb", None),
        ("-1g.20gb", None),
        (f"3g.{'9' * 5000}gb", None),
    ],
)
def test_a_profile_says_slices_and_memory(name: str, size: tuple[int, int] | None) -> None:
    """Spelled in any case; what follows a second dot is not read; without either number it gives no share."""
    (card,) = discovered(a_drs_node(profiles={name: "0", "6g.40gb": "1"}))

    assert [each for each in (size, (6, 40960)) if each] == [(s.slices, s.memory) for s in card.sizes]


def test_cards_without_memory_in_their_profiles_count_their_slices() -> None:
    """HAMi compat: nothing of them can be given."""
    (card,) = discovered(a_drs_node(profiles={"4g": "0", "4g.?": "1"}))

    assert (4096, ()) == (card.memory, card.sizes)


@pytest.mark.parametrize(
    ("listed", "index", "slots", "minor"),
    [
        ('{"index": "3", "minor": "13", "capacity": "4"}', 3, 4, "13"),
        ('{"index": 3, "capacity": 4.0}', 3, 4, "3"),
        ('{"index": "x", "capacity": 4}', 0, 4, "0"),
        ('{"capacity": 99999999999}', 0, 2**31 - 1, "0"),
    ],
)
def test_a_card_is_read_as_far_as_it_can_be(listed: str, index: int, slots: int, minor: str) -> None:
    """Numbers or texts; without an index its place counts."""
    (card,) = discovered(publishing(f'{{"devices": [{listed}], "profiles": {{"1g.6gb": "0"}}}}'))

    assert (index, slots, minor) == (card.index, card.slots, card.custom["minor"])


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "cannot be read"),
        ("[]", "cannot be read"),
        ('{"devices": [{"capacity": [1]}], "profiles": {"1g.6gb": "0"}}', r"cannot be read: .*\$\.devices"),
        ('{"devices": [{"capacity": 4}]}', "has profiles none: write such as 3g.20gb"),
        ('{"devices": [], "profiles": {"big": "0"}}', "has profiles big: write such as 3g.20gb"),
        ('{"devices": [], "profiles": {"1g.9999999gb": "0"}}', "has profiles 1g.9999999gb"),
        ('{"devices": [{"capacity": 0}], "profiles": {"1g.6gb": "0"}}', "a card 0 of capacity 0, no whole number"),
        ('{"devices": [{}], "profiles": {"1g.6gb": "0"}}', "a card 0 of capacity None, no whole number"),
        (
            '{"devices": [{"index": "1", "capacity": 1}, {"capacity": 1}], "profiles": {"1g.6gb": "0"}}',
            "lists a card twice: each needs an index of its own",
        ),
    ],
)
def test_a_list_that_makes_no_sense_is_said(text: str, sentence: str) -> None:
    """One sentence that names the annotation."""
    with pytest.raises(MalformedInventory, match=rf"{CAPACITY} .*{sentence}"):
        discovered(publishing(text))


def test_a_node_without_the_annotation_has_no_shared_cards() -> None:
    """Nothing is wrong with it."""
    assert () == discovered(msgspec.convert({"metadata": {"name": "n1"}}, Node))


# Which share is given


@pytest.mark.parametrize(
    ("amounts", "share"),
    [
        ({"slices": 3}, (20480, 50)),
        ({"slices": 1}, (6144, 17)),
        ({"memory": 20480, "cores": 40}, (20480, 50)),
        ({"memory": 20}, (20480, 50)),
        ({"memory": 7}, (20480, 50)),
        ({"memory": 6}, (6144, 17)),
        ({"memory": 6145}, (20480, 50)),
        ({"cores": 17}, (6144, 17)),
        ({"cores": 18}, (20480, 50)),
        ({"memory": 1, "cores": 100}, (40960, 100)),
    ],
)
def test_the_smallest_profile_that_has_so_much_is_given(amounts: dict[str, int], share: tuple[int, int]) -> None:
    """Slices want exactly so many."""
    assert [share] == given_to(placed(a_drs_fleet(a_drs_node()), asking(**amounts)))


@pytest.mark.parametrize("amounts", [{"slices": 2}, {"slices": 7}, {"memory": 41}, {"memory": 81}, {"memory": 40961}])
def test_where_no_profile_is_large_enough_the_node_says_so_once(amounts: dict[str, int]) -> None:
    """HAMi reads 81 as MiB where 40 GiB is the largest profile, and gives the smallest."""
    assert {"n1": "1/2 ModeNotFit"} == refused(a_drs_fleet(a_drs_node(number=2)), asking(**amounts))


def test_each_node_gives_its_own_profile() -> None:
    """Two slices are a share of one node, and none of the other."""
    four = {"1g.10gb": "0", "2g.20gb": "1", "4g.40gb": "2"}
    fleet = a_drs_fleet(a_drs_node(name="six"), a_drs_node(name="four", profiles=four, capacity=4))
    placement = placed(fleet, asking(slices=2))

    assert ("four", [(20480, 50)]) == (placement.node, given_to(placement))


def test_all_six_slices_of_a_card_are_given() -> None:
    """HAMi rounds each up to 17 percent, and the sixth finds no room."""
    six, seven = a_pod(), a_pod()
    for _ in range(6):
        six = six.asking(**{DRS: 1})
    for _ in range(7):
        seven = seven.asking(**{DRS: 1})
    fleet = a_drs_fleet(a_drs_node())

    assert [(6144, 17)] * 6 == given_to(placed(fleet, six))
    assert {"n1": "1/1 CardTimeSlicingExhausted"} == refused(fleet, seven)


@example(most=14, wanted=[13, 2])
@given(most=st.integers(1, 40), wanted=st.lists(st.integers(1, 40), min_size=1, max_size=12))
def test_no_card_gives_more_slices_than_it_has(most: int, wanted: list[int]) -> None:
    """Of up to ten slices every one is given; beyond, where rounding adds up, the last ones may stay free."""
    profiles = {f"{slices}g.1gb": str(slices) for slices in range(1, most)} | {f"{most}g.999gb": "x"}
    pod = a_pod()
    for slices in wanted:
        pod = pod.asking(**{DRS: slices})
    fits = isinstance(decided(a_drs_fleet(a_drs_node(profiles=profiles, capacity=1000)), pod), Placement)
    has_memory = most not in wanted or len(wanted) == 1

    assert sum(wanted) <= most or not fits
    if most <= 10 and has_memory:
        assert fits == (sum(wanted) <= most)


def test_a_namespaces_quota_counts_what_is_given() -> None:
    """HAMi sets slices, or GB, against MiB."""
    fleet = a_drs_fleet(a_drs_node())

    assert [(20480, 50)] == given_to(placed(fleet, asking(slices=3), quota={"Enflame": Room(memory=20480, cores=50)}))
    for room in (Room(memory=20479), Room(cores=49)):
        assert {"n1": "1/1 ResourceQuotaNotFit"} == refused(fleet, asking(slices=3), quota={"Enflame": room})


@pytest.mark.parametrize(
    ("amounts", "wanted"), [({"slices": 2}, "a share of 2 slices"), ({"memory": 50}, "a share of 51200 MiB and 0 %")]
)
def test_why_not_is_told_with_the_profiles_that_there_are(amounts: dict[str, int], wanted: str) -> None:
    """What was wanted, and what could be had."""
    fleet, pod = a_drs_fleet(a_drs_node()), asking(**amounts).pod()
    (verdict,) = explain(fleet, pod, pod_demand(pod, CATALOG), ["n1"], policies=for_pod(pod, Policies()))

    assert [(wanted, "shares of 1g.6gb, 3g.20gb, 6g.40gb")] == [(card.wanted, card.had) for card in verdict.cards]


def test_why_not_is_told_in_the_cores_of_the_share() -> None:
    """Three slices are 50 percent, and of six 102 are there, since each is rounded up."""
    fleet = a_drs_fleet(a_drs_node(profiles={"1g.1gb": "0", "3g.1gb": "1", "6g.40gb": "2"}))
    taking = a_pod().asking(**{DRS: 3}).asking(**{DRS: 1}).asking(**{DRS: 3}).pod()
    (verdict,) = explain(fleet, taking, pod_demand(taking, CATALOG), ["n1"], policies=for_pod(taking, Policies()))

    assert [("CardInsufficientCore", "50 %", "35 %")] == [(c.reason, c.wanted, c.had) for c in verdict.cards]


# What the plugin is told, and what is believed


def bound(builder: PodBuilder, node: Node) -> Pod:
    """Return the pod as it stands in the API server once bound."""
    pod, placement = builder.pod(), placed(a_drs_fleet(node), builder)
    allocation = Allocation(pod=PodRef.of(pod), node=placement.node, containers=placement.containers)
    written = allocation_annotations(CATALOG, allocation, pod, now=1)
    meta = structs.replace(pod.metadata, annotations=written)
    return structs.replace(pod, metadata=meta, spec=structs.replace(pod.spec, node_name=placement.node))


def test_the_plugin_is_told_profile_and_card() -> None:
    """Each container's profile; the card of the first one that has any."""
    pod = bound(a_pod().asking().asking(**{DRS: 3}).asking(**{MEMORY: 1}), a_drs_node(number=2))
    said = {key.removeprefix("enflame.com/"): value for key, value in pod.annotations.items() if "hami.io" not in key}
    profiles = msgspec.json.decode(said.pop("assigned-containers"))

    assert ";n1-enflame-drs-1,Enflame,20480,50:;n1-enflame-drs-0,Enflame,6144,17:;" == pod.annotations[ALLOCATED]
    assert {
        "gcu-assigned": "false",
        "gcu-assigned-time": "1000000000",
        "gcu-assigned-index": "1",
        "gcu-assigned-id": "1",
        "gcu-assigned-minor": "11",
        "gcu-request-size": "3",
    } == said
    assert {
        "c1": {"allocated": False, "request": 3, "profileID": "1", "profileName": "3g.20gb"},
        "c2": {"allocated": False, "request": 1, "profileID": "0", "profileName": "1g.6gb"},
    } == profiles


@pytest.mark.parametrize("amounts", [{"slices": 3}, {"memory": 7}, {"cores": 18}])
def test_what_was_written_is_believed_and_written_again_the_same(amounts: dict[str, int]) -> None:
    """A share is larger than what was asked for; whether or not its card is there at present."""
    node = a_drs_node()
    pod = bound(asking(**amounts), node)
    read = read_allocation(CATALOG, pod)

    assert read is not None
    assert Holding(allocation=read) == holding(pod, CATALOG, discovered(node)) == holding(pod, CATALOG, ())
    assert pod.annotations == allocation_annotations(CATALOG, read, pod, now=1)


def test_more_than_the_profile_is_not_believed() -> None:
    """Three slices are 20 GiB, whatever somebody wrote."""
    node = a_drs_node()
    pod = bound(asking(slices=3), node)
    forged = {**pod.annotations, ALLOCATED: "n1-enflame-drs-0,Enflame,40960,100:;"}
    held = holding(
        structs.replace(pod, metadata=structs.replace(pod.metadata, annotations=forged)), CATALOG, discovered(node)
    )

    assert isinstance(held, Holding)
    assert [(20480, 50)] == [(g.memory, g.cores) for c in held.allocation.containers for g in c.grants]
    assert "where the pod asks for 20480 MiB and 50 %" in held.complaints[0]


@pytest.mark.parametrize(("marked", "served"), [("false", False), ("true", True)])
def test_its_plugin_says_when_a_pod_is_served(marked: str, *, served: bool) -> None:
    """By its own annotation."""
    pod = a_pod().annotated({"enflame.com/gcu-assigned": marked}).pod()

    assert served == CATALOG.by_word("Enflame").confirmed(pod)
