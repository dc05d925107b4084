"""The metrics page against HAMi's: every name of its monitor, the old ones too, with its labels."""

from types import SimpleNamespace
from typing import Any

import pytest
from hami_kit.build import build_labels
from hami_model.bus.messages import Drift
from hami_model.device import Placement
from hami_model.objects import PodRef
from hami_node_agent import metrics
from hami_node_agent.inventory import Inventory
from hami_node_agent.mig.book import Piece
from hami_node_agent.probes import CardFacts, DriverVersions
from hami_node_agent.usage.monitor import ContainerUse
from hami_node_agent.usage.region import CardUse, Reading
from hami_testkit.builders import a_card
from hami_testkit.clock import FakeClock
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

CARD = "node, device_index, device_uuid, device_type, zone"
SLICE = "namespace, pod, container, vdevice_index, device_uuid, zone"
OLD_CARD = "nodeid, deviceidx, deviceuuid, devicetype, zone"
OLD_SLICE = "podnamespace, podname, ctrname, vdeviceid, deviceuuid, zone"

HAMIS = {
    "hami_host_gpu_memory_used_bytes": CARD,
    "hami_host_gpu_utilization_ratio": CARD,
    "hami_host_gpu_memory_controller_utilization_ratio": CARD,  # HAMi's own has no node
    "hami_vgpu_memory_used_bytes": SLICE,
    "hami_vgpu_memory_limit_bytes": SLICE,
    "hami_container_device_memory_bytes": SLICE,
    "hami_container_device_utilization_ratio": SLICE,
    "hami_container_last_kernel_elapsed_seconds": SLICE,
    "hami_vgpu_memory_context_bytes": SLICE,
    "hami_vgpu_memory_module_bytes": SLICE,
    "hami_vgpu_memory_buffer_bytes": SLICE,
    "hami_mig_device_info": f"{SLICE}, mig_uuid, profile, gpu_instance_id, compute_instance_id",
    "hami_build_info": "version, revision, build_date, go_version, compiler, platform",
}
HAMIS_OLD = {
    "HostGPUMemoryUsage": OLD_CARD,
    "HostCoreUtilization": OLD_CARD,
    "vGPU_device_memory_usage_in_bytes": OLD_SLICE,
    "vGPU_device_memory_limit_in_bytes": OLD_SLICE,
    "Device_utilization_desc_of_container": OLD_SLICE,
    "Device_last_kernel_of_container": OLD_SLICE,
    "Device_memory_desc_of_container": f"{OLD_SLICE}, context, module, data, offset",
    "MigInfo": f"{OLD_SLICE}, instanceid",
}
OURS = {
    "hami_node_agent_allocates_total": "result",
    "hami_node_agent_device_ids_held": "",
    "hami_node_agent_statements_unacknowledged": "",
    "hami_node_agent_drift": "kind",
    "hami_node_agent_driver_info": "driver_version, cuda_version",
}


MADE = Piece(
    pod=PodRef("team-a", "train", "uid-1"), container="main", place=0, card="GPU-m", profile="1g.5gb",
    placement=Placement(6, 1), uuid="MIG-7", gpu_instance=13, compute_instance=0,
)  # fmt: skip
"""A MIG instance that the container has of another card."""


class Shown:
    """An agent with one card, one container on it, and one thing that should not be; what its page says."""

    def __init__(self, *, legacy: bool, versions: DriverVersions) -> None:
        card = a_card("GPU-a")
        probe: Any = SimpleNamespace(facts={"GPU-a": CardFacts(memory=1, busy=2, memory_busy=3)}, versions=versions)
        use = CardUse(uuid="GPU-a", limit=9, core_limit=30, used=7, context=1, module=2, data=4, cores=30)
        reading = Reading(cards=(use,), switch=1, recent_kernel=2, priority=0, last_kernel=1)
        seen = [ContainerUse(pod=PodRef("team-a", "train", "uid-1"), container="main", reading=reading)]
        agent: Any = SimpleNamespace(
            node="n1", inventory=Inventory(probe, (card,)), monitor=SimpleNamespace(seen=seen), served=3, refused=1,
            lookout=SimpleNamespace(findings=[Drift(kind="ghost", says="…")]), table=SimpleNamespace(entries=()),
            reports=SimpleNamespace(waiting=()), instances=(MADE,),
        )  # fmt: skip
        registry = CollectorRegistry()
        metrics.register(registry, agent, clock=FakeClock(), legacy=legacy)
        self.samples = [
            sample
            for family in text_string_to_metric_families(generate_latest(registry).decode())
            for sample in family.samples
        ]

    @property
    def labels(self) -> dict[str, set[str]]:
        return {sample.name: set(sample.labels) for sample in self.samples}

    def value(self, name: str, **labels: str) -> float:
        (found,) = [s.value for s in self.samples if s.name == name and labels.items() <= s.labels.items()]
        return float(found)


def named(table: dict[str, str]) -> dict[str, set[str]]:
    return {name: {label for label in labels.split(", ") if label} for name, labels in table.items()}


@pytest.mark.parametrize("legacy", [False, True])
def test_the_page_has_hamis_names_with_their_labels_and_ours(*, legacy: bool) -> None:
    """Nothing is missing and nothing is there that no table names."""
    wanted = {**HAMIS, **OURS, **(HAMIS_OLD if legacy else {})}

    assert named(wanted) == Shown(legacy=legacy, versions=DriverVersions("550.54.15", "12.4")).labels


def test_the_page_says_which_build_and_which_driver() -> None:
    """Both are numbers that are always 1; where no driver tells its version there is none."""
    shown = Shown(legacy=False, versions=DriverVersions("550.54.15", "12.4"))
    without = Shown(legacy=False, versions=DriverVersions())

    assert 1 == shown.value("hami_node_agent_driver_info", driver_version="550.54.15", cuda_version="12.4")
    assert 1 == shown.value("hami_build_info", **build_labels("hami-node-agent"))
    assert build_labels("hami-node-agent")["version"]
    assert "hami_node_agent_driver_info" not in without.labels


def test_each_kind_of_what_disagrees_has_its_number() -> None:
    """Those that are not there are 0, so that an alert can ask for them."""
    shown = Shown(legacy=False, versions=DriverVersions())

    assert {"stranger": 0, "ghost": 1, "wrong-card": 0, "unseen": 0} == {
        sample.labels["kind"]: sample.value for sample in shown.samples if sample.name == "hami_node_agent_drift"
    }
