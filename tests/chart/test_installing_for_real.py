"""``helm install``, ``upgrade``, ``uninstall`` on a real API server, and the services with the rights they get there.

It needs etcd, kube-apiserver and kube-scheduler: HAMI_TEST_KUBE_BIN names their folder.
"""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from hami_testkit.cluster import access
from hami_testkit.cluster.status import ApiError
from hami_testkit.processes import processes
from hami_testkit.real_cluster import control_plane

from tests.chart.in_cluster import Cluster, hamictl
from tests.chart.rendering import NAMESPACE, Json
from tests.chart.running import NAMES, Installation, Ports, values

BINARIES = os.environ.get("HAMI_TEST_KUBE_BIN")
pytestmark = [
    pytest.mark.e2e,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.timeout(300),
    pytest.mark.skipif(BINARIES is None, reason="HAMI_TEST_KUBE_BIN names no folder of Kubernetes' binaries"),
]

DEADLINE = 60.0
PODS = "/api/v1/namespaces/default/pods"
ACCOUNT = f"system:serviceaccount:{NAMESPACE}:hami-"
HAMI = Path(__file__).parent / "hami-2.10"
KINDS = {
    "Secret": "/api/v1/secrets",
    "ConfigMap": "/api/v1/configmaps",
    "Deployment": "/apis/apps/v1/deployments",
    "ClusterRole": "/apis/rbac.authorization.k8s.io/v1/clusterroles",
    "MutatingWebhookConfiguration": "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations",
    "ValidatingAdmissionPolicy": "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies",
}
REGISTER = [{"id": "GPU-0", "count": 10, "devmem": 40000, "devcore": 100, "type": "NVIDIA A40", "health": True}]
AMOUNTS = {"cpu": "8", "memory": "16Gi", "pods": "110", "nvidia.com/gpu": "10"}
GPU = {"nvidia.com/gpu": "1", "nvidia.com/gpumem": "1000"}


async def names(cluster: Cluster, kind: str, release: str) -> set[str]:
    """Return the names of all objects of a kind that are a release's."""
    query = {"labelSelector": f"app.kubernetes.io/instance={release}"}
    return {found["metadata"]["name"] for found in (await cluster.api.get(KINDS[kind], query))["items"]}


@pytest.fixture(scope="module")
def ports() -> Ports:
    """Where everything of this machine listens."""
    return Ports.free(NAMES)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cluster(ports: Ports, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Cluster]:
    async with (
        control_plane(Path(str(BINARIES)), tmp_path_factory.mktemp("plane")) as kubeconfig,
        access.connect(kubeconfig) as api,
    ):
        yield Cluster(kubeconfig, api, values(ports))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def installed(
    cluster: Cluster, ports: Ports, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Installation]:
    """The chart in the cluster, the services on this machine with their own accounts' tokens, and a pod named slice."""
    folder = tmp_path_factory.mktemp("services")
    here = Installation(folder, ports, await cluster.helm("install"))
    meta = {"name": "gpu-a", "annotations": {"hami.io/node-nvidia-register": json.dumps(REGISTER)}}
    ready = [{"type": "Ready", "status": "True"}]
    await cluster.api.create("/api/v1/nodes", {"apiVersion": "v1", "kind": "Node", "metadata": meta})
    status = {"capacity": AMOUNTS, "allocatable": AMOUNTS, "conditions": ready}
    await cluster.api.patch("/api/v1/nodes/gpu-a/status", {"status": status})
    async with processes(folder) as started:
        await cluster.start_services(started, here, Path(str(BINARIES)))
        await cluster.api.create(PODS, a_pod("slice", limits=GPU))
        yield here
    await cluster.uninstall()


def a_pod(name: str, annotations: dict[str, str] | None = None, **resources: Any) -> Json:
    meta = {"name": name, "annotations": annotations or {}}
    spec = {"containers": [{"name": "main", "image": "app", "resources": resources}]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec}


async def bound(cluster: Cluster, name: str) -> Json:
    async with asyncio.timeout(DEADLINE):
        while not (pod := await cluster.api.get(f"{PODS}/{name}"))["spec"].get("nodeName"):
            await asyncio.sleep(0.1)
    return pod


async def test_a_pod_is_bound_with_its_devices(cluster: Cluster, installed: Installation) -> None:
    """By the real kube-scheduler with the chart's configuration, and by the allocator with the chart's rights."""
    annotations = (await bound(cluster, "slice"))["metadata"]["annotations"]

    assert "GPU-0,NVIDIA,1000,0:;" == annotations["hami.io/vgpu-devices-allocated"]


async def test_the_doctor_finds_nothing_but_that_no_plugin_runs(cluster: Cluster, installed: Installation) -> None:
    """Rights, webhook, certificate, kube-scheduler's configuration, who is on the bus: judged on the real one."""
    env = {"HAMI_NATS_URL": installed.url("reader"), "KUBECONFIG": str(cluster.kubeconfig), "PATH": ""}
    _, said = await hamictl(
        env, "doctor", "-o", "json", "--no-enable-ascend", "--no-enable-iluvatar",
        "--allocator-as", f"{ACCOUNT}allocator", "--agent-as", f"{ACCOUNT}device-plugin",
    )  # fmt: skip

    assert [] == [found for found in json.loads(said) if found["rule"] != "unconfirmed"]


