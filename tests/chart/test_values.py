"""Which values the chart takes: HAMi's, those of its guides, and in which words it refuses the others."""

from functools import reduce
from typing import Any

import helm_python as helm
import pytest
import yaml
from hamictl.doctor import places

from tests.chart.hami_values import HAMI_VALUES, HamiValue
from tests.chart.rendering import CHART, Json, chart, refusal, render

REFUSED = ("scheduler.extender.image.repository", "devicePlugin.image.repository")
"""Values whose default in HAMi names an image that cannot be ours."""

ASCEND_OF_THE_GUIDE = """
devices:
  ascend:
    enabled: true
    image: "projecthami/ascend-device-plugin:latest"
    imagePullPolicy: IfNotPresent
    nodeSelector:
      ascend: "on"
    tolerations: []
    customresources:
      - huawei.com/Ascend910A
      - huawei.com/Ascend910A-memory
      - huawei.com/Ascend310P
      - huawei.com/Ascend310P-memory
  iluvatar:
    enabled: true
    customresources:
      - iluvatar.ai/BI-V100-vgpu
      - iluvatar.ai/BI-V100.vCore
      - iluvatar.ai/BI-V100.vMem
  nvidia:
    gpuCorePolicy: default
    libCudaLogLevel: 1
  kunlun:
    enabled: true
  enflame:
    enabled: true
  mthreads:
    enabled: true
mluResourceName: "cambricon.com/vmlu"
mluResourceMem: "cambricon.com/mlu.smlu.vmemory"
mluResourceCores: "cambricon.com/mlu.smlu.vcore"
"""


def _at(path: str, value: Any) -> Json:
    nested: Json = reduce(lambda inner, key: {key: inner}, reversed(path.split(".")), value)
    return nested


def _merged(into: Json, more: Json) -> Json:
    for key, value in more.items():
        into[key] = _merged(into[key], value) if key in into and isinstance(value, dict) else value
    return into


def test_every_value_of_hami_is_taken() -> None:
    """A values file with all of HAMi's defaults in it renders, but for its images."""
    values: Json = reduce(
        _merged, (_at(value.name, value.default) for value in HAMI_VALUES if value.name not in REFUSED), {}
    )

    found = render(values=values)

    assert found.has("Deployment", "hami-scheduler")


def test_our_defaults_are_hamis_unless_the_page_says_otherwise() -> None:
    """Whoever sets nothing gets what HAMi gives, or reads in the page what is different."""
    ours = yaml.safe_load((CHART / "values.yaml").read_text())

    def default_of(value: HamiValue) -> Any:
        return reduce(lambda inner, key: inner[key], value.name.split("."), ours)

    assert [] == [value.name for value in HAMI_VALUES if not value.here and default_of(value) != value.default]


@pytest.mark.parametrize("name", REFUSED)
def test_hamis_image_is_refused_where_ours_is_needed(name: str) -> None:
    """A values file kept from HAMi cannot start HAMi's programs in the place of ours."""
    assert f"{name} is projecthami/hami, HAMi's own image" in refusal(f"{name}=projecthami/hami")


@pytest.mark.parametrize(
    "line",
    [
        "resourceName=nvidia.com/vgpu",
        "devicePlugin.deviceSplitCount=5,devicePlugin.deviceMemoryScaling=1.5",
        "resourceMemPercentage=nvidia.com/vgpumem-percentage",
        "scheduler.kubeScheduler.image.tag=v1.33.1",
        "scheduler.defaultSchedulerPolicy.nodeSchedulerPolicy=spread",
        "devices.ascend.enabled=true",
        "devicePlugin.migStrategy=mixed,devicePlugin.disablecorelimit=true",
        "devicePlugin.service.httpPort=32000,scheduler.service.schedulerPort=32001",
        "devicePlugin.deviceListStrategy=cdi-annotations,devicePlugin.nvidiaDriverRoot=/,"
        "devicePlugin.nvidiaHookPath=/usr/bin/nvidia-ctk,devicePlugin.runtimeClassName=nvidia",
    ],
)
def test_set_lines_of_hamis_guides_render(line: str) -> None:
    """What guides tell people to write after ``helm install`` works."""
    assert render(line).has("DaemonSet", "hami-device-plugin")


