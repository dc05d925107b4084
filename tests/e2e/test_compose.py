"""``docker compose up`` as users run it, where a Docker engine and the images are: the whole system in containers."""

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest
import pytest_asyncio
import yaml
from hami_testkit.check import assert_nothing_wrong
from hami_testkit.cluster.status import ApiError
from hami_testkit.demo import manifests
from hami_testkit.demo_cluster import is_running, refusal
from hami_testkit.processes import BIN

from tests.e2e.composed import OBSERVABILITY, ROOT, Composed, Json, composed, is_healthy, why_not

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(300)]
EXAMPLES = [ROOT / "examples" / vendor for vendor in ("nvidia", "ascend", "cambricon")]
"""Of these vendors the stack has nodes."""
PODS = "/api/v1/namespaces/default/pods"
DEADLINE = 120.0
PROMETHEUS = yaml.safe_load((ROOT / "deploy/compose/prometheus.yaml").read_text())


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def system(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Composed]:
    """Run the stack; all tests of the module stand on it."""
    if why := await asyncio.to_thread(why_not):
        pytest.skip(f"compose.yaml cannot run here: {why}")
    async with composed(tmp_path_factory.mktemp("compose")) as found:
        yield found


@pytest_asyncio.fixture(loop_scope="module", autouse=True)
async def no_pods(system: Composed) -> None:
    """Let each test begin without pods."""
    for pod in (await system.api.get(PODS))["items"]:
        await delete(system, pod["metadata"]["name"])
    async with asyncio.timeout(DEADLINE):
        while (await system.api.get(PODS))["items"]:
            await asyncio.sleep(0.1)


async def delete(system: Composed, name: str) -> None:
    try:
        await system.api.delete(f"{PODS}/{name}")
    except ApiError as refused:
        if refused.code != 404:
            raise


def a_pod(name: str) -> Json:
    """Return a pod that asks for a slice of which each card has room for several."""
    limits = {"nvidia.com/gpu": "1", "nvidia.com/gpumem": "4000", "nvidia.com/gpucores": "10"}
    container = {"name": "main", "image": "busybox", "command": ["sleep", "infinity"], "resources": {"limits": limits}}
    return {"metadata": {"name": name}, "spec": {"containers": [container]}}


async def fates(system: Composed, names: Sequence[str]) -> tuple[set[str], set[str]]:
    """Wait until each of these pods runs or was refused; return who runs, and who waits."""
    async with asyncio.timeout(DEADLINE):
        while True:
            pods = {pod["metadata"]["name"]: pod for pod in (await system.api.get(PODS))["items"]}
            running = {name for name in names if name in pods and is_running(pods[name])}
            waiting = {name for name in names if name in pods and refusal(pods[name])} - running
            if running | waiting == set(names):
                return running, waiting
            await asyncio.sleep(0.1)


async def wait_running(system: Composed, names: Sequence[str]) -> None:
    async with asyncio.timeout(DEADLINE):
        while (await fates(system, names))[0] != set(names):
            await asyncio.sleep(0.1)


async def test_every_container_is_healthy(system: Composed) -> None:
    """One of each service and two allocators; of the profile nothing."""
    found = system.containers()

    services = ["agent-gpu-a", "agent-gpu-b", "allocator", "allocator", "cluster", "extender", "nats", "webhook"]
    assert services == sorted(str(container.Service) for container in found)
    assert [] == [container for container in found if not is_healthy(container)]


async def test_the_examples_run(system: Composed) -> None:
    """Each pod gets its devices or waits with a reason; no card is given twice."""
    names = []
    for file in manifests(EXAMPLES):
        for pod in yaml.safe_load_all(file.read_text()):
            await system.api.create(PODS, pod)
            names.append(pod["metadata"]["name"])

    running, waiting = await fates(system, names)

    assert {"never-fits"} == waiting
    assert len(names) - 1 == len(running)
    await assert_nothing_wrong(system.kubeconfig)


async def test_the_demo_shows_the_stack(system: Composed) -> None:
    """``make demo CLUSTER=compose``: it finds nothing wrong, and leaves the stack running."""
    process = await asyncio.create_subprocess_exec(
        BIN / "hami-demo", "--cluster", "compose", cwd=ROOT,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    said = (await process.communicate())[0].decode()

    assert process.returncode == 0, said
    assert "found nothing wrong" in said
    await system.wait_healthy(DEADLINE)


async def test_another_allocator_leads_when_the_container_of_the_leader_is_killed(system: Composed) -> None:
    """Pods that come meanwhile are bound by the other, and no card is given twice."""
    leader = await system.leader()
    assert leader
    await system.api.create(PODS, a_pod("before"))
    await wait_running(system, ["before"])

    await system.docker("kill", leader)
    names = [f"comes-{at}" for at in range(12)]
    for name in names:
        await system.api.create(PODS, a_pod(name))

    await wait_running(system, ["before", *names])
    assert await system.leader() not in ("", leader)
    await assert_nothing_wrong(system.kubeconfig)
    await system.docker("start", leader)
    await system.wait_healthy(DEADLINE)


async def test_nats_comes_back(system: Composed) -> None:
    """Pods that come while it is away wait for it; what was given stays given."""
    await system.api.create(PODS, a_pod("before"))
    await wait_running(system, ["before"])
    given = (await system.api.get(f"{PODS}/before"))["metadata"]["annotations"]["hami.io/vgpu-devices-allocated"]
    nats = next(container.ID for container in system.containers() if container.Service == "nats")
    assert nats

    await system.docker("stop", nats)
    await system.api.create(PODS, a_pod("meanwhile"))
    await system.docker("start", nats)

    await wait_running(system, ["before", "meanwhile"])
    await system.wait_healthy(DEADLINE)
    kept = (await system.api.get(f"{PODS}/before"))["metadata"]["annotations"]["hami.io/vgpu-devices-allocated"]
    assert given == kept
    await assert_nothing_wrong(system.kubeconfig)


# The profile "observability"


def targets() -> list[str]:
    """Return what Prometheus is told to read."""
    jobs = PROMETHEUS["scrape_configs"]
    fixed = [target for job in jobs for each in job.get("static_configs", []) for target in each["targets"]]
    named = [
        f"{name}:{each['port']}" for job in jobs for each in job.get("dns_sd_configs", []) for name in each["names"]
    ]
    return [*fixed, *named]


@pytest.mark.parametrize("target", targets())
async def test_prometheus_finds_what_it_is_told_to_read(system: Composed, target: str) -> None:
    """By the names of the stack's network, as Prometheus would; its own image is not needed for that."""
    read = f"import urllib.request as u; print(u.urlopen('http://{target}/metrics', timeout=5).read().decode())"

    said, _, _ = await asyncio.to_thread(system.compose.exec_in_container, ["python3", "-c", read], "cluster")

    assert "\n# TYPE hami_" in f"\n{said}"


async def test_the_profile_observability_runs(system: Composed) -> None:
    """Collector, Jaeger, Prometheus and Grafana start beside the rest, where their images are."""
    if why := await asyncio.to_thread(why_not, OBSERVABILITY):
        pytest.skip(f"the profile observability cannot run here: {why}")
    said = await system.docker("compose", "--profile", OBSERVABILITY, "up", "-d", "--wait", "--pull", "never")
    names = {container.Service for container in system.containers() if container.State == "running"}
    assert {"collector", "jaeger", "prometheus", "grafana"} <= names, said
