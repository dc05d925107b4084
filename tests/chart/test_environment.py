"""The environment that the chart gives each service, read by the service's own settings."""

import re

import pytest
from hami_allocator.settings import AllocatorSettings
from hami_extender.settings import ExtenderSettings
from hami_kit.settings import Address, Help, load
from hami_node_agent.settings import Settings as NodeAgentSettings
from hami_webhook.settings import WebhookSettings
from msgspec import Struct

from tests.chart.rendering import MATRIX, Rendered, render

SERVICES: dict[tuple[str, str], type[Struct]] = {
    ("hami-webhook", "webhook"): WebhookSettings,
    ("hami-scheduler", "vgpu-scheduler-extender"): ExtenderSettings,
    ("hami-allocator", "allocator"): AllocatorSettings,
    ("hami-device-plugin", "device-plugin"): NodeAgentSettings,
}
FOREIGN = {"HAMI_NATS_PASSWORD", "A"}
"""What only helps to write another variable, and what a test adds."""


def environment(found: Rendered, where: tuple[str, str]) -> dict[str, str]:
    return found.environment(*where, fields={"spec.nodeName": "n1"})


def variables(settings: type[Struct]) -> set[str]:
    """Return all variables that a service reads."""
    with pytest.raises(Help) as told:
        load(settings, ["--help"], {})
    return set(re.findall(r"\b[A-Z][A-Z0-9]*_[A-Z0-9_]+\b|\bKUBECONFIG\b", str(told.value)))


@pytest.mark.parametrize("line", MATRIX, ids=lambda line: line[:40] or "defaults")
def test_every_service_starts_with_what_it_is_given(line: str) -> None:
    """No variable is unknown to it, none has a value that it refuses."""
    found = render(*filter(None, [line]))
    for where, settings in SERVICES.items():
        if not any(workload["metadata"]["name"] == where[0] for workload in found.workloads()):
            continue
        env = environment(found, where)
        strangers = {name for name in env if not name.startswith("NVIDIA_")} - variables(settings) - FOREIGN
        assert (where, set()) == (where, strangers)
        load(settings, found.container(*where).get("args", []), env)


def test_what_the_admin_sets_reaches_the_allocator() -> None:
    """Policies, nodes that take part, the scheduler's name, the lock's timeout, where the Lease is."""
    found = render(
        "scheduler.defaultSchedulerPolicy.nodeSchedulerPolicy=spread,schedulerName=cards,legacyMetrics=true,"
        "scheduler.nodeLabelSelector.pool=gpu,scheduler.nodeLabelSelector.zone=a,scheduler.nodeLockExpire=90s,"
        "scheduler.forceOverwriteDefaultScheduler=false,namespaceOverride=ml",
        r"scheduler.defaultSchedulerPolicy.gpuSchedulerPolicy=numa\,binpack",
    )
    read = load(AllocatorSettings, [], environment(found, ("hami-allocator", "allocator")))

    assert ("spread", "numa,binpack", "cards") == (
        read.node_scheduler_policy,
        read.gpu_scheduler_policy,
        read.scheduler_name,
    )
    assert ({"pool": "gpu", "zone": "a"}, 90.0, "ml") == (read.selector, read.node_lock_timeout, read.lease_namespace)
    assert (True, False) == (read.legacy_metrics, read.force_overwrite_default_scheduler)
    assert [] == read.remarks


def test_webhook_and_allocator_take_the_same_pods_for_theirs() -> None:
    """What one admits the other places."""
    found = render("schedulerName=cards,scheduler.forceOverwriteDefaultScheduler=false,devices.ascend.enabled=true")
    shared = (
        "HAMI_SCHEDULER_NAME", "HAMI_FORCE_OVERWRITE_DEFAULT_SCHEDULER", "HAMI_ENABLE_ASCEND", "HAMI_ENABLE_ILUVATAR",
        "HAMI_DEVICE_CONFIG",
    )  # fmt: skip
    webhook, allocator = (environment(found, where) for where in list(SERVICES)[::2])

    assert {name: webhook[name] for name in shared} == {name: allocator[name] for name in shared}


def test_the_extender_listens_to_its_own_pod_alone() -> None:
    """Whoever reached it could book devices; kube-scheduler is told the same address."""
    found = render()
    read = load(ExtenderSettings, [], environment(found, ("hami-scheduler", "vgpu-scheduler-extender")))

    assert Address("127.0.0.1", 8080) == read.listen
    assert "urlPrefix: http://127.0.0.1:8080" in found.text("hami-scheduler", "config.yaml")


def test_the_agents_settings_are_those_of_nvidias_plugin() -> None:
    """Values of HAMi that name them are passed on; what is not said is left to the agent's defaults."""
    found = render(
        "devicePlugin.gdrcopyEnabled=true,devicePlugin.mofedEnabled=false,devicePlugin.passDeviceSpecsEnabled=true"
    )
    env = environment(found, ("hami-device-plugin", "device-plugin"))

    assert ("true", "false", "true") == (env["GDRCOPY_ENABLED"], env["MOFED_ENABLED"], env["PASS_DEVICE_SPECS"])
    assert "GDS_ENABLED" not in env


@pytest.mark.parametrize("more", ["HAMI_PROBES=nvml:", "[0].name=HAMI_PROBES,devicePlugin.extraEnvs[0].value=nvml:"])
def test_what_the_values_add_replaces_what_has_its_name(more: str) -> None:
    """Helm's server-side apply takes no name twice."""
    path = "devicePlugin.extraEnvs" + ("" if more.startswith("[") else ".")
    container = render(path + more).container("hami-device-plugin", "device-plugin")

    assert ["nvml:"] == [entry["value"] for entry in container["env"] if entry["name"] == "HAMI_PROBES"]
    assert "HAMI_NODE_NAME" in {entry["name"] for entry in container["env"]}
