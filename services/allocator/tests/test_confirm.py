"""What a served pod still lacks."""

from hami_allocator.confirm import confirmation
from hami_model.allocation import Allocation, ContainerGrants, Grant
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


def test_a_node_name_too_long_for_a_label_gets_none(bench: Bench) -> None:
    """HAMi's filter fails on such a node."""
    pod = bound({TO_ALLOCATE: ";", PHASE: "success"})

    assert not confirmation(pod, granted(pod, "n" * 64), bench.world.catalog)