def test_the_values_file_of_the_multi_device_guide_renders() -> None:
    """All vendors of the guide are served, and Ascend's names are there though the guide leaves some out."""
    found = render(values=yaml.safe_load(ASCEND_OF_THE_GUIDE))

    assert "huawei.com/Ascend910C-core" in found.text("hami-scheduler", "config.yaml")


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("nats.replicas=2", "at '/nats/replicas': value must be one of 1, 3"),
        ("devicePlugin.deviceSplitCount=0", "at '/devicePlugin/deviceSplitCount': minimum: got 0, want 1"),
        ("devicePlugin.deviceSplitCount=many", 'devicePlugin.deviceSplitCount is "many": write a whole number'),
        ("devicePlugin.deviceMemoryScaling=twice", 'devicePlugin.deviceMemoryScaling is "twice": write a factor'),
        (
            "devicePlugin.deviceSplitcount=10",
            "at '/devicePlugin': additional properties 'deviceSplitcount' not allowed",
        ),
        ("scheduler.overwriteEnv=yes", "at '/scheduler/overwriteEnv': value must be one of true, false"),
        ("resourceName=gpu", 'resourceName is "gpu": write domain/name, such as nvidia.com/gpu'),
        ("schedulerName=HAMi", 'schedulerName is "HAMi": write a name of lower-case letters'),
        ("scheduler.nodeLockExpire=5 minutes", 'scheduler.nodeLockExpire is "5 minutes": write a duration'),
        ("scheduler.defaultSchedulerPolicy.gpuSchedulerPolicy=best", '"best": write binpack, spread, numa, mutex or'),
        ("devicePlugin.deviceListStrategy=cdi", 'devicePlugin.deviceListStrategy is "cdi": write envvar'),
        ("device.mthreads.enabled=true", "device is no value: write devices, such as devices.mthreads.enabled"),
        ("devicePlugin.service.schedulerPort=1", "is no value: write scheduler.service.schedulerPort"),
        ("scheduler.kubeScheduler.imageTag=v1.30.0", "is no value: write scheduler.kubeScheduler.image.tag"),
        ("devicePlugin.libPath=/opt/vgpu", "the library stands in /usr/local/vgpu on the node and in containers"),
        ("devicePlugin.monitor.ctrPath=/x", "containers' folders stand in /usr/local/vgpu/containers"),
        ("devicePlugin.pluginPath=/var/lib/kubelet", "name the folder device-plugins of the kubelet"),
        ("mockDevicePlugin.enabled=true", "there is no mock device plugin here, so leave it out"),
        ("nats.enabled=false", "nats.external.url is empty: name your NATS, such as nats://nats.messaging:4222"),
        ("nats.external.url=nats://n:4222", "write nats.enabled=false to use your own NATS"),
        ("nats.enabled=false,nats.external.url=http://n", 'nats.external.url is "http://n": write nats://host:4222'),
        ("scheduler.patch.enabled=false", "the certificate is yours: put it into Secret hami-webhook-tls"),
        ("scheduler.metricsBindAddress=:9000", "monitorTargetPort is 9395 and scheduler.metricsBindAddress :9000"),
    ],
)
def test_a_wrong_value_is_refused_in_one_sentence(line: str, says: str) -> None:
    """The sentence names the value, what it is, and what to write instead."""
    assert says in refusal(line)


def test_a_device_config_that_is_no_yaml_is_refused() -> None:
    """The services would not start with it."""
    assert "device-config.content is no YAML" in refusal(values={"device-config": {"content": "nvidia: [1"}})


def test_helm_finds_nothing_to_complain_of() -> None:
    """``helm lint --strict`` is quiet, but for the icon."""
    report = helm.lint(CHART, strict=True, kube_version="v1.30.0")

    assert [] == report["errors"]
    assert [] == [found for found in report["messages"] if "icon" not in found["error"]]


def test_the_chart_wants_the_kubernetes_that_the_doctor_wants() -> None:
    """Older ones have neither matchConditions for webhooks nor admission policies."""
    assert ">= {}.{}.0-0".format(*places.NEEDED) == chart().metadata["kubeVersion"]
