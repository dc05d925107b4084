"""The allocator's settings: checked once, at start."""

from pathlib import Path
from typing import Annotated

from hami_kit.errors import SettingsError
from hami_kit.settings import Address, CommonSettings, ObjectName, Setting, Timeout
from hami_model.policies import CARD_POLICIES, NODE_POLICIES


class AllocatorSettings(CommonSettings, frozen=True, kw_only=True):
    """hami-allocator: the single writer of device state."""

    kubeconfig: Annotated[str, Setting("kubeconfig file; empty: in-cluster", env="KUBECONFIG")] = ""
    health_listen: Annotated[Address, Setting("host:port of /healthz, /readyz and /metrics")] = Address("0.0.0.0", 9395)
    device_config: Annotated[Path | None, Setting("HAMi's device-config.yaml; absent: the chart's defaults")] = None
    scheduler_name: Annotated[str, Setting("source of the Kubernetes Events")] = "hami-scheduler"
    force_overwrite_default_scheduler: Annotated[bool, Setting("as the webhook's")] = True
    node_scheduler_policy: Annotated[str, Setting("binpack or spread")] = "binpack"
    gpu_scheduler_policy: Annotated[str, Setting("binpack, spread, numa, mutex, topology-aware, or a comma chain")] = (
        "spread"
    )
    node_label_selector: Annotated[str, Setting("k=v,k=v: only these nodes take part")] = ""
    enable_ascend: Annotated[bool, Setting("whether Ascend takes part")] = True
    enable_iluvatar: Annotated[bool, Setting("whether Iluvatar takes part")] = True
    reservation_timeout: Annotated[Timeout, Setting("how long a filter's answer stays reserved")] = Timeout(60.0)
    bind_timeout: Annotated[Timeout, Setting("how long one bind may take")] = Timeout(28.0)
    node_lock_timeout: Annotated[Timeout, Setting("when a node lock is taken as abandoned")] = Timeout(300.0)
    lease_namespace: Annotated[ObjectName, Setting("where the Lease hami-allocator lives")] = ObjectName("kube-system")
    legacy_metrics: Annotated[bool, Setting("HAMi's old metric names too")] = False

    @property
    def remarks(self) -> list[str]:
        """Return what is taken, and surely not meant so. HAMi compat: an unknown policy is the default of its level."""
        found = []
        if self.node_scheduler_policy not in NODE_POLICIES:
            text = f'"{self.node_scheduler_policy}" is no policy, so binpack holds; write {" or ".join(NODE_POLICIES)}'
            found.append(f"HAMI_NODE_SCHEDULER_POLICY: {text}")
        policy = self.gpu_scheduler_policy
        for word in [word.strip() for word in policy.split(",")]:
            if word not in CARD_POLICIES:
                text = f'"{word}" of "{policy}" is no policy and counts for nothing'
                ways = f"write {', '.join(CARD_POLICIES)}, or a comma chain"
                found.append(f"HAMI_GPU_SCHEDULER_POLICY: {text}; {ways}")
        return found

    @property
    def selector(self) -> dict[str, str]:
        """Return the labels that a node must carry to take part; raise ``SettingsError`` for what is no ``k=v,k=v``."""
        parts = [part.strip() for part in self.node_label_selector.split(",") if part.strip()]
        pairs = [part.partition("=") for part in parts]
        for key, equals, _ in pairs:
            if not equals or not key:
                raise SettingsError(
                    "HAMI_NODE_LABEL_SELECTOR",
                    f'"{self.node_label_selector}" is no list of labels; write key=value,key=value',
                )
        return {key.strip(): value.strip() for key, _, value in pairs}
