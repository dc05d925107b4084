"""NVIDIA GPUs, shared by HAMi-core's limits in the container or cut with MIG."""

from hami_model import selectors
from hami_model.config import Nvidia
from hami_model.keys import is_served
from hami_model.objects import Pod
from hami_model.units import TRUE_WORDS
from hami_model.vendor import MUTEX_LOCK, AnnotationKeys, Constraints, ResourceNames, Selectors, Vendor
from hami_model.vendors.nvidia import partitions, topology
from hami_model.vendors.nvidia.admission import admit
from hami_model.vendors.nvidia.demand import demand
from hami_model.vendors.nvidia.discovery import discover

WORD = "NVIDIA"
MODE = "nvidia.com/vgpu-mode"
NUMA_BIND = "nvidia.com/numa-bind"


def vendor(config: Nvidia) -> Vendor:
    """Describe NVIDIA under the names of the device config."""
    return Vendor(
        word=WORD,
        resources=ResourceNames(
            count=config.resource_count_name,
            memory=config.resource_memory_name,
            cores=config.resource_core_name,
            percentage=config.resource_memory_percentage_name,
            priority=config.resource_priority_name,
            memory_factor=max(config.memory_factor, 1),
        ),
        keys=AnnotationKeys(
            register="hami.io/node-nvidia-register",
            handshake="hami.io/node-handshake",
            links="hami.io/node-nvidia-score",
            to_allocate="hami.io/vgpu-devices-to-allocate",
            allocated="hami.io/vgpu-devices-allocated",
            parts=partitions.KEY,
            cordon="hami.io/device-cordon",
        ),
        selectors=Selectors(
            use_model="nvidia.com/use-gputype",
            nouse_model="nvidia.com/nouse-gputype",
            use_uuid="nvidia.com/use-gpuuuid",
            nouse_uuid="nvidia.com/nouse-gpuuuid",
        ),
        lock=MUTEX_LOCK,
        runtime_class=config.runtime_class_name,
        served_by_us=True,
        partitions="MIG",
        settings=config,
        demand=demand,
        admit=admit,
        discover=discover,
        constraints=_constraints,
        annotations=partitions.written,
        confirmed=is_served,
        parts=partitions.parts,
        cuts=partitions.reserved,
        made=partitions.completed,
        checks=partitions.WITH_PARTITIONS,
        choose=topology.choose,
    )


def _constraints(vendor: Vendor, pod: Pod) -> Constraints:
    shared = selectors.constraints(vendor, pod)
    return Constraints(
        use_models=shared.use_models,
        nouse_models=shared.nouse_models,
        use_uuids=shared.use_uuids,
        nouse_uuids=shared.nouse_uuids,
        modes=pod.annotations.get(MODE),
        numa_bind=pod.annotations.get(NUMA_BIND) in TRUE_WORDS,
    )