async def test_nobody_else_says_what_a_pod_holds(cluster: Cluster, installed: Installation) -> None:
    """Not even an administrator: the real server evaluates the policy."""
    forged = {"hami.io/vgpu-devices-allocated": "GPU-0,NVIDIA,40000,100:;"}
    await bound(cluster, "slice")

    with pytest.raises(ApiError, match="only the allocator decides which cards a pod holds"):
        await cluster.api.patch(f"{PODS}/slice", {"metadata": {"annotations": forged}})
    with pytest.raises(ApiError, match="only the allocator decides which cards a pod holds"):
        await cluster.api.create(PODS, a_pod("forged", forged))
    with pytest.raises(ApiError, match="only the allocator and device plugins may write"):
        await cluster.api.patch(f"{PODS}/slice", {"metadata": {"annotations": {"hami.io/bind-phase": "success"}}})
    await cluster.api.patch(f"{PODS}/slice", {"metadata": {"annotations": {"team": "ml"}}})


async def test_nobody_else_binds_a_pod_with_devices_of_its_choice(cluster: Cluster, installed: Installation) -> None:
    """Annotations of a Binding become the pod's without being asked of any webhook."""
    pod = a_pod("bound-by-hand", limits={"cpu": "1"})
    pod["spec"]["schedulerName"] = "nobody"
    await cluster.api.create(PODS, pod)
    target = {"apiVersion": "v1", "kind": "Node", "name": "gpu-a"}
    forged = {"hami.io/vgpu-node": "gpu-a", "hami.io/vgpu-devices-allocated": "GPU-0,NVIDIA,40000,100:;"}

    def binding(annotations: dict[str, str]) -> Json:
        meta = {"name": "bound-by-hand", "annotations": annotations}
        return {"apiVersion": "v1", "kind": "Binding", "metadata": meta, "target": target}

    with pytest.raises(ApiError, match="only the allocator decides which cards a pod holds"):
        await cluster.api.create(f"{PODS}/bound-by-hand/binding", binding(forged))
    await cluster.api.create(f"{PODS}/bound-by-hand/binding", binding({}))


async def test_nobody_wanted_more_of_kubernetes_than_it_may(cluster: Cluster, installed: Installation) -> None:
    """The API server's refusals stand in the logs of whoever was refused."""
    await bound(cluster, "slice")

    for name in ("kube-scheduler", "allocator", "allocator-2"):
        lines = (installed.folder / f"{name}.log").read_text().splitlines()
        assert (name, []) == (name, [line for line in lines if "forbidden" in line.lower()])


async def test_an_upgrade_keeps_certificate_and_passwords(cluster: Cluster, installed: Installation) -> None:
    """Nobody has to be restarted for them, and the API server trusts the webhook throughout."""
    upgraded = await cluster.helm("upgrade")

    for secret, key in [("hami-webhook-tls", "tls.key"), ("hami-webhook-tls", "ca.crt"), ("hami-nats", "allocator")]:
        assert installed.found.secret(secret, key) == upgraded.secret(secret, key)


async def test_other_hosts_get_another_certificate(cluster: Cluster, installed: Installation) -> None:
    """The one that is there would not be believed."""
    upgraded = await cluster.helm("upgrade", "scheduler.admissionWebhook.customURL.host=10.0.0.9")
    await cluster.helm("upgrade")

    assert installed.found.secret("hami-webhook-tls", "tls.crt") != upgraded.secret("hami-webhook-tls", "tls.crt")


async def test_the_kube_scheduler_is_of_this_clusters_version(cluster: Cluster, installed: Installation) -> None:
    """Its image's tag follows the server."""
    version = (await cluster.api.get("/version"))["gitVersion"]
    image = installed.found.container("hami-scheduler", "kube-scheduler")["image"]

    assert f"registry.k8s.io/kube-scheduler:{version}" == image


async def test_uninstalling_leaves_nothing(cluster: Cluster) -> None:
    """Every object goes with its release; another release beside it, of another namespace, is not touched."""
    ports = "scheduler.service.type=ClusterIP,devicePlugin.service.type=ClusterIP"
    await cluster.helm("install", ports, name="gpus", namespace="elsewhere")
    there = {kind: await names(cluster, kind, "gpus") for kind in KINDS}
    await cluster.uninstall("gpus", "elsewhere")

    assert all(there.values())
    assert {kind: set() for kind in KINDS} == {kind: await names(cluster, kind, "gpus") for kind in KINDS}


async def test_an_upgrade_from_hami_changes_its_objects_in_place(cluster: Cluster) -> None:
    """Selectors and node ports stay, what is needed no more goes, and HAMi's containers leave their pods."""
    release = {"name": "hami-old", "namespace": "from-hami"}
    ports = (
        "scheduler.service.schedulerPort=30998,scheduler.service.monitorPort=30993,devicePlugin.service.httpPort=30992"
    )
    await cluster.helm("install", ports, chart=HAMI, **release)
    path = KINDS["Deployment"].replace("/deployments", "/namespaces/from-hami/deployments/hami-old-scheduler")
    before = await cluster.api.get(path)
    await cluster.helm("upgrade", ports, **release)
    after = await cluster.api.get(path)
    await cluster.uninstall(**release)

    assert before["metadata"]["uid"] == after["metadata"]["uid"]
    assert ["kube-scheduler", "vgpu-scheduler-extender"] == [
        container["name"] for container in after["spec"]["template"]["spec"]["containers"]
    ]
    assert ["hami-extender"] == after["spec"]["template"]["spec"]["containers"][1]["command"]
    assert "https" not in str(after["spec"]["template"]["spec"]["containers"][1]["ports"])
