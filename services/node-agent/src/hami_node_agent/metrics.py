"""What the agent shows on ``/metrics``: its own numbers, and what cards and containers really use.

One rule: everything is read from the agent when asked, and counted nowhere twice. Names and labels of use are HAMi's
(its vGPUmonitor); ratios are percent, as there.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from hami_kit import build
from hami_kit.clock import Clock
from hami_model.device import Device
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from hami_node_agent.agent import Agent
from hami_node_agent.drift.compare import KINDS
from hami_node_agent.mig.book import Piece
from hami_node_agent.probes import CardFacts
from hami_node_agent.usage.monitor import ContainerUse
from hami_node_agent.usage.region import CardUse

ZONE = "vGPU"

CARD = ("node", "device_index", "device_uuid", "device_type", "zone")
CONTAINER = ("namespace", "pod", "container", "vdevice_index", "device_uuid", "zone")

INSTANCE = (*CONTAINER, "mig_uuid", "profile", "gpu_instance_id", "compute_instance_id")

LEGACY_CARD = ("nodeid", "deviceidx", "deviceuuid", "devicetype", "zone")
LEGACY_CONTAINER = ("podnamespace", "podname", "ctrname", "vdeviceid", "deviceuuid", "zone")

Of = tuple[ContainerUse, int, CardUse]
"""A container, and the position and use of one of its cards."""


def register(registry: CollectorRegistry, agent: Agent, *, clock: Clock, legacy: bool = False) -> None:
    """Show the agent's numbers in this registry; ``legacy``: HAMi's old names too."""
    registry.register(_Numbers(agent))
    registry.register(_Use(agent, clock, legacy=legacy))


class _Numbers(Collector):
    def __init__(self, agent: Agent) -> None:
        self._agent = agent

    def collect(self) -> Iterator[Metric]:
        """Return the numbers as they are now."""
        answered = CounterMetricFamily("hami_node_agent_allocates", "Allocates answered", labels=["result"])
        answered.add_metric(["served"], self._agent.served)
        answered.add_metric(["refused"], self._agent.refused)
        yield answered
        held = {device_id for entry in self._agent.table.entries for device_id in entry.ids}
        yield GaugeMetricFamily("hami_node_agent_device_ids_held", "Device IDs that containers hold", value=len(held))
        unheard = len(self._agent.reports.waiting)
        yield GaugeMetricFamily(
            "hami_node_agent_statements_unacknowledged", "Statements that no allocator acknowledged", value=unheard
        )
        yield _drift(self._agent)
        yield _info(build.NAME, build.HELP, build.build_labels("hami-node-agent"))
        versions = self._agent.inventory.versions
        if versions.driver:
            labels = {"driver_version": versions.driver, "cuda_version": versions.cuda}
            yield _info("hami_node_agent_driver_info", "Which driver the cards have", labels)


def _info(name: str, text: str, labels: dict[str, str]) -> Metric:
    family = GaugeMetricFamily(name, text, labels=list(labels))
    family.add_metric(list(labels.values()), 1)
    return family


def _drift(agent: Agent) -> Metric:
    family = GaugeMetricFamily(
        "hami_node_agent_drift", "What is held, counted by the kubelet and running on cards disagrees", labels=["kind"]
    )
    found = Counter(drift.kind for drift in agent.lookout.findings)
    for kind in KINDS:
        family.add_metric([kind], found[kind])
    return family


class _Use(Collector):
    def __init__(self, agent: Agent, clock: Clock, *, legacy: bool) -> None:
        self._agent = agent
        self._clock = clock
        self._legacy = legacy

    def collect(self) -> Iterator[Metric]:
        """Return the use of cards and containers as last measured."""
        inventory, node = self._agent.inventory, self._agent.node
        cards = [(card, inventory.facts[card.id]) for card in inventory.cards if card.id in inventory.facts]
        uses = [(use, at, card) for use in self._agent.monitor.seen for at, card in enumerate(use.reading.cards)]
        yield from _of_cards(node, cards)
        yield from _of_containers(uses, self._clock.now())
        yield from _of_instances(self._agent.instances, legacy=self._legacy)
        if self._legacy:
            yield from _legacy(node, cards, uses, self._clock.now())


def _of_cards(node: str, cards: Iterable[tuple[Device, CardFacts]]) -> Iterator[Metric]:
    memory = GaugeMetricFamily("hami_host_gpu_memory_used_bytes", "Memory used of a card", labels=CARD)
    busy = GaugeMetricFamily("hami_host_gpu_utilization_ratio", "Percent of time that a card computes", labels=CARD)
    accessed = GaugeMetricFamily(
        "hami_host_gpu_memory_controller_utilization_ratio",
        "Percent of time that a card's memory is accessed",
        labels=CARD,
    )
    for card, use in cards:
        labels = [node, str(card.index), card.id, card.model, ZONE]
        for family, value in ((memory, use.memory), (busy, use.busy), (accessed, use.memory_busy)):
            if value is not None:
                family.add_metric(labels, value)
    yield from (memory, busy, accessed)


def _of_containers(uses: Sequence[Of], now: float) -> Iterator[Metric]:
    values = (
        ("hami_vgpu_memory_used_bytes", "Memory that a container uses of a card", [c.used for _, _, c in uses]),
        ("hami_vgpu_memory_limit_bytes", "Memory that a container may use of a card", [c.limit for _, _, c in uses]),
        ("hami_container_device_memory_bytes", "Memory that a container uses of a card", [c.used for _, _, c in uses]),
        ("hami_container_device_utilization_ratio", "Percent of a card computing", [c.cores for _, _, c in uses]),
        ("hami_vgpu_memory_context_bytes", "Memory of contexts", [c.context for _, _, c in uses]),
        ("hami_vgpu_memory_module_bytes", "Memory of modules", [c.module for _, _, c in uses]),
        ("hami_vgpu_memory_buffer_bytes", "Memory of buffers", [c.data for _, _, c in uses]),
    )
    for name, text, numbers in values:
        family = GaugeMetricFamily(name, text, labels=CONTAINER)
        for (use, at, card), number in zip(uses, numbers, strict=True):
            family.add_metric(_labels(use, at, card), number)
        yield family
    elapsed = GaugeMetricFamily(
        "hami_container_last_kernel_elapsed_seconds", "Seconds since a container launched a kernel", labels=CONTAINER
    )
    for use, at, card in uses:
        if use.reading.last_kernel:
            elapsed.add_metric(_labels(use, at, card), max(0.0, now - use.reading.last_kernel))
    yield elapsed


def _of_instances(instances: Iterable[Piece], *, legacy: bool) -> Iterator[Metric]:
    """Return the MIG instances that containers have, those of init containers too."""
    made = GaugeMetricFamily("hami_mig_device_info", "MIG instances that containers have", labels=INSTANCE)
    old = GaugeMetricFamily("MigInfo", "MIG instances that containers have", labels=(*LEGACY_CONTAINER, "instanceid"))
    for piece in instances:
        container = [piece.pod.namespace, piece.pod.name, piece.container, str(piece.place), piece.card, ZONE]
        number = str(piece.gpu_instance)
        made.add_metric([*container, piece.uuid, piece.profile, number, str(piece.compute_instance)], 1)
        old.add_metric([*container, number], 1)
    yield from (made, old) if legacy else (made,)


def _legacy(node: str, cards: Iterable[tuple[Device, CardFacts]], uses: Sequence[Of], now: float) -> Iterator[Metric]:
    memory = GaugeMetricFamily("HostGPUMemoryUsage", "GPU device memory usage", labels=LEGACY_CARD)
    busy = GaugeMetricFamily("HostCoreUtilization", "GPU core utilization", labels=LEGACY_CARD)
    for device, measured in cards:
        labels = [node, str(device.index), device.id, device.model, ZONE]
        for family, value in ((memory, measured.memory), (busy, measured.busy)):
            if value is not None:
                family.add_metric(labels, value)
    used, limit, cores, last = (
        GaugeMetricFamily(name, text, labels=LEGACY_CONTAINER)
        for name, text in (
            ("vGPU_device_memory_usage_in_bytes", "vGPU device usage"),
            ("vGPU_device_memory_limit_in_bytes", "vGPU device limit"),
            ("Device_utilization_desc_of_container", "Container device utilization"),
            ("Device_last_kernel_of_container", "Container device last kernel"),
        )
    )
    parts = GaugeMetricFamily(
        "Device_memory_desc_of_container",
        "Container device memory",
        labels=(*LEGACY_CONTAINER, "context", "module", "data", "offset"),
    )
    for use, at, card in uses:
        labels = _labels(use, at, card)
        used.add_metric(labels, card.used)
        limit.add_metric(labels, card.limit)
        cores.add_metric(labels, card.cores)
        parts.add_metric([*labels, str(card.context), str(card.module), str(card.data), "0"], card.used)
        if use.reading.last_kernel:
            last.add_metric(labels, max(0.0, now - use.reading.last_kernel))
    yield from (memory, busy, used, limit, cores, parts, last)


def _labels(use: ContainerUse, at: int, card: CardUse) -> list[str]:
    return [use.pod.namespace, use.pod.name, use.container, str(at), card.uuid, ZONE]
