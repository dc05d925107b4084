"""The pods' device annotations, written for HAMi's plugins and read back tolerantly."""

from typing import Any

import msgspec
import pytest
from hami_model import config, vendors
from hami_model.allocation import Allocation, ContainerGrants, Grant
from hami_model.annotations import (
    MOST_BYTES,
    allocation_annotations,
    check_size,
    decode_pod,
    encode_pod,
    is_served,
    read_allocation,
)
from hami_model.demands import with_roles
from hami_model.errors import DomainError, MalformedAllocation
from hami_model.objects import Pod, PodRef
from hypothesis import given
from hypothesis import strategies as st

CATALOG = vendors.build(config.DEFAULTS, ascend=True, iluvatar=False)
ALLOCATED = "hami.io/vgpu-devices-allocated"
GPU = {"nvidia.com/gpu": "1"}


def a_pod(
    *limits: dict[str, str] | None, init: int = 0, annotations: dict[str, str] | None = None, node: str = ""
) -> Pod:
    """Make a pod with one container for each entry, the first ``init`` of them init containers."""
    containers: list[dict[str, Any]] = [
        {"name": f"c{at}", "resources": {"limits": each or {}}} for at, each in enumerate(limits)
    ]
    raw = {
        "metadata": {"namespace": "team-a", "name": "p", "uid": "u1", "annotations": annotations or {}},
        "spec": {"initContainers": containers[:init], "containers": containers[init:], "nodeName": node or None},
    }
    return msgspec.convert(raw, Pod)


def a_grant(uuid: str, memory: int = 3000, cores: int = 30, vendor: str = "NVIDIA", index: int | None = None) -> Grant:
    return Grant(uuid=uuid, vendor=vendor, memory=memory, cores=cores, index=index)


def given_to(pod: Pod, *grants: tuple[Grant, ...]) -> tuple[ContainerGrants, ...]:
    return tuple(
        ContainerGrants(name=container.name, role=role, grants=each)
        for (container, role), each in zip(with_roles(pod), grants, strict=True)
    )


def test_every_container_has_its_group() -> None:
    """A container without devices is a bare semicolon, so that positions count."""
    pod = a_pod(None, GPU, GPU)
    containers = given_to(
        pod, (), (a_grant("GPU-0"), a_grant("GPU-1")), (a_grant("GPU-0", 5000, 0), a_grant("U", vendor="MLU"))
    )

    assert ";GPU-0,NVIDIA,3000,30:GPU-1,NVIDIA,3000,30:;GPU-0,NVIDIA,5000,0:;" == encode_pod(containers, "NVIDIA")


@pytest.mark.parametrize(
    ("text", "uuids"),
    [
        ("A,NVIDIA,1,2:;B,NVIDIA,1,2:;", [["A"], ["B"]]),
        ("A,NVIDIA,1,2:;B,NVIDIA,1,2:;;;;", [["A"], ["B"]]),
        ("A,NVIDIA,1,2;B,NVIDIA,1,2", [["A"], ["B"]]),
        ("A,NVIDIA,1,2,more,fields:;", [["A"], []]),
        ("garbage:A,NVIDIA,1,2:;", [["A"], []]),
        (";A,NVIDIA,1,2:;", [[], ["A"]]),
        ("A[0-1],NVIDIA,1,2:A[0],NVIDIA,1,2:;", [["A", "A[0]"], []]),
        ("[0-1],NVIDIA,1,2:;", [["[0-1]"], []]),
        (";", [[], []]),
        ("", [[], []]),
    ],
)
def test_readers_forgive_what_hami_writes(text: str, uuids: list[list[str]]) -> None:
    """Missing separators at the end, further fields and empty groups carry no meaning.

    Before 2.10 a part of a partitioned card was named with its geometry and position: it is that card.
    """
    groups = decode_pod(text, "NVIDIA", a_pod(GPU, GPU))

    assert uuids == [[grant.uuid for grant in group] for group in groups]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("A,NVIDIA,1:;", "is no device: expected uuid,NVIDIA,MiB,percent"),
        (",NVIDIA,1,2:;", "is no device"),
        ("A,NVIDIA,-1,2:;", "expected whole numbers"),
        ("A,NVIDIA,1.5,2:;", "expected whole numbers"),
        ("A,NVIDIA,1,٣:;", "expected whole numbers"),
        ("A,NVIDIA,2147483648,2:;", "has a number above 2147483647"),
        ("A,NVIDIA,1,2:;;A,NVIDIA,1,2:;", "gives NVIDIA devices to 2 containers, 1 ask for them"),
    ],
)
def test_what_makes_no_sense_is_refused(text: str, complaint: str) -> None:
    """Nobody guesses at the meaning of a broken annotation."""
    with pytest.raises(MalformedAllocation, match=complaint.replace("(", "\\(")):
        decode_pod(text, "NVIDIA", a_pod(GPU))


