"""The chart in a real cluster: Helm's engine puts it there, its accounts' tokens and kube-scheduler come from there.

One rule: a program is given the token of the account that the chart made for it, and nothing of the administrator's.
"""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import helm_python as helm
import yaml
from hami_testkit.cluster.client import ApiClient
from hami_testkit.processes import BIN, Processes, Spec
from hami_testkit.real_cluster import secured

from tests.chart.rendering import CHART, NAMESPACE, Json, Rendered, read, values_of
from tests.chart.running import Installation

READY = 120.0


class Cluster:
    """A real API server that charts are installed in."""

    def __init__(self, kubeconfig: Path, api: ApiClient, line: str = "") -> None:
        """``line``: what ``--set`` gets in this cluster, whatever a test adds."""
        self.kubeconfig = kubeconfig
        self.api = api
        self.line = line

    async def helm(self, action: str, line: str = "", **release: Any) -> Rendered:
        """Run ``helm install`` or ``upgrade`` with the values of this cluster and more; return what was applied."""
        sets = ",".join(filter(None, [self.line, line]))
        found = await asyncio.to_thread(self._helm, action, sets, **{"name": "hami", "namespace": NAMESPACE, **release})
        assert "deployed" == found["status"]
        return read({"manifest.yaml": found["manifest"]})

    def _helm(self, action: str, line: str, *, name: str, namespace: str, chart: Path = CHART) -> Any:
        with helm.Config(kubeconfig_path=self.kubeconfig, namespace=namespace) as config:
            if action == "uninstall":
                return config.uninstall(name)
            more = {"create_namespace": True} if action == "install" else {}
            act = getattr(config, action)
            return act(str(chart), name, values_of(line), namespace=namespace, timeout=120, **more)

    async def uninstall(self, name: str = "hami", namespace: str = NAMESPACE) -> None:
        """Run ``helm uninstall``."""
        await asyncio.to_thread(self._helm, "uninstall", "", name=name, namespace=namespace)

    async def rollback(self, revision: int) -> None:
        """Run ``helm rollback`` of the release with the usual name."""
        await asyncio.to_thread(self._rollback, revision)

    def _rollback(self, revision: int) -> None:
        with helm.Config(kubeconfig_path=self.kubeconfig, namespace=NAMESPACE) as config:
            config.rollback("hami", version=revision)

    async def kubeconfig_of(self, account: str, folder: Path) -> Path:
        """Write a kubeconfig of a ServiceAccount of the chart, with a token of its own."""
        path = f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts/hami-{account}/token"
        request: Json = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
        token = (await self.api.create(path, request))["status"]["token"]
        config = yaml.safe_load(self.kubeconfig.read_text())
        config["users"][0]["user"] = {"token": token}
        written = folder / f"{account}.kubeconfig"
        written.write_text(yaml.safe_dump(config))
        return written

    async def start_services(self, started: Processes, here: Installation, binaries: Path) -> None:
        """Start NATS, then services and kube-scheduler with the chart's configuration and their accounts' tokens."""
        await start(started, here.nats())
        allocator = await self.kubeconfig_of("allocator", here.folder)
        scheduler = await self.kubeconfig_of("scheduler", here.folder)
        config = here.scheduler_config(clientConnection={"kubeconfig": str(scheduler)})
        await start(
            started, here.webhook(), here.extender(), here.allocator("allocator", allocator),
            here.allocator("allocator-2", allocator), secured(binaries / "kube-scheduler", f"--config={config}"),
        )  # fmt: skip


async def hamictl(env: Mapping[str, str], *arguments: str) -> tuple[int, str]:
    """Run hamictl with this environment alone; return how it ended, and what it printed."""
    command = [str(BIN / "hamictl"), *arguments]
    process = await asyncio.create_subprocess_exec(*command, env=env, stdout=asyncio.subprocess.PIPE)
    said, _ = await process.communicate()
    return process.returncode or 0, said.decode()


async def start(started: Processes, *specs: Spec) -> None:
    """Start some processes side by side, and wait until all are ready."""
    for running in [await started.start(spec) for spec in specs]:
        await running.wait_ready(READY)
