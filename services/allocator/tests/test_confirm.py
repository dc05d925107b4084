"""What a served pod still lacks."""

import json
from typing import Any

import pytest
from hami_allocator.confirm import confirmation
from hami_model.allocation import Allocation, ContainerGrants, Cut, Grant, MadeInstance
from hami_model.device import Placement
from hami_model.objects import Pod, PodRef
from hami_model.request import Role
from msgspec import structs

from .conftest import Bench, a_pod

TO_ALLOCATE = "hami.io/vgpu-devices-to-allocate"
PHASE = "hami.io/bind-phase"


def granted(pod: Pod, node: str = "node-1") -> Allocation:
    grant = Grant(uuid="GPU-0", vendor="NVIDIA", memory=1000, cores=0)
    return Allocation(
        pod=PodRef.of(pod), node=node, containers=(ContainerGrants(name="main", role=Role.APP, grants=(grant,)),)
    )


def bound(annotations: dict[str, str], labels: dict[str, str] | None = None) -> Pod:
    pod = a_pod("p")
    meta = structs.replace(pod.metadata, annotations=annotations, labels=labels)
    return structs.replace(pod, metadata=meta, spec=structs.replace(pod.spec, node_name="node-1"))


def test_a_pod_that_only_we_have_confirmed_lacks_everything(bench: Bench) -> None:
    """The phase, the emptied list, the label that HAMi's monitor selects by."""
    pod = bound({TO_ALLOCATE: "GPU-0,NVIDIA,1000,0:;", PHASE: "allocating"})
    lacking = confirmation(pod, granted(pod), bench.world.catalog)

    assert {TO_ALLOCATE: ";", PHASE: "success"} == lacking.annotations
    assert {"hami.io/vgpu-node": "node-1"} == lacking.labels


def test_a_pod_that_its_plugin_has_confirmed_lacks_the_label(bench: Bench) -> None:
    """HAMi's plugin empties the list itself."""
    pod = bound({TO_ALLOCATE: ";", PHASE: "success"})
    lacking = confirmation(pod, granted(pod), bench.world.catalog)

    assert {} == lacking.annotations
    assert lacking.labels


def test_a_pod_that_has_everything_is_not_written_again(bench: Bench) -> None:
    """The watch shows it again and again."""
    pod = bound({TO_ALLOCATE: ";", PHASE: "success"}, {"hami.io/vgpu-node": "node-1"})

    assert not confirmation(pod, granted(pod), bench.world.catalog)


def test_a_confirmation_before_the_watch_shows_the_pod_bound_empties_the_list_too(bench: Bench) -> None:
    """Our view is older than the Binding that wrote the list."""
    pod = a_pod("p")

    assert ";" == confirmation(pod, granted(pod), bench.world.catalog).annotations[TO_ALLOCATE]


PIECES = "hami.io/vgpu-mig-allocations"
RESERVED = (
    '[{"containerIndex":0,"deviceIndex":0,"gpuUUID":"GPU-0","profile":"1g.5gb","placement":{"start":6,"size":1}},'
    '{"containerIndex":0,"deviceIndex":1,"gpuUUID":"GPU-0","profile":"1g.5gb","placement":{"start":5,"size":1}}]'
)
MADE = MadeInstance(container="main", place=1, device="GPU-0", uuid="MIG-9", gpu_instance=4, compute_instance=0)


def with_instances(pod: Pod) -> Allocation:
    cuts = [Cut(profile="1g.5gb", placement=Placement(start, 1)) for start in (6, 5)]
    grants = tuple(Grant(uuid="GPU-0", vendor="NVIDIA", memory=1, cores=0, cuts=(cut,)) for cut in cuts)
    containers = (ContainerGrants(name="main", role=Role.APP, grants=grants),)
    return Allocation(pod=PodRef.of(pod), node="node-1", containers=containers)


@pytest.mark.parametrize("shown", [RESERVED, "", "[", "[" * 9999], ids=["as bound", "not seen yet", "broken", "deep"])
def test_what_the_node_has_made_is_added_to_what_was_reserved(bench: Bench, shown: str) -> None:
    """As HAMi's plugin writes it; an instance that nobody has told of keeps its reservation alone."""
    pod = bound({PIECES: shown, PHASE: "success"})
    lacking = confirmation(pod, with_instances(pod), bench.world.catalog, [MADE])
    first, second = json.loads(lacking.annotations[PIECES])

    assert pod.metadata.resource_version == lacking.version
    assert json.loads(RESERVED)[0] == first
    assert {**json.loads(RESERVED)[1], "migUUID": "MIG-9", "gpuInstanceID": 4, "computeInstanceID": 0} == second


def test_what_the_pod_says_already_is_not_written_again(bench: Bench) -> None:
    """Agents say it again to each new leader."""
    pod = bound({PIECES: RESERVED, PHASE: "success"})
    written = confirmation(pod, with_instances(pod), bench.world.catalog, [MADE]).annotations
    again = bound({**written, PHASE: "success"})
    lacking = confirmation(again, with_instances(again), bench.world.catalog, [MADE])

    assert ({}, None) == (lacking.annotations, lacking.version)


@pytest.mark.parametrize("wrong", [{"device": "GPU-1"}, {"container": "other"}, {"place": 7}])
def test_an_instance_that_was_not_reserved_is_nobodys(bench: Bench, wrong: dict[str, Any]) -> None:
    """An agent adds to what the pod was promised and to nothing else."""
    pod = bound({PIECES: RESERVED, PHASE: "success"})
    told = structs.replace(MADE, **wrong)

    assert {} == confirmation(pod, with_instances(pod), bench.world.catalog, [told]).annotations


def test_a_node_name_too_long_for_a_label_gets_none(bench: Bench) -> None:
    """HAMi's filter fails on such a node."""
    pod = bound({TO_ALLOCATE: ";", PHASE: "success"})

    assert not confirmation(pod, granted(pod, "n" * 64), bench.world.catalog)
