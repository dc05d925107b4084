"""The fleet in Prometheus' text format, under HAMi's names.

One rule: joined strings. prometheus-client would hold the interpreter for seconds at 40,000 cards. Knows values only:
``…_samples`` turn a snapshot into samples, ``page`` samples into text. HAMi compat: scheduling spec §11.
"""

from collections.abc import Iterable, Iterator, Sequence

from hami_kit.pages import Packed, Packer
from hami_model.bus.messages import Booking, DeviceUse, NodeUse
from hami_model.device import Placement
from msgspec import Struct, field

MIB = 1024 * 1024
ZONE = ("zone", "vGPU")
LINES = 500
"""Lines of one metric that are joined at once."""

Labels = str
"""Labels as they stand in the text: written once for all samples of a card."""


class QuotaUse(Struct, frozen=True, kw_only=True):
    """One limit of one namespace as the metrics show it; ``limit`` None = used, but not limited."""

    namespace: str
    name: str
    used: int
    limit: int | None = None


class MigInstance(Struct, frozen=True, kw_only=True):
    """One entry of ``hami.io/vgpu-mig-allocations``; the node fills in the last three when it has made the instance."""

    gpu: str = field(name="gpuUUID", default="")
    profile: str = ""
    placement: Placement = Placement(start=0, size=0)
    mig: str = field(name="migUUID", default="")
    gpu_instance: int | None = field(name="gpuInstanceID", default=None)
    compute_instance: int | None = field(name="computeInstanceID", default=None)


class Sample(Struct, frozen=True):
    """One line of the page."""

    name: str
    labels: Labels
    value: float | int


HELP = {
    "hami_gpu_memory_limit_bytes": "Device memory limit",
    "hami_gpu_core_limit_ratio": "Device core limit, percent",
    "hami_gpu_memory_allocated_bytes": "Device memory allocated",
    "hami_gpu_shared_count": "Number of containers sharing this device",
    "hami_gpu_core_allocated_ratio": "Device cores allocated, percent",
    "hami_node_gpu_overview": "Device memory allocated, with the card's cores and memory limit as labels",
    "hami_node_gpu_memory_allocated_ratio": "Share of the device's memory that is allocated, 0..1",
    "hami_node_gpu_mig_instance_info": "MIG instances made on a card",
    "hami_resource_quota_used": "Device quota used by a namespace",
    "hami_resource_quota_limit": "Device quota limit of a namespace",
    "hami_vgpu_memory_allocated_bytes": "Device memory allocated to a container",
    "hami_vgpu_core_allocated_ratio": "Device cores allocated to a container, percent",
    "hami_allocator_drifting_devices": "Devices of which allocations hold more than their node lists at present",
    "hami_allocator_unconfirmed_pods": "Pods bound for five minutes whose devices nobody has handed out",
    "GPUDeviceMemoryLimit": "Device memory limit (legacy name)",
    "GPUDeviceCoreLimit": "Device core limit (legacy name)",
    "GPUDeviceMemoryAllocated": "Device memory allocated (legacy name)",
    "GPUDeviceSharedNum": "Number of containers sharing this device (legacy name)",
    "GPUDeviceCoreAllocated": "Device cores allocated (legacy name)",
    "nodeGPUOverview": "Device overview of a node (legacy name)",
    "nodeGPUMemoryPercentage": "Share of the device's memory that is allocated (legacy name)",
    "nodeGPUMigInstance": "MIG instances made on a card (legacy name)",
    "QuotaUsed": "Device quota used by a namespace (legacy name)",
    "vGPUMemoryAllocated": "Device memory allocated to a container (legacy name)",
    "vGPUCoreAllocated": "Device cores allocated to a container (legacy name)",
}


def page(samples: Iterable[Sample], *, before: str = "") -> Packed:
    """Return the text, each metric under its HELP and TYPE, in the order of first mention."""
    packer = Packer()
    packer.add("", before)
    lines: dict[str, list[str]] = {}
    for sample in samples:
        name = sample.name
        written = lines.setdefault(name, [])
        written.append(f"{name}{{{sample.labels}}} {sample.value}\n")
        if len(written) >= LINES:
            _flush(packer, name, written)
    for name, written in lines.items():
        _flush(packer, name, written)
    return packer.packed()


def _flush(packer: Packer, name: str, lines: list[str]) -> None:
    head = f"# HELP {name} {HELP.get(name, name)}\n# TYPE {name} gauge\n"
    packer.add(name, "".join(lines), head=head)
    lines.clear()


def labels_of(*pairs: tuple[str, str]) -> Labels:
    """Write labels."""
    return ",".join([f'{key}="{_escaped(value)}"' for key, value in pairs])


def _escaped(value: str) -> str:
    if "\\" in value or '"' in value or "\n" in value:
        return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return value


def node_samples(nodes: Iterable[NodeUse], *, legacy: bool) -> Iterator[Sample]:
    """Return every card's samples."""
    for node in nodes:
        for use in node.devices:
            yield from _card(node.node, use)
            if legacy:
                yield from _legacy_card(node.node, use)


