"""A cluster in which the chart's pods really run: control plane with controllers, a node whose pods have a network.

One rule: nothing of ours runs but what Helm installs; cards come from a file where HAMi-core's folder is, since no
driver is here.
"""

import asyncio
import base64
import json
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import yaml
from hami_testkit import pod_network, real_node
from hami_testkit.cluster.access import connect
from hami_testkit.cluster.client import ApiClient
from hami_testkit.real_cluster import control_plane_of_pods

from tests.chart.in_cluster import Cluster, hamictl
from tests.chart.rendering import CHART, NAMESPACE
from tests.e2e import images
from tests.e2e.ground import DEADLINE, Json, wait_event

RELEASE, NODE = "hami", "gpu-1"
PODS, SYSTEM = "/api/v1/namespaces/default/pods", f"/api/v1/namespaces/{NAMESPACE}/pods"
CARDS = Path("/usr/local/vgpu/cards.yaml")
VALUES = f"devicePlugin.extraEnvs.HAMI_PROBES=sim:{CARDS}"
OURS = {"labelSelector": f"app.kubernetes.io/instance={RELEASE}"}
INSTALLED_WITHIN = 150.0
LOCKS = Path("/tmp/vgpulock")  # noqa: S108 - a node's, as HAMi-core has it
"""HAMi-core's folder on every node, whatever the values say."""


class Charted:
    """The cluster, as its administrator sees it."""

    def __init__(self, kubeconfig: Path, api: ApiClient, node: real_node.RealNode) -> None:
        self.kubeconfig = kubeconfig
        self.api = api
        self.node = node
        self.chart = Cluster(kubeconfig, api, VALUES)

    async def pods(self) -> list[Json]:
        """Return the chart's pods, with those that are about to go."""
        return list((await self.api.get(SYSTEM, OURS))["items"])

    async def wait_ready(self) -> list[Json]:
        """Wait until every workload has rolled out, and return its pods."""
        try:
            async with asyncio.timeout(INSTALLED_WITHIN):
                while not all(map(is_rolled_out, await self._workloads())):
                    await asyncio.sleep(0.5)
                while any(pod["metadata"].get("deletionTimestamp") for pod in await self.pods()):
                    await asyncio.sleep(0.5)
        except TimeoutError as e:
            raise AssertionError(self._state(await self.pods())) from e
        return await self.pods()

    async def _workloads(self) -> list[Json]:
        kinds = ("deployments", "daemonsets", "statefulsets")
        lists = [await self.api.get(f"/apis/apps/v1/namespaces/{NAMESPACE}/{kind}", OURS) for kind in kinds]
        return [found for each in lists for found in each["items"]]

    def _state(self, pods: list[Json]) -> str:
        """Say how the pods are, and what they printed last."""
        said = [f"{p['metadata']['name']}: {json.dumps(p['status'].get('containerStatuses'))[:600]}" for p in pods]
        return "\n".join(["the chart's pods are not ready:", *said, self._printed()])

    def logs(self) -> list[Path]:
        """Return the files of what the chart's containers print."""
        return sorted(self.node.logs.glob(f"{NAMESPACE}_*/*/*.log"))

    def _printed(self) -> str:
        return "\n".join(
            "\n".join([str(log.relative_to(self.node.logs)), *log.read_text().splitlines()[-8:]]) for log in self.logs()
        )

    async def wait(self, name: str, is_so: Callable[[Json], bool]) -> Json:
        """Wait until a user's pod is as ``is_so`` asks, and return it."""
        try:
            return await wait_event(self.api, PODS, is_so, DEADLINE, fieldSelector=f"metadata.name={name}")
        except TimeoutError as e:
            status = json.dumps((await self.api.get(f"{PODS}/{name}"))["status"], indent=1)
            raise AssertionError(f"pod {name} did not become what was waited for: {status}\n{self._printed()}") from e

    async def hamictl(self, *arguments: str) -> tuple[int, str]:
        """Run hamictl as the how-to says, over the Service of NATS."""
        secret = await self.api.get(f"/api/v1/namespaces/{NAMESPACE}/secrets/{RELEASE}-nats")
        password = base64.b64decode(secret["data"]["reader"]).decode()
        service = await self.api.get(f"/api/v1/namespaces/{NAMESPACE}/services/{RELEASE}-nats")
        url = f"nats://reader:{password}@{service['spec']['clusterIP']}:4222"
        env = {"HAMI_NATS_URL": url, "KUBECONFIG": str(self.kubeconfig), "PATH": ""}
        return await hamictl(env, *arguments)

    async def left_behind(self) -> dict[str, list[str]]:
        """Return every object that is a release's, or has its name, by kind; events tell what was."""
        groups = [group["preferredVersion"]["groupVersion"] for group in (await self.api.get("/apis"))["groups"]]
        found: dict[str, list[str]] = {}
        for path in ("/api/v1", *(f"/apis/{group}" for group in groups)):
            for resource in (await self.api.get(path))["resources"]:
                if "list" in resource["verbs"] and resource["kind"] != "Event":
                    items = (await self.api.get(f"{path}/{resource['name']}"))["items"]
                    found[resource["kind"]] = [item["metadata"]["name"] for item in items if is_of_release(item)]
        return {kind: names for kind, names in found.items() if names}