@pytest.mark.parametrize(
    ("pod", "text", "uuids"),
    [
        (a_pod(None, GPU), "A,NVIDIA,1,2:;", [[], ["A"]]),
        (a_pod(GPU, None, GPU), "A,NVIDIA,1,2:;B,NVIDIA,1,2:;", [["A"], [], ["B"]]),
        (a_pod(None, GPU, init=1), "A,NVIDIA,1,2:;", [[], ["A"]]),
        (a_pod(GPU, None, GPU), "A,NVIDIA,1,2:;;B,NVIDIA,1,2:;", [["A"], [], ["B"]]),
    ],
)
def test_groups_that_hami_left_out_are_put_back(pod: Pod, text: str, uuids: list[list[str]]) -> None:
    """HAMi pads under the card's model instead of the vendor's word, so containers without cards lose their place."""
    bound = msgspec.structs.replace(
        pod,
        metadata=msgspec.structs.replace(pod.metadata, annotations={ALLOCATED: text}),
        spec=msgspec.structs.replace(pod.spec, node_name="node-1"),
    )

    allocation = read_allocation(CATALOG, bound)

    assert allocation is not None
    assert uuids == [[grant.uuid for grant in container.grants] for container in allocation.containers]


def test_an_unbound_pod_holds_nothing_whatever_its_annotations_say() -> None:
    """Annotations of pods without a node are a user's or an old scheduler's, and no fact."""
    assert read_allocation(CATALOG, a_pod(GPU, annotations={ALLOCATED: "A,NVIDIA,1,2:;"})) is None
    assert read_allocation(CATALOG, a_pod(GPU, node="node-1")) is None
    assert read_allocation(CATALOG, a_pod(GPU, node="node-1", annotations={ALLOCATED: ";"})) is None


def test_everything_hami_writes_at_filter_and_bind_is_written_at_once() -> None:
    """Node, times, phase and both device lists, for the vendors that the pod got and no other."""
    pod = a_pod(GPU, None)
    allocation = Allocation(pod=PodRef.of(pod), node="node-1", containers=given_to(pod, (a_grant("GPU-0"),), ()))

    assert {
        "hami.io/vgpu-node": "node-1",
        "hami.io/vgpu-time": "1700000000",
        "hami.io/bind-phase": "allocating",
        "hami.io/bind-time": "1700000000",
        "hami.io/vgpu-devices-to-allocate": "GPU-0,NVIDIA,3000,30:;;",
        ALLOCATED: "GPU-0,NVIDIA,3000,30:;;",
    } == allocation_annotations(CATALOG, allocation, pod, now=1700000000.9)