def _card(node: str, use: DeviceUse) -> Iterator[Sample]:
    device = use.device
    card = labels_of(
        ("node", node),
        ("device_uuid", device.id),
        ("device_index", str(device.index)),
        ("device_type", device.model),
        ZONE,
    )
    with_cores = f'{card},device_cores="{use.used_cores}"'
    yield Sample("hami_gpu_memory_limit_bytes", card, device.memory * MIB)
    yield Sample("hami_gpu_core_limit_ratio", card, device.cores)
    yield Sample("hami_gpu_memory_allocated_bytes", with_cores, use.used_memory * MIB)
    yield Sample("hami_gpu_shared_count", card, use.used_slots)
    yield Sample("hami_gpu_core_allocated_ratio", card, use.used_cores)
    overview = f'{with_cores},device_memory_limit="{device.memory}"'
    yield Sample("hami_node_gpu_overview", overview, use.used_memory * MIB)
    if device.memory > 0:
        yield Sample("hami_node_gpu_memory_allocated_ratio", card, use.used_memory / device.memory)


def _legacy_card(node: str, use: DeviceUse) -> Iterator[Sample]:
    device = use.device
    bare = labels_of(("nodeid", node), ("deviceuuid", device.id), ("deviceidx", str(device.index)), ZONE)
    card = f"{bare},{labels_of(('devicetype', device.model))}"
    with_cores = f'{card},devicecores="{use.used_cores}"'
    yield Sample("GPUDeviceMemoryLimit", card, device.memory * MIB)
    yield Sample("GPUDeviceCoreLimit", card, device.cores)
    yield Sample("GPUDeviceMemoryAllocated", with_cores, use.used_memory * MIB)
    yield Sample("GPUDeviceSharedNum", card, use.used_slots)
    yield Sample("GPUDeviceCoreAllocated", card, use.used_cores)
    yield Sample("nodeGPUOverview", f'{with_cores},devicememorylimit="{device.memory}"', use.used_memory * MIB)
    if device.memory > 0:
        yield Sample("nodeGPUMemoryPercentage", bare, use.used_memory / device.memory)


def container_samples(bookings: Iterable[Booking], *, legacy: bool) -> Iterator[Sample]:
    """Return what each container holds of each card; ``container_index`` is the real one (HAMi writes 0 always)."""
    for values, (memory, cores) in _held(bookings).items():
        labels = labels_of(*zip(_LABELS, values, strict=True), ZONE)
        yield Sample("hami_vgpu_memory_allocated_bytes", labels, memory * MIB)
        yield Sample("hami_vgpu_core_allocated_ratio", labels, cores)
        if legacy:
            old = labels_of(*zip(_LEGACY_LABELS, values, strict=True), ZONE)
            yield Sample("vGPUMemoryAllocated", old, memory * MIB)
            yield Sample("vGPUCoreAllocated", old, cores)


_LABELS = ("namespace", "node", "pod", "container_index", "device_uuid")
_LEGACY_LABELS = ("podnamespace", "nodename", "podname", "containeridx", "deviceuuid")


def _held(bookings: Iterable[Booking]) -> dict[tuple[str, ...], tuple[int, int]]:
    """Add up memory and cores by labels: a pod and its namesake that is on its way out would be one line twice."""
    sums: dict[tuple[str, ...], tuple[int, int]] = {}
    for booking in bookings:
        held = booking.allocation
        for index, container in enumerate(held.containers):
            for grant in container.grants:
                values = (held.pod.namespace, held.node, held.pod.name, str(index), grant.uuid)
                memory, cores = sums.get(values, (0, 0))
                sums[values] = (memory + grant.memory, cores + grant.cores)
    return sums


def quota_samples(quotas: Sequence[QuotaUse], *, legacy: bool) -> Iterator[Sample]:
    """Return what each namespace uses of its quota."""
    for quota in quotas:
        limit = str(quota.limit or 0)
        names = labels_of(("namespace", quota.namespace), ("quota_name", quota.name), ZONE)
        yield Sample("hami_resource_quota_used", f'{names},limit="{limit}"', quota.used)
        if quota.limit is not None:
            yield Sample("hami_resource_quota_limit", names, quota.limit)
        if legacy:
            old = labels_of(("quotanamespace", quota.namespace), ("quotaName", quota.name), ("limit", limit), ZONE)
            yield Sample("QuotaUsed", old, quota.used)


def mig_samples(node: NodeUse, instances: Sequence[MigInstance], *, legacy: bool) -> Iterator[Sample]:
    """Return the MIG instances that the node has made."""
    index = {use.device.id: str(use.device.index) for use in node.devices}
    for made in instances:
        if not made.mig:
            continue
        placed = index.get(made.gpu, "")
        what = labels_of(
            ("node", node.node),
            ("device_uuid", made.gpu),
            ("device_index", placed),
            ("mig_uuid", made.mig),
            ("profile", made.profile),
            ("gpu_instance_id", str(made.gpu_instance)),
            ("compute_instance_id", str(made.compute_instance)),
            ("placement_start", str(made.placement.start)),
            ("placement_size", str(made.placement.size)),
            ZONE,
        )
        yield Sample("hami_node_gpu_mig_instance_info", what, 1)
        if legacy:
            card = (("nodeid", node.node), ("deviceuuid", made.gpu), ("deviceidx", placed))
            name = ("migname", f"{made.profile}-{made.gpu_instance}")
            yield Sample("nodeGPUMigInstance", labels_of(*card, name, ZONE), 1)
