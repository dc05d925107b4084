"""MetaX GPUs: what limits and annotations mean, who shares a card with whom, and which cards and nodes are taken."""

import json
from collections.abc import Mapping
from typing import Any

import msgspec
import pytest
from hami_model import config, vendors
from hami_model.admission import Admit, Deny, admit
from hami_model.allocation import Allocation
from hami_model.annotations import allocation_annotations
from hami_model.charge import charge
from hami_model.demands import pod_demand
from hami_model.errors import BadDemand, MalformedInventory
from hami_model.fleet import Fleet
from hami_model.holding import holding
from hami_model.objects import Node, Pod, PodRef
from hami_model.place import Placement, Unfit, place
from hami_model.policies import Policies, for_pod
from hami_model.request import Demand, Exactly, Whole
from hami_testkit.builders import PodBuilder, a_pod
from hami_testkit.deciding import cards
from msgspec import structs

CATALOG = vendors.build(config.DEFAULTS, ascend=True, iluvatar=True)
WHOLE, SHARED = CATALOG.by_word("Metax-GPU"), CATALOG.by_word("Metax-SGPU")
GPU, SGPU, MEMORY, CORES = (f"metax-tech.com/{name}" for name in ("gpu", "sgpu", "vmemory", "vcore"))
CLASS, QOS = "metax-tech.com/sgpu-app-class", "metax-tech.com/sgpu-qos-policy"
ONLINE, OFFLINE, FIXED = {CLASS: "online"}, {CLASS: "offline"}, {QOS: "fixed-share"}
A_SHARE = {SGPU: 1, MEMORY: 4, CORES: 20}


class Node1:
    """One node of shared cards, with pods coming and going."""

    def __init__(self, *zones: int, **facts: object) -> None:
        listed = [
            {"uuid": f"G{at}", "totalDevCount": 16, "totalCompute": 100, "totalVRam": 65536, "healthy": True,
             "linkZone": zone, **facts}
            for at, zone in enumerate(zones)
        ]  # fmt: skip
        self.node = a_node("n", {"metax-tech.com/node-gpu-devices": json.dumps(listed)})
        self.devices = list(SHARED.discover(SHARED, self.node))
        self.fleet = Fleet(CATALOG)
        self.fleet.set_node(self.node)
        self.fleet.set_devices("n", SHARED.word, self.devices)

    def comes(self, builder: PodBuilder, notes: Mapping[str, str] | None = None) -> list[list[str]]:
        """Place a pod and book it; return its cards by container."""
        pod = builder.annotated(notes or {}).pod()
        outcome = self.asks(pod)
        assert isinstance(outcome, Placement), outcome
        allocation = Allocation(pod=PodRef.of(pod), node="n", containers=outcome.containers)
        self.fleet.charge("n", charge(allocation, pod))
        return cards(outcome.containers)

    def refuses(self, builder: PodBuilder, notes: Mapping[str, str] | None = None) -> str:
        """Return why the node does not take a pod."""
        outcome = self.asks(builder.annotated(notes or {}).pod())
        assert isinstance(outcome, Unfit)
        (text,) = outcome.reasons
        return text

    def asks(self, pod: Pod) -> Placement | Unfit:
        """Ask for a place."""
        return place(self.fleet, pod, pod_demand(pod, CATALOG), ["n"], policies=for_pod(pod, Policies()))


def a_node(name: str, annotations: Mapping[str, str], capacity: Mapping[str, object] = {}) -> Node:
    raw = {"metadata": {"name": name, "annotations": annotations}, "status": {"capacity": capacity}}
    return msgspec.convert(raw, Node)


def a_share(name: str = "p", **more: int) -> PodBuilder:
    return a_pod(name).asking(**(A_SHARE | more))


# Asking


@pytest.mark.parametrize(
    ("limits", "memory", "cores"),
    [
        ({SGPU: 1}, Whole(), 100),
        ({SGPU: 1, MEMORY: "0"}, Whole(), 100),
        ({SGPU: 1, MEMORY: "4", CORES: "60"}, Exactly(4096), 60),
        ({SGPU: 1, MEMORY: "1k"}, Exactly(1024000), 100),
        ({SGPU: 1, MEMORY: "2048Mi"}, Exactly(2048), 100),
        ({SGPU: 1, MEMORY: "16G"}, Exactly(15258), 100),
    ],
)
def test_a_bare_number_counts_gib_and_one_with_a_suffix_bytes(
    limits: dict[str, Any], memory: Exactly | Whole, cores: int
) -> None:
    """The API server writes thousands of anything with a k: those are GiB."""
    pod = msgspec.convert({"spec": {"containers": [{"name": "c0", "resources": {"limits": limits}}]}}, Pod)
    (container,) = pod_demand(pod, CATALOG)

    assert (Demand(vendor="Metax-SGPU", count=1, memory=memory, cores=cores),) == container.demands


