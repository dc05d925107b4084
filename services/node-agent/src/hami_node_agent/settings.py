"""What the agent can be told: its node, its kubelet, its cards, its bus."""

from pathlib import Path
from typing import Annotated

from hami_kit.settings import Address, CommonSettings, ObjectName, Setting


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
    legacy_metrics: Annotated[bool, Setting("HAMi's old metric names too")] = False
    probes: Annotated[str, Setting("where cards come from: sim:<cards.yaml>, or nvml")] = "nvml"
    health_listen: Annotated[Address, Setting("host:port of /healthz, /readyz and /metrics")] = Address("0.0.0.0", 9394)
