"""The device config that the chart makes, as our own reader reads it, and what follows from it elsewhere."""

from pathlib import Path
from typing import Any

import msgspec
import yaml
from hami_model import config, vendors
from hami_node_agent.node_config import read as read_node_config
from hamictl import device_config

from tests.chart.rendering import Rendered, render
from tests.compat import rules

ALL = ("devices.ascend.enabled=true,devices.iluvatar.enabled=true",)


def config_of(found: Rendered) -> config.DeviceConfig:
    return config.parse(yaml.safe_load(found.text("hami-scheduler-device", "device-config.yaml")))


def managed(found: Rendered) -> set[str]:
    """Return the resources that kube-scheduler leaves to us."""
    read: Any = yaml.safe_load(found.text("hami-scheduler", "config.yaml"))
    return {entry["name"] for entry in read["extenders"][0]["managedResources"]}


def test_the_untouched_chart_gives_what_hamis_gives() -> None:
    """The same names, sizes, chips, templates and MIG profiles, key by key."""
    wanted = yaml.safe_load((rules.VECTORS / "settings/device-config.yaml").read_text())
    found = yaml.safe_load(render().text("hami-scheduler-device", "device-config.yaml"))

    assert found["nvidia"].pop("disableCoreLimit") is False  # HAMi reads it, and its chart does not write it
    chip = next(chip for chip in found["vnpus"]["configs"] if chip["commonWord"] == "Ascend910C")
    chip.setdefault("memoryFactor", 0)  # HAMi's chart leaves it out for this chip
    next(c for c in wanted["vnpus"]["configs"] if c["commonWord"] == "Ascend910C").setdefault("memoryFactor", 0)
    assert wanted == found


def test_hamictl_has_nothing_to_say_of_it(tmp_path: Path) -> None:
    """Neither a wrong value nor a key that nobody reads."""
    path = tmp_path / "device-config.yaml"
    path.write_text(render(*ALL).text("hami-scheduler-device", "device-config.yaml"))

    assert [] == device_config.check(path).problems


def test_values_go_where_the_services_read_them() -> None:
    """Each value of HAMi's guides has its effect on what our own reader reads."""
    found = config_of(
        render(
            "devicePlugin.deviceSplitCount=4,devicePlugin.deviceMemoryScaling=1.5,devicePlugin.deviceCoreScaling=2,"
            "devicePlugin.enableNumaTopology=true,devicePlugin.preConfiguredDeviceMemory=131072,"
            "devicePlugin.disablecorelimit=true,devicePlugin.runtimeClassName=nvidia,scheduler.overwriteEnv=true,"
            "devices.nvidia.gpuCorePolicy=force,devices.nvidia.libCudaLogLevel=3,metaxsGPUTopologyAware=true,"
            "devices.ascend.runtimeClassName=ascend,devices.ascend.hamiVnpuCore=true"
        )
    )

    nvidia, metax, vnpus = found.nvidia, found.metax, found.vnpus
    assert nvidia is not None
    assert metax is not None
    assert vnpus is not None
    assert (4, 1.5, 2.0, True) == (
        nvidia.device_split_count,
        nvidia.device_memory_scaling,
        nvidia.device_core_scaling,
        nvidia.enable_numa_topology,
    )
    assert (131072, True, "nvidia", True) == (
        nvidia.pre_configured_device_memory,
        nvidia.disable_core_limit,
        nvidia.runtime_class_name,
        nvidia.overwrite_env,
    )
    assert ("force", "3", True) == (nvidia.gpu_core_policy, str(nvidia.lib_cuda_log_level), metax.sgpu_topology_aware)
    assert (True, {"ascend"}) == (vnpus.hami_vnpu_core, {chip.runtime_class_name for chip in vnpus.configs})


def test_a_renamed_resource_is_renamed_everywhere() -> None:
    """In the device config, for kube-scheduler, and where the API server tells device pods from others."""
    found = render("kunlunResourceVCountName=example.com/slice")
    kunlun = config_of(found).kunlun

    assert kunlun is not None
    assert "example.com/slice" == kunlun.virtual_count
    assert "example.com/slice" in managed(found)
    assert "kunlunxin.com/vxpu" not in managed(found)
    assert "'example.com/'" in str(found.one("MutatingWebhookConfiguration", "hami-webhook"))


def test_kube_scheduler_leaves_every_resource_of_every_vendor_to_us() -> None:
    """What the model knows of the rendered device config, no name more and none less."""
    found = render(*ALL)
    catalog = vendors.build(config_of(found), ascend=True, iluvatar=True)

    assert catalog.resource_names == managed(found)


def test_vendors_that_are_off_are_nobodys() -> None:
    """Neither kube-scheduler nor the services take their resources for ours."""
    found = render(
        "devices.kunlun.enabled=false,devices.enflame.enabled=false,devices.mthreads.enabled=false,"
        "devices.vastai.enabled=false,devices.biren.enabled=false"
    )
    env = found.environment("hami-allocator", "allocator")
    catalog = vendors.build(
        config_of(found), ascend=env["HAMI_ENABLE_ASCEND"] == "true", iluvatar=env["HAMI_ENABLE_ILUVATAR"] == "true"
    )

    assert catalog.resource_names == managed(found)
    assert {"nvidia.com", "cambricon.com", "hygon.com", "metax-tech.com", "aws.amazon.com", "amd.com"} == {
        name.partition("/")[0] for name in managed(found)
    }


def test_names_of_customresources_are_managed_too() -> None:
    """A guide's list is taken, and those of a vendor that is off are not."""
    found = render(
        "devices.amd.customresources={amd.com/gpu-memory},devices.biren.enabled=false,"
        "devices.biren.customresources={birentech.com/gpu}"
    )

    assert {"amd.com/gpu-memory", "amd.com/gpumem"} <= managed(found)
    assert "birentech.com/gpu" not in managed(found)


def test_a_device_config_of_ones_own_replaces_all_of_it() -> None:
    """And what it names is managed, without being named elsewhere."""
    own = "nvidia:\n  resourceCountName: example.com/gpu\n  resourceMemoryName: example.com/gpumem\n"
    found = render(values={"device-config": {"content": own}})

    assert own == found.text("hami-scheduler-device", "device-config.yaml").rstrip() + "\n"
    assert {"example.com/gpu", "example.com/gpumem"} == managed(found)


def test_the_node_configuration_is_read_by_the_agent() -> None:
    """HAMi's sample, as its guides have it."""
    own = {"nodeconfig": [{"name": "n1", "devicememoryscaling": 1.5, "filterdevices": {"uuid": [], "index": [0]}}]}
    text = msgspec.json.encode(own).decode()
    found = render(values={"devicePlugin": {"nodeConfiguration": {"config": text}}})

    (entry,) = read_node_config(found.text("hami-device-plugin", "config.json").encode())
    assert ("n1", 1.5, (0,)) == (entry.name, entry.devicememoryscaling, entry.filterdevices.index)
    assert () == read_node_config(render().text("hami-device-plugin", "config.json").encode())