@pytest.mark.parametrize("memory", ["512Ki", "1500m", "-4"])
def test_memory_that_cannot_be_meant_is_refused(memory: str) -> None:
    """HAMi would give the whole card."""
    limits = {SGPU: 1, MEMORY: memory}
    pod = msgspec.convert({"spec": {"containers": [{"name": "c0", "resources": {"limits": limits}}]}}, Pod)
    with pytest.raises(BadDemand) as refusal:
        pod_demand(pod, CATALOG)

    assert (
        f"{MEMORY} {memory} in container c0 cannot be read: write whole GiB, such as 4, or bytes with a suffix, "
        "such as 4Gi or 512Mi" == str(refusal.value)
    )


@pytest.mark.parametrize(
    ("limits", "notes", "words"),
    [
        (A_SHARE, {QOS: "gold"}, f"{QOS} must be set one of [best-effort, fixed-share, burst-share]: it is 'gold'"),
        (A_SHARE, {CLASS: "batch"}, f"{CLASS} must be set one of [online, offline]: it is 'batch'"),
        ({SGPU: 2}, ONLINE, "app-class pod must request single device: container main asks for 2"),
    ],
)
def test_classes_and_qos_that_are_none_are_refused(limits: dict[str, int], notes: dict[str, str], words: str) -> None:
    """In HAMi's words, with what stands there."""
    pod = msgspec.convert(
        {
            "metadata": {"annotations": notes},
            "spec": {"containers": [{"name": "main", "resources": {"limits": limits}}]},
        },
        Pod,
    )
    answer = admit(pod, CATALOG, scheduler_name="hami-scheduler", force_overwrite=True)

    assert isinstance(answer, Deny)
    assert answer.message.startswith(words)


@pytest.mark.parametrize(
    ("limits", "warning"),
    [
        (
            {MEMORY: "4096"},
            f"asks for 4096 GiB of {MEMORY}, more than any card has: a bare number counts GiB, for MiB write 4096Mi",
        ),
        ({CORES: "150"}, f"asks for 150 of {CORES}, more than a card has: write at most 100"),
    ],
)
def test_more_than_a_card_has_is_warned_of(limits: dict[str, object], warning: str) -> None:
    """The pod is taken as HAMi takes it, and waits for ever."""
    pod = msgspec.convert({"spec": {"containers": [{"name": "c0", "resources": {"limits": {SGPU: 1, **limits}}}]}}, Pod)
    answer = admit(pod, CATALOG, scheduler_name="hami-scheduler", force_overwrite=True)

    assert isinstance(answer, Admit)
    assert (f"container c0 {warning}",) == answer.warnings


# What nodes say


@pytest.mark.parametrize(
    "text",
    [
        '[{"uuid":"a"},{"uuid":"a"}]',
        '[{"uuid":"a,b"}]',
        '{"uuid":"a"}',
        "no json",
        '[{"uuid":"a","more":' + "[" * 50_000,
    ],
    ids=["twice", "separator", "no list", "no json", "nested without end"],
)
def test_cards_that_cannot_be_read_are_a_malformed_inventory(text: str) -> None:
    """The annotation and the node are named."""
    with pytest.raises(MalformedInventory) as refusal:
        SHARED.discover(SHARED, a_node("n", {"metax-tech.com/node-gpu-devices": text}))

    assert str(refusal.value).startswith("metax-tech.com/node-gpu-devices of node n ")


# Sharing


def test_shares_of_a_card_have_one_qos() -> None:
    """That of the pods on it, whatever the node says."""
    node = Node1(0, qosPolicy="burst-share")
    node.comes(a_share("first"), FIXED)

    assert "1/1 CardQosPolicyMismatch" == node.refuses(a_share("other"))
    assert [["G0"]] == node.comes(a_share("same"), FIXED)


def test_a_card_that_is_idle_again_takes_any_qos() -> None:
    """Nobody remembers what it was."""
    node = Node1(0)
    pod = a_share("first").annotated(FIXED).pod()
    outcome = node.asks(pod)
    assert isinstance(outcome, Placement)
    cost = charge(Allocation(pod=PodRef.of(pod), node="n", containers=outcome.containers), pod)
    node.fleet.charge("n", cost)
    node.fleet.discharge("n", cost)

    assert [["G0"]] == node.comes(a_share("other"))


def test_a_pod_with_all_cores_leaves_no_qos() -> None:
    """Others are refused for its cores."""
    node = Node1(0)
    node.comes(a_share("all", **{CORES: 100}), FIXED)

    assert "1/1 CardInsufficientCore" == node.refuses(a_share("other"))


def test_classes_keep_to_themselves() -> None:
    """A pod without one joins none with one; an offline pod joins none that is online, but not the other way round."""
    node = Node1(0)
    node.comes(a_share("quiet"), OFFLINE)

    assert "1/1 CardAppClassMismatch" == node.refuses(a_share("plain"))
    assert [["G0"]] == node.comes(a_share("loud"), ONLINE)
    assert "1/1 CardAppClassMismatch" == node.refuses(a_share("late"), OFFLINE)


