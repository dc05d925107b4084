"""The fleet's page, compared with HAMi's table of names and labels (scheduling spec §11)."""

import re

import pytest
from hami_allocator.metrics_page import (
    MigInstance,
    QuotaUse,
    Sample,
    container_samples,
    mig_samples,
    node_samples,
    page,
    quota_samples,
)
from hami_model.allocation import Allocation, ContainerGrants, Grant, State
from hami_model.bus.messages import Booking, DeviceUse, NodeUse
from hami_model.device import Device, Placement
from hami_model.objects import PodRef
from hami_model.request import Role
from msgspec import structs
from prometheus_client.parser import text_string_to_metric_families

CARD = "node device_uuid device_index device_type zone"
OLD = "nodeid deviceuuid deviceidx"
TABLE = {
    "hami_gpu_memory_limit_bytes": CARD,
    "hami_gpu_core_limit_ratio": CARD,
    "hami_gpu_memory_allocated_bytes": CARD + " device_cores",
    "hami_gpu_shared_count": CARD,
    "hami_gpu_core_allocated_ratio": CARD,
    "hami_node_gpu_overview": CARD + " device_cores device_memory_limit",
    "hami_node_gpu_memory_allocated_ratio": CARD,
    "hami_node_gpu_mig_instance_info": "node device_uuid device_index mig_uuid profile gpu_instance_id "
    "compute_instance_id placement_start placement_size zone",
    "hami_resource_quota_used": "namespace quota_name limit zone",
    "hami_resource_quota_limit": "namespace quota_name zone",
    "hami_vgpu_memory_allocated_bytes": "namespace node pod container_index device_uuid zone",
    "hami_vgpu_core_allocated_ratio": "namespace node pod container_index device_uuid zone",
}
LEGACY = {
    "GPUDeviceMemoryLimit": OLD + " devicetype zone",
    "GPUDeviceCoreLimit": OLD + " devicetype zone",
    "GPUDeviceMemoryAllocated": OLD + " devicetype devicecores zone",
    "GPUDeviceSharedNum": OLD + " devicetype zone",
    "GPUDeviceCoreAllocated": OLD + " devicetype zone",
    "nodeGPUOverview": OLD + " devicecores devicememorylimit devicetype zone",
    "nodeGPUMemoryPercentage": OLD + " zone",
    "nodeGPUMigInstance": OLD + " migname zone",
    "QuotaUsed": "quotanamespace quotaName limit zone",
    "vGPUMemoryAllocated": "podnamespace nodename podname containeridx deviceuuid zone",
    "vGPUCoreAllocated": "podnamespace nodename podname containeridx deviceuuid zone",
}

NODE = NodeUse(
    node="node-1",
    devices=[
        DeviceUse(
            device=Device(id="GPU-0", vendor="NVIDIA", slots=10, memory=8000, cores=100, model='A "40"', index=1),
            used_slots=2,
            used_memory=2000,
            used_cores=30,
        )
    ],
)
BOOKING = Booking(
    allocation=Allocation(
        pod=PodRef("team-a", "p", "u"),
        node="node-1",
        containers=(
            ContainerGrants(name="init", role=Role.INIT),
            ContainerGrants(
                name="main", role=Role.APP, grants=(Grant(uuid="GPU-0", vendor="NVIDIA", memory=2000, cores=30),)
            ),
        ),
    ),
    state=State.BOUND,
)
QUOTA = QuotaUse(namespace="team-a", name="nvidia.com/gpumem", used=2000, limit=4000)
MIG = MigInstance(
    gpu="GPU-0", profile="2g.10gb", placement=Placement(0, 2), mig="MIG-1", gpu_instance=0, compute_instance=0
)


def samples(*, legacy: bool) -> list[Sample]:
    return [
        *node_samples([NODE], legacy=legacy),
        *mig_samples(NODE, [MIG], legacy=legacy),
        *quota_samples([QUOTA], legacy=legacy),
        *container_samples([BOOKING], legacy=legacy),
    ]


def text_of(samples: list[Sample]) -> str:
    return b"".join(page(samples).texts()).decode()


@pytest.mark.parametrize("legacy", [False, True])
def test_every_name_and_label_of_hamis_table_is_there_and_no_other(legacy: bool) -> None:
    """Dashboards made for HAMi keep working; the old names come only when asked for."""
    families = text_string_to_metric_families(text_of(samples(legacy=legacy)))
    found = {s.name: set(s.labels) for family in families for s in family.samples}
    table = TABLE | (LEGACY if legacy else {})

    assert {name: set(labels.split()) for name, labels in table.items()} == found


def test_values_are_bytes_percent_and_shares() -> None:
    """Memory is kept in MiB and shown in bytes; the index is the container's real one."""
    found = {s.name: s for s in samples(legacy=False)}

    assert 8000 * 2**20 == found["hami_gpu_memory_limit_bytes"].value
    assert 0.25 == found["hami_node_gpu_memory_allocated_ratio"].value
    assert 'container_index="1"' in found["hami_vgpu_memory_allocated_bytes"].labels
    assert 2 == found["hami_gpu_shared_count"].value
    assert 2000 == found["hami_resource_quota_used"].value


def test_labels_are_escaped_and_every_family_stands_together() -> None:
    """What a driver calls its card may hold quotes; Prometheus reads it all the same."""
    text = text_of(samples(legacy=False))

    assert 'device_type="A \\"40\\""' in text
    assert sorted(set(re.findall(r"# TYPE (\S+)", text))) == sorted(re.findall(r"# TYPE (\S+)", text))


def test_a_pod_and_its_namesake_on_its_way_out_are_one_line() -> None:
    """A StatefulSet's pod is made again while the old one still holds devices; Prometheus takes a line once."""
    older = structs.replace(BOOKING.allocation, pod=structs.replace(BOOKING.allocation.pod, uid="older"))
    both = [BOOKING, structs.replace(BOOKING, allocation=older)]
    alone = {s.name: s.value for s in container_samples([BOOKING], legacy=True)}

    found = [(s.name, s.value) for s in container_samples(both, legacy=True)]

    assert sorted((name, 2 * value) for name, value in alone.items()) == sorted(found)


def test_an_instance_that_the_node_has_not_made_is_not_shown() -> None:
    """The scheduler reserves a placement; the node makes the instance later."""
    assert [] == list(mig_samples(NODE, [MigInstance(gpu="GPU-0", profile="2g.10gb")], legacy=False))
