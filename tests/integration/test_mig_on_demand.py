"""Pods that ask for MIG instances, from the request to the last instance destroyed: every part of the system, and the
real nvidia-ml-py on a scripted driver."""

import asyncio
import json
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from hami_testkit.nvml import A100, FakeNvml, NoCompiler, fake_nvml
from hami_testkit.stack import Agent, Plan, Stack, stack

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(180)]

Json = dict[str, Any]
DEADLINE = 60.0
NODE = "mig-a"
PODS = "/api/v1/namespaces/default/pods"
PIECES = "hami.io/vgpu-mig-allocations"
NODES = f"""
apiVersion: v1
kind: NodeList
items: [{{metadata: {{name: {NODE}}}}}]
"""


class System:
    """The running system with its one card."""

    def __init__(self, parts: Stack, nvml: FakeNvml, api: httpx.AsyncClient) -> None:
        self.parts = parts
        self.nvml = nvml
        self._api = api

    async def apply(self, name: str, mib: int, *, init_mib: int = 0) -> None:
        """Create a pod that asks for an instance of so much memory, and for one before it starts."""
        spec: Json = {"containers": [a_container("main", mib)]}
        if init_mib:
            spec["initContainers"] = [a_container("first", init_mib)]
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}
        assert 201 == (await self._api.post(PODS, json=pod)).status_code

    async def wait(self, name: str, is_so: Callable[[Json], bool]) -> Json:
        """Return a pod once something is so of it."""
        async with asyncio.timeout(DEADLINE):
            while not is_so(pod := (await self._api.get(f"{PODS}/{name}")).json()):
                await asyncio.sleep(0.05)
            return pod  # type: ignore[no-any-return]

    async def delete(self, name: str) -> None:
        """Delete a pod."""
        await self._api.delete(f"{PODS}/{name}")

    async def clear(self) -> None:
        """Delete every pod, and wait until all instances are destroyed."""
        for pod in (await self._api.get(PODS)).json()["items"]:
            await self.delete(pod["metadata"]["name"])
        async with asyncio.timeout(DEADLINE):
            while self.nvml.made:
                await asyncio.sleep(0.05)

    def env(self, pod: Json, container: str = "main") -> dict[str, str]:
        """Return the environment that the kubelet gave a container."""
        file = self.parts.plan.folder / "k" / NODE / "containers" / f"{pod['metadata']['uid']}_{container}.json"
        env: dict[str, str] = json.loads(file.read_text())["envs"]
        return env

    @property
    def places(self) -> list[tuple[int, int]]:
        """Return where the card has instances."""
        return sorted((made.start, made.size) for made in self.nvml.made)


def a_container(name: str, mib: int) -> Json:
    limits = {"nvidia.com/gpu": "1", "nvidia.com/gpumem": str(mib)}
    return {"name": name, "image": "app", "resources": {"limits": limits}}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def system() -> AsyncIterator[System]:
    # a short path: the kubelet's sockets stand below it
    with tempfile.TemporaryDirectory(prefix="hami-") as name:
        folder = Path(name)
        (folder / "nodes.yaml").write_text(NODES)
        (folder / "config.json").write_text(f'{{"nodeconfig": [{{"name": "{NODE}", "operatingmode": "mig"}}]}}')
        environment = {
            "HAMI_PROBES": "nvml",
            "HAMI_DRIVER_ROOT": str(folder / "driver"),
            "FAKE_NVML": str(folder / "driver" / "nvml.script"),
            "HAMI_NODE_CONFIG": str(folder / "config.json"),
        }
        agents = [Agent(node=NODE, environment=environment)]
        plan = Plan(folder=folder / "s", nodes=folder / "nodes.yaml", agents=agents, allocators=2)
        try:
            with fake_nvml(folder / "driver", A100) as nvml:
                async with stack(plan) as parts, httpx.AsyncClient(base_url=parts.at.api, trust_env=False) as api:
                    yield System(parts, nvml, api)
        except NoCompiler as e:
            pytest.skip(str(e))