def test_an_online_pod_books_no_cores() -> None:
    """Whatever it asks for; it finds room where all cores are booked."""
    node = Node1(0)
    node.comes(a_share("quiet", **{CORES: 100}), OFFLINE)
    node.comes(a_share("loud", **{CORES: 80}), ONLINE)

    assert 100 == int(node.fleet.cards["Metax-SGPU"].used_cores[0])


def test_containers_of_one_online_pod_may_share_a_card() -> None:
    """HAMi takes the first for a stranger of the second."""
    assert [["G0"], ["G0"]] == Node1(0).comes(a_share().asking(**A_SHARE), ONLINE)


def test_an_online_pod_goes_where_fewest_are() -> None:
    """A card with offline pods alone comes last."""
    node = Node1(0, 0, 0)
    first = node.comes(a_share("quiet"), OFFLINE)
    second, third, fourth = (node.comes(a_share(f"loud-{at}"), ONLINE) for at in range(3))

    assert sorted(["G0", "G1", "G2"]) == sorted(first[0] + second[0] + third[0])
    assert fourth != first


def test_a_restart_knows_who_is_on_a_card() -> None:
    """Class and QoS are read from the pods again."""
    node = Node1(0)
    pod = a_share("quiet").annotated(OFFLINE | FIXED).pod()
    outcome = node.asks(pod)
    assert isinstance(outcome, Placement)
    allocation = Allocation(pod=PodRef.of(pod), node="n", containers=outcome.containers)
    written = allocation_annotations(CATALOG, allocation, pod, now=1735689600.5)
    bound = structs.replace(
        pod,
        metadata=structs.replace(pod.metadata, annotations={**pod.annotations, **written}),
        spec=structs.replace(pod.spec, node_name="n"),
    )
    found = holding(bound, CATALOG, node.devices)
    assert found.allocation is not None

    assert charge(allocation, pod) == charge(found.allocation, bound)
    assert '[[{"uuid":"G0","compute":20,"vRam":4096}]]' == written["metax-tech.com/gpu-devices-allocated"]


# Choosing


def all_cores(count: int) -> PodBuilder:
    return a_pod("p").asking(**{SGPU: count})


@pytest.mark.parametrize(
    ("zones", "count", "taken"),
    [
        ((1, 1, 2, 2, 2), 2, {"G0", "G1"}),
        ((1, 1, 2), 1, {"G2"}),
        ((1, 1, 2, 2, 2), 4, {"G0", "G1", "G3", "G4"}),
        ((0, 0, 1, 1, 1), 4, {"G2", "G3", "G4", "G1"}),
    ],
)
def test_whole_shares_are_taken_zone_by_zone(zones: tuple[int, ...], count: int, taken: set[str]) -> None:
    """The smallest zone that has enough, else zone after zone, and cards of none at last."""
    (found,) = Node1(*zones).comes(all_cores(count))

    assert taken == set(found)


def whole_nodes(**tables: Mapping[str, str]) -> Fleet:
    fleet = Fleet(CATALOG)
    for name, annotations in tables.items():
        node = a_node(name, annotations, {GPU: 4})
        fleet.set_node(node)
        fleet.set_devices(name, WHOLE.word, list(WHOLE.discover(WHOLE, node)))
    return fleet


@pytest.mark.parametrize(("policy", "node"), [("binpack", "better"), ("spread", "silent")])
def test_the_node_is_chosen_by_what_its_cards_are_worth(policy: str, node: str) -> None:
    """Little loss under binpack; under spread a node that says nothing comes first, one that cannot be read last."""
    losses, scores = "metax-tech.com/gpu.topology.losses", "metax-tech.com/gpu.topology.scores"
    fleet = whole_nodes(
        broken={losses: "no json", scores: "no json"},
        worse={losses: '{"2":110}', scores: '{"2":20}'},
        better={losses: '{"2":20}', scores: '{"2":110}'},
        silent={},
    )
    pod = a_pod("p").asking(**{GPU: 2}).annotated({"hami.io/node-scheduler-policy": policy}).pod()
    names = ["broken", "worse", "better", "silent"]
    outcome = place(fleet, pod, pod_demand(pod, CATALOG), names, policies=for_pod(pod, Policies()))

    assert isinstance(outcome, Placement)
    assert node == outcome.node
    assert outcome.scores["broken"] == min(outcome.scores.values())


def test_two_containers_get_a_whole_card_each() -> None:
    """HAMi wants one card for both, which takes only one."""
    pod = a_pod("p").asking(**{GPU: 1}).asking(**{GPU: 1}).pod()
    outcome = place(whole_nodes(n={}), pod, pod_demand(pod, CATALOG), ["n"], policies=for_pod(pod, Policies()))

    assert isinstance(outcome, Placement)
    assert [["n-metax-3"], ["n-metax-2"]] == cards(outcome.containers)
