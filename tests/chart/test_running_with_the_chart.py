"""The system runs with what the chart renders, from admission to devices: on the stand-in cluster."""

import asyncio
import json
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from hami_testkit.cluster import access
from hami_testkit.cluster.client import ApiClient
from hami_testkit.cluster.status import ApiError
from hami_testkit.processes import BIN, Processes, Spec, free_port, processes

from tests.chart.rendering import Json
from tests.chart.running import NODE, Installation, installation

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(180)]

READY = 60.0
DEADLINE = 30.0
PODS = "/api/v1/namespaces/default/pods"
WEBHOOKS = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations"
GPU = {"nvidia.com/gpu": "1", "nvidia.com/gpumem": "1000"}


class System:
    """The running system, as a test sees it."""

    def __init__(self, installed: Installation, api: ApiClient, kubeconfig: Path, started: Processes) -> None:
        self.installed = installed
        self.api = api
        self.kubeconfig = kubeconfig
        self.started = started

    async def run_pod(self, name: str, **resources: Json) -> Json:
        """Apply a pod and return it as it is once it runs."""
        spec = {"containers": [{"name": "main", "image": "app", "resources": resources}]}
        await self.api.create(PODS, {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec})
        async with asyncio.timeout(DEADLINE):
            while (pod := await self.api.get(f"{PODS}/{name}"))["status"].get("phase") != "Running":
                await asyncio.sleep(0.05)
        return pod

    async def hamictl(self, *arguments: str) -> tuple[int, str]:
        """Run hamictl as the user of NATS that is there for people."""
        env = {"HAMI_NATS_URL": self.installed.url("reader"), "KUBECONFIG": str(self.kubeconfig), "PATH": ""}
        process = await asyncio.create_subprocess_exec(
            str(BIN / "hamictl"), *arguments, env=env, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        said, _ = await process.communicate()
        return process.returncode or 0, said.decode()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def system() -> AsyncIterator[System]:
    # a short path: the kubelet's sockets stand below it
    with tempfile.TemporaryDirectory(prefix="hc-") as name:
        folder = Path(name)
        installed = installation(folder)
        async with processes(folder) as started:
            kubeconfig = await _ground(installed, started)
            async with access.connect(kubeconfig) as api:
                found = installed.found
                await api.create(WEBHOOKS, found.one("MutatingWebhookConfiguration", "hami-webhook"))
                maps = "/api/v1/namespaces/kube-system/configmaps"
                await api.create(maps, found.one("ConfigMap", "hami-scheduler"))
                await _start(
                    started, installed.webhook(), installed.extender(), installed.allocator("allocator", kubeconfig),
                    installed.allocator("allocator-2", kubeconfig), installed.agent(kubeconfig, folder / "k" / NODE),
                )  # fmt: skip
                yield System(installed, api, kubeconfig, started)


async def _ground(installed: Installation, started: Processes) -> Path:
    folder = installed.folder
    (folder / "nodes.yaml").write_text(f"apiVersion: v1\nkind: NodeList\nitems: [{{metadata: {{name: {NODE}}}}}]\n")
    listen, kubeconfig = f"127.0.0.1:{free_port()}", folder / "kubeconfig"
    command = [
        str(BIN / "hami-standin"), "--listen", listen, "--kubeconfig-out", str(kubeconfig),
        "--nodes", str(folder / "nodes.yaml"), "--kubelets", "--kubelet-root", str(folder / "k"),
        "--scheduler-config", str(installed.scheduler_config()),
    ]  # fmt: skip
    standin = Spec(name="standin", command=command, ready_url=f"http://{listen}/readyz", ground=True)
    await _start(started, installed.nats(), standin)
    return kubeconfig


async def _start(started: Processes, *specs: Spec) -> None:
    for running in [await started.start(spec) for spec in specs]:
        await running.wait_ready(READY)


async def test_a_pod_gets_its_slice(system: System) -> None:
    """Over the chart's certificate, webhook configuration, scheduler configuration, NATS users and device config."""
    pod = await system.run_pod("slice", limits=GPU)

    assert ("hami-scheduler", NODE) == (pod["spec"]["schedulerName"], pod["spec"]["nodeName"])
    assert ",NVIDIA,1000,0:;" in pod["metadata"]["annotations"]["hami.io/vgpu-devices-allocated"]


async def test_a_pod_without_devices_goes_past_us(system: System) -> None:
    """The webhook is away for it: it is created, and not by our scheduler."""
    await system.started.stop("webhook")
    try:
        pod = await system.run_pod("plain", limits={"cpu": "1"})
        assert pod["spec"].get("schedulerName", "default-scheduler") == "default-scheduler"
        with pytest.raises(ApiError, match="failed calling webhook"):
            await system.run_pod("refused", limits=GPU)
    finally:
        await (await system.started.start_again("webhook")).wait_ready(READY)


async def test_people_can_ask(system: System) -> None:
    """The user reader may ask what hamictl asks: nodes, why, what happened."""
    await system.run_pod("asked", limits=GPU)

    for arguments, says in [(("nodes",), NODE), (("explain", "asked"), "ACTIVE"), (("events",), "default/asked")]:
        code, said = await system.hamictl(*arguments)
        assert (0, True) == (code, says in said), said


async def test_the_doctor_finds_nothing(system: System) -> None:
    """Nothing is wrong with what was installed, and nothing is left unchecked."""
    account = "system:serviceaccount:kube-system:hami-"
    code, said = await system.hamictl(
        "doctor", "--allocator-as", f"{account}allocator", "--agent-as", f"{account}device-plugin", "-o", "json",
        "--no-enable-ascend", "--no-enable-iluvatar",
    )  # fmt: skip

    assert (0, []) == (code, json.loads(said)), said


async def test_no_service_wanted_more_of_nats_than_it_may(system: System) -> None:
    """NATS writes each violation into its log; the other tests have made the services do what they do."""
    await system.run_pod("last", limits=GPU)

    assert "Violation" not in system.started.find("nats").log_tail(10_000)