@pytest_asyncio.fixture(autouse=True, loop_scope="module")
async def cleared(system: System) -> AsyncIterator[None]:
    """Leave nothing to the next test."""
    yield
    await system.clear()


def is_running(pod: Json) -> bool:
    return bool(pod["status"].get("phase") == "Running")


def is_served(pod: Json) -> bool:
    return is_running(pod) and pod["metadata"]["annotations"].get("hami.io/bind-phase") == "success"


def waits(pod: Json) -> bool:
    return any(c.get("reason") == "Unschedulable" for c in pod["status"].get("conditions") or [])


def has_failed(pod: Json) -> bool:
    return bool(pod["status"].get("phase") == "Failed")


def pieces(pod: Json) -> list[tuple[int, str, int, int]]:
    """Return what the pod was promised: container, profile, and place."""
    entries = json.loads(pod["metadata"]["annotations"][PIECES])
    return [(e["containerIndex"], e["profile"], e["placement"]["start"], e["placement"]["size"]) for e in entries]


def identities(pod: Json) -> list[tuple[str, int, int]]:
    """Return what the pod says that its node has made for it."""
    entries = json.loads(pod["metadata"]["annotations"][PIECES])
    return [(e["migUUID"], e["gpuInstanceID"], e["computeInstanceID"]) for e in entries]


async def test_each_container_gets_an_instance_of_its_own(system: System) -> None:
    """Its environment names it and sets no limits; the pod says what the node made; with the pod they are destroyed."""
    await system.apply("half", 15000, init_mib=4000)
    half = await system.wait("half", is_served)
    places, made, env = system.places, {m.uuid: (m.uuid, m.id, 0) for m in system.nvml.made}, system.env(half)
    await system.clear()

    assert [(0, "1g.5gb"), (1, "3g.20gb")] == [piece[:2] for piece in pieces(half)]
    assert places == sorted(piece[2:] for piece in pieces(half))
    assert sorted(made.values()) == sorted(identities(half))
    assert {"NVIDIA_VISIBLE_DEVICES": identities(half)[1][0]} == env


async def test_where_one_was_destroyed_another_profile_fits(system: System) -> None:
    """The pod that waits for the whole card gets it once the other's containers are gone."""
    await system.apply("small", 4000)
    await system.wait("small", is_served)
    await system.apply("whole", 40000)
    await system.wait("whole", waits)
    await system.delete("small")
    whole = await system.wait("whole", is_served)
    (made,) = system.nvml.made

    assert ([(0, "7g.40gb", 0, 8)], made.uuid) == (pieces(whole), identities(whole)[0][0])


async def test_nobody_forgets_an_instance_by_starting_anew(system: System) -> None:
    """Neither the agent nor the allocator: the pod keeps it until it ends, and nobody else gets its place."""
    await system.apply("stays", 40000)
    stays = await system.wait("stays", is_served)
    made = system.nvml.made
    await system.parts.kill(f"agent-{NODE}")
    await system.parts.stop(leader := await system.parts.leader())
    await system.parts.wait_leader(other_than=leader)
    await system.parts.start(f"agent-{NODE}")
    await system.parts.start(leader)
    await system.apply("next", 4000)
    await system.wait("next", waits)
    kept = system.nvml.made
    await system.delete("stays")
    after = await system.wait("next", is_served)

    assert made == kept
    assert [(made[0].uuid, made[0].id, 0)] == identities(stays)
    assert "1g.5gb" == pieces(after)[0][1]


async def test_a_pod_whose_instance_cannot_be_made_is_told_why(system: System) -> None:
    """Nothing is left behind, and the next pod is served."""
    with system.nvml.failing("nvmlGpuInstanceCreateComputeInstance", 999):
        await system.apply("unlucky", 8000)
        failed = await system.wait("unlucky", has_failed)
    left = system.nvml.made
    await system.apply("lucky", 8000)
    lucky = await system.wait("lucky", is_served)
    (made,) = system.nvml.made

    assert "MIG instances of main cannot be made: 2g.10gb at " in failed["status"]["message"]
    assert [] == left
    assert made.uuid == identities(lucky)[0][0]