def is_of_release(found: Json) -> bool:
    """Say whether an object was installed, or made by what was installed."""
    meta = found["metadata"]
    labels = meta.get("labels") or {}
    return labels.get("app.kubernetes.io/instance") == RELEASE or meta["name"].startswith(f"{RELEASE}-")


def is_rolled_out(workload: Json) -> bool:
    """Say whether all pods of a workload are of its newest template, and ready, as ``kubectl rollout status`` does."""
    status = workload.get("status") or {}
    if status.get("observedGeneration", 0) < workload["metadata"]["generation"]:
        return False
    if "desiredNumberScheduled" in status:  # a DaemonSet
        wanted, there = status["desiredNumberScheduled"] or 1, status["currentNumberScheduled"]
        ready, updated = status.get("numberAvailable", 0), status.get("updatedNumberScheduled", 0)
    else:
        wanted, there = workload["spec"]["replicas"], status.get("replicas", 0)
        ready, updated = status.get("availableReplicas", 0), status.get("updatedReplicas", 0)
    return bool(wanted == there == ready == updated)


def why_not(binaries: Path) -> str:
    """Return why the chart's pods cannot run here, in one sentence; empty where they can."""
    return real_node.why_not(binaries) or pod_network.why_not()


@asynccontextmanager
async def a_charted_cluster(binaries: Path) -> AsyncIterator[Charted]:
    """Run the cluster until the block is left; nothing is installed yet."""
    with _as_it_was(LOCKS), tempfile.TemporaryDirectory(prefix="e2e-") as name:
        folder = Path(name)
        async with (
            pod_network.a_link(),
            control_plane_of_pods(binaries, folder) as kubeconfig,
            connect(kubeconfig) as api,
            pod_network.names(api),
        ):
            names = _names((await api.get("/version"))["gitVersion"])
            archive = await asyncio.to_thread(images.pack, folder / "images.tar", names, binaries)
            node = real_node.real_node(binaries, folder, kubeconfig, NODE, images=[archive], pods_have_a_network=True)
            async with node as running:
                cards = running.place(CARDS)
                cards.parent.mkdir()
                cards.write_text(yaml.safe_dump(_cards()))
                await api.patch(f"/api/v1/nodes/{NODE}", {"metadata": {"labels": {"gpu": "on"}}})
                yield Charted(kubeconfig, api, running)


@contextmanager
def _as_it_was(folder: Path) -> Iterator[None]:
    """Remove a folder after the block that was not there before it."""
    was_there = folder.exists()
    try:
        yield
    finally:
        if not was_there:
            shutil.rmtree(folder, ignore_errors=True)


def _names(version: str) -> list[str]:
    """Return the names of all images that the chart asks for; ``version`` is kube-scheduler's."""
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    ours = yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"]
    nats, library = values["nats"]["image"], values["devicePlugin"]["libraryImage"]
    return [
        *(f"docker.io/hami/{name}:{ours}" for name in ("webhook", "extender", "allocator", "node-agent")),
        f"docker.io/library/{nats['repository']}:{nats['tag']}",
        f"docker.io/{library['repository']}:{library['tag']}",
        f"registry.k8s.io/kube-scheduler:{version}",
    ]


def _cards() -> list[Json]:
    return [
        {"vendor": "NVIDIA", "id": f"GPU-{i}", "index": i, "count": 10, "devmem": 40_000, "type": "NVIDIA A40"}
        for i in range(2)
    ]