@pytest.mark.parametrize(
    ("mode", "runtime"),
    [
        ({}, '[{"UUID":"U0","temp":"vir01","memory":3072},{"UUID":"U1","memory":21527}]'),
        ({"huawei.com/vnpu-mode": "hami-core"}, '[{"UUID":"U0","memory":3072,"core":20},{"UUID":"U1","memory":21527}]'),
    ],
)
def test_ascend_adds_what_its_plugin_looks_up(mode: dict[str, str], runtime: str) -> None:
    """A template's name where the card is cut, memory and cores where it is shared in software."""
    pod = a_pod({"huawei.com/Ascend310P": "1"}, {"huawei.com/Ascend310P": "1"}, annotations=mode)
    cores = 20 if mode else 0
    slices = ((a_grant("U0", 3072, cores, "Ascend310P"),), (a_grant("U1", 21527, 0, "Ascend310P"),))
    allocation = Allocation(pod=PodRef.of(pod), node="node-1", containers=given_to(pod, *slices))

    written = allocation_annotations(CATALOG, allocation, pod, now=1700000000)

    assert runtime == written["huawei.com/Ascend310P"]
    assert "1700000000" == written["predicate-time"]


@pytest.mark.parametrize("index", [1, None])
def test_cambricon_adds_the_profile_of_the_first_card(index: int | None) -> None:
    """Its index on the node, cores, and memory in units of 256 MiB; the index is in the card's name where forgotten."""
    pod = a_pod({"cambricon.com/vmlu": "1"})
    card = a_grant("node-1-cambricon-mlu-1", 5120, 10, "MLU", index)
    allocation = Allocation(pod=PodRef.of(pod), node="node-1", containers=given_to(pod, (card,)))

    written = allocation_annotations(CATALOG, allocation, pod, now=1700000000)

    assert "1_10_20" == written["CAMBRICON_DSMLU_PROFILE"]
    assert "false" == written["CAMBRICON_DSMLU_ASSIGNED"]


def test_each_vendor_says_in_its_own_way_that_it_has_served_the_pod() -> None:
    """NVIDIA and Ascend move the bind phase, Cambricon flips its own mark."""
    served = a_pod(GPU, annotations={"hami.io/bind-phase": "success"})
    assigned = a_pod(GPU, annotations={"CAMBRICON_DSMLU_ASSIGNED": "true"})

    assert is_served(served)
    assert [True, False, True] == [CATALOG.by_word(w).confirmed(served) for w in ("NVIDIA", "MLU", "Ascend310P")]
    assert [False, True, False] == [CATALOG.by_word(w).confirmed(assigned) for w in ("NVIDIA", "MLU", "Ascend310P")]


def test_annotations_that_the_api_server_would_refuse_are_refused_before() -> None:
    """A Binding merges them into the pod unchecked, and a pod with too much in it can never be written again."""
    check_size({"a": "1"}, {"hami.io/vgpu-node": "node-1", "CAMBRICON_DSMLU_ASSIGNED": "false"})
    with pytest.raises(DomainError, match="is no Kubernetes name"):
        check_size({}, {"hami.io/My Chip-devices-allocated": ""})
    with pytest.raises(DomainError, match="more than the 262144 allowed"):
        check_size({"a": "x" * (MOST_BYTES - 10)}, {"hami.io/vgpu-node": "node-1"})


uuids = st.text(st.characters(exclude_characters=",:;", exclude_categories=["Cs"]), min_size=1, max_size=20)
grants = st.builds(
    a_grant, uuids, st.integers(0, 2**31 - 1), st.integers(0, 100), st.sampled_from(CATALOG.words)
)  # fmt: skip


@given(st.lists(st.lists(grants, max_size=4), min_size=1, max_size=5))
def test_what_is_written_is_read_back(containers: list[list[Grant]]) -> None:
    """Every allocation survives its annotations, vendor by vendor and container by container."""
    pod = a_pod(*(None for _ in containers))
    written = given_to(pod, *(tuple(each) for each in containers))

    for word in CATALOG.words:
        expected = tuple(tuple(g for g in each if g.vendor == word) for each in containers)
        assert expected == decode_pod(encode_pod(written, word), word, pod)


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    """A user may write what he likes into the annotations of his pod."""
    pod = a_pod(GPU, GPU)
    try:
        groups = decode_pod(text, "NVIDIA", pod)
    except MalformedAllocation:
        return
    assert 2 == len(groups)
