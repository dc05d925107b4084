"""What the agent can be told: its node, its kubelet, its cards, its bus."""

from pathlib import Path
from typing import Annotated, Literal

from hami_kit.settings import Address, CommonSettings, ObjectName, Setting, Timeout

from hami_node_agent.drift import EVERY


class Settings(CommonSettings, frozen=True, kw_only=True):
    """hami-node-agent: serves the cards of one node to its kubelet, and tells the allocator what it serves."""

    node_name: Annotated[ObjectName, Setting("name of the own node in Kubernetes")]
    kubeconfig: Annotated[str, Setting("absent: the pod's own account", env="KUBECONFIG")] = ""
    device_config: Annotated[Path | None, Setting("HAMi's device-config.yaml; absent: the chart's defaults")] = None
    hook_path: Annotated[Path, Setting("host folder that has vgpu/ with the library")] = Path("/usr/local")
    lock_dir: Annotated[Path, Setting("host folder of the lock that containers share")] = Path("/tmp/vgpulock")  # noqa: S108  HAMi compat
    kubelet_dir: Annotated[Path, Setting("the kubelet's root folder")] = Path("/var/lib/kubelet")
    node_config: Annotated[Path | None, Setting("HAMi's config.json with what differs on single nodes")] = None
    driver_root: Annotated[
        Path | None, Setting("folder under which libnvidia-ml.so.1 is looked for; absent: where the loader looks")
    ] = None
    xids_ignored: Annotated[
        str, Setting("XIDs beside 13,31,43,45,68,109 that make no card ill, or all", env="DP_DISABLE_HEALTHCHECKS")
    ] = ""
    xids_counted: Annotated[
        str, Setting("XIDs that make a card ill whatever else is said, or all", env="DP_ENABLE_HEALTHCHECKS")
    ] = ""
    library_dir: Annotated[
        Path | None, Setting("folder that HAMi-core is installed from into vgpu/; absent: somebody else puts it there")
    ] = None
    device_list_strategy: Annotated[
        str,
        Setting(
            "how cards reach containers: envvar, volume-mounts, cdi-annotations, cdi-cri, or several",
            env="DEVICE_LIST_STRATEGY",
        ),
    ] = "envvar"
    device_id_strategy: Annotated[
        Literal["uuid", "index"], Setting("how cards are named in containers", env="DEVICE_ID_STRATEGY")
    ] = "uuid"
    pass_device_specs: Annotated[bool, Setting("pass device nodes on", env="PASS_DEVICE_SPECS")] = False
    dev_root: Annotated[Path, Setting("folder that has dev/ with the device nodes", env="NVIDIA_DEV_ROOT")] = Path("/")
    gdrcopy: Annotated[bool, Setting("ask the runtime for GDRCopy", env="GDRCOPY_ENABLED")] = False
    gds: Annotated[bool, Setting("ask the runtime for GPUDirect Storage", env="GDS_ENABLED")] = False
    mofed: Annotated[bool, Setting("ask the runtime for MOFED", env="MOFED_ENABLED")] = False
    cdi_kind: Annotated[str, Setting("vendor and class of CDI names")] = "nvidia.com/gpu"
    cdi_annotation_prefix: Annotated[str, Setting("of the annotation with CDI names", env="CDI_ANNOTATION_PREFIX")] = (
        "cdi.k8s.io/"
    )
    proc_root: Annotated[Path, Setting("the host's /proc, where processes on cards are looked up")] = Path("/proc")
    drift_interval: Annotated[Timeout, Setting("how often table, kubelet and processes on cards are compared")] = (
        Timeout(EVERY)
    )
    legacy_metrics: Annotated[bool, Setting("HAMi's old metric names too")] = False
    probes: Annotated[str, Setting("where cards come from: sim:<cards.yaml>, or nvml")] = "nvml"
    health_listen: Annotated[Address, Setting("host:port of /healthz, /readyz and /metrics")] = Address("0.0.0.0", 9394)
