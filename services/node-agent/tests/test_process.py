"""The agent as users start it: the command, its environment, a NATS server, a cluster, a kubelet."""

import asyncio
import os
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import msgspec
import pytest
from hami_kit import bus as buses
from hami_kit.bus import Bus, BusSettings, Endpoint
from hami_kit.telemetry import Telemetry
from hami_model import annotations, vendors
from hami_model.allocation import Allocation, ContainerGrants, Cut, Grant, MadeInstance
from hami_model.bus import subjects
from hami_model.bus.events import CloudEvent
from hami_model.bus.messages import (
    Confirm,
    Done,
    Drift,
    Heartbeat,
    Inventory,
    MeasuredCard,
    MeasuredContainer,
    ReportWanted,
)
from hami_model.config import DEFAULTS
from hami_model.device import Placement
from hami_model.objects import Container, Meta, Pod, PodRef, PodSpec
from hami_model.request import Role
from hami_testkit.cluster import Standin
from hami_testkit.cluster.client import ApiClient
from hami_testkit.cluster.kubelet import Kubelet
from hami_testkit.nvml import A100, Card, NoCompiler, Process, fake_nvml
from hami_testkit.processes import BIN, Processes, Spec, free_port, processes
from hami_testkit.regions import write_region
from msgspec import Struct

NODE = "gpu.node-1"
GPU = "nvidia.com/gpu"
CARDS = "- {id: GPU-a, vendor: NVIDIA, count: 4, devmem: 10000, type: NVIDIA A40}\n"
PODS = "/api/v1/namespaces/default/pods"


class Allocator:
    """Whoever leads: it takes note of what the agent says."""

    def __init__(self) -> None:
        self.heard: list[Struct] = []
        self._news = asyncio.Event()

    async def take(self, message: Struct) -> Done:
        self.heard.append(message)
        self._news.set()
        return Done()

    async def take_from(self, _subject: str, message: Struct) -> None:
        await self.take(message)

    async def wait_for(self, kind: type[Struct], times: int = 1) -> None:
        async with asyncio.timeout(20):
            while sum(isinstance(message, kind) for message in self.heard) < times:
                self._news.clear()
                await self._news.wait()

    async def wait_beat(self, has: Callable[[Heartbeat], object]) -> Heartbeat:
        """Return the first heartbeat that has something."""
        async with asyncio.timeout(30):
            while not (found := [beat for beat in self.heard if isinstance(beat, Heartbeat) and has(beat)]):
                self._news.clear()
                await self._news.wait()
        return found[0]

    @asynccontextmanager
    async def listening(self, url: str) -> AsyncIterator[Bus]:
        async with buses.connect(BusSettings(url=url), name="allocator", telemetry=Telemetry()) as bus:
            endpoints = [
                Endpoint("inventory", subjects.of_any_node("inventory"), Inventory, self.take),
                Endpoint("confirm", subjects.of_any_node("confirm"), Confirm, self.take),
            ]
            serving = await bus.serve("hami-allocator", endpoints)
            beats = await bus.subscribe(subjects.of_any_node("heartbeat"), Heartbeat, self.take_from)
            events = await bus.subscribe(subjects.ALL_EVENTS, CloudEvent, self.take_from)
            try:
                yield bus
            finally:
                await serving.stop()
                await beats.stop()
                await events.stop()


class Place(Struct):
    """Where one test runs: its folder, its cluster, its kubelet, the port of its NATS server."""

    root: Path
    api: ApiClient
    kubelet: Kubelet
    started: Processes
    port: int
    health: str

    @property
    def nats(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    async def start_nats(self) -> None:
        where = ["-a", "127.0.0.1", "-p", str(self.port), "-js", "-sd", str(self.root / "nats")]
        command = [str(BIN / "nats-server"), *where]
        await self.started.start(Spec(name="nats", command=command))

    async def start_agent(self, **more: str) -> None:
        """Start the command and wait until it is ready: registered with the kubelet, its pods listed."""
        env = {
            "HAMI_NATS_URL": self.nats,
            "KUBECONFIG": str(self.root / "kubeconfig"),
            "HAMI_HEALTH_LISTEN": self.health,
            "HAMI_NODE_NAME": NODE,
            "HAMI_KUBELET_DIR": str(self.root / "k"),
            "HAMI_HOOK_PATH": str(self.root / "hook"),
            "HAMI_LOCK_DIR": str(self.root / "lock"),
            "HAMI_PROBES": f"sim:{self.root / 'cards.yaml'}",
            **more,
        }
        command = [str(BIN / "hami-node-agent")]
        agent = await self.started.start(
            Spec(name="agent", command=command, env=env, ready_url=f"http://{self.health}/readyz")
        )
        await agent.wait_ready(30)

    async def run_pod(self, name: str, grant: Grant | None = None) -> PodRef:
        """Create a pod, bind it as the allocator does, and wait until it runs."""
        limits = {GPU: "1", "nvidia.com/gpumem": "3000"}
        container = {"name": "main", "image": "app", "resources": {"limits": limits}}
        body = {"metadata": {"name": name, "namespace": "default"}, "spec": {"containers": [container]}}
        made = await self.api.create(PODS, {"apiVersion": "v1", "kind": "Pod", **body})
        ref = PodRef("default", name, made["metadata"]["uid"])
        written = annotations.allocation_annotations(CATALOG, an_allocation(ref, grant), a_pod(ref), now=1.0)
        binding = {
            "metadata": {"name": name, "uid": ref.uid, "annotations": written},
            "target": {"kind": "Node", "name": NODE},
        }
        await self.api.create(f"{PODS}/{name}/binding", {"apiVersion": "v1", "kind": "Binding", **binding})
        async with asyncio.timeout(20):
            while (await self.api.get(f"{PODS}/{name}"))["status"].get("phase") != "Running":  # noqa: ASYNC110  polled
                await asyncio.sleep(0.05)
        return ref


CATALOG = vendors.build(DEFAULTS, ascend=False, iluvatar=False)


@pytest.fixture
async def place() -> AsyncIterator[Place]:
    raw_node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE}}
    with tempfile.TemporaryDirectory(prefix="hp") as folder:
        root = Path(folder)
        (root / "cards.yaml").write_text(CARDS)
        async with (
            Standin.start(nodes=[raw_node]) as cluster,
            ApiClient.connect(cluster.url) as api,
            Kubelet(api, NODE, root / "k").running() as kubelet,
            processes(root) as started,
        ):
            cluster.kubeconfig(root / "kubeconfig")
            yield Place(
                root=root,
                api=api,
                kubelet=kubelet,
                started=started,
                port=free_port(),
                health=f"127.0.0.1:{free_port()}",
            )


def a_pod(ref: PodRef) -> Pod:
    meta = Meta(name=ref.name, namespace=ref.namespace, uid=ref.uid)
    return Pod(metadata=meta, spec=PodSpec(containers=[Container(name="main")]))


def an_allocation(ref: PodRef, grant: Grant | None = None) -> Allocation:
    grants = (grant or Grant(uuid="GPU-a", vendor="NVIDIA", memory=3000, cores=30),)
    containers = (ContainerGrants(name="main", role=Role.APP, grants=grants),)
    return Allocation(pod=ref, node=NODE, containers=containers)


async def test_an_agent_reports_serves_and_confirms(place: Place) -> None:
    """One card, one pod, a node name with a dot: inventory, heartbeat, environment, confirmation; asked, it answers."""
    allocator = Allocator()
    await place.start_nats()
    async with allocator.listening(place.nats) as bus:
        await bus.wait_connected()
        await place.start_agent()
        await allocator.wait_for(Inventory)
        await allocator.wait_for(Heartbeat)
        ref = await place.run_pod("p")
        await allocator.wait_for(Confirm)
        asked = await bus.request(subjects.of_node(NODE, "report"), ReportWanted(node=NODE), Done, timeout=5)
        await allocator.wait_for(Inventory, 2)

    heard = {type(message): message for message in allocator.heard}
    assert asked == Done()
    assert heard[Confirm] == Confirm(node=NODE, pod=ref, container="main", devices=["GPU-a"], complete=True)
    assert heard[Heartbeat].digest == heard[Inventory].digest  # type: ignore[attr-defined]
    env = place.kubelet.container_env("default", "p", "main")
    assert (env["NVIDIA_VISIBLE_DEVICES"], env["CUDA_DEVICE_MEMORY_LIMIT_0"]) == ("GPU-a", "3000m")


async def test_an_agent_serves_the_cards_that_the_driver_shows(place: Place) -> None:
    """By NVML, from below the driver's root; a card with an error that counts is unhealthy for the kubelet at once."""
    allocator = Allocator()
    await place.start_nats()
    try:
        with fake_nvml(place.root / "driver", Card(uuid="GPU-a"), Card(uuid="GPU-b")) as driver:
            script = str(place.root / "driver" / "nvml.script")
            async with allocator.listening(place.nats) as bus:
                await bus.wait_connected()
                await place.start_agent(
                    HAMI_PROBES="nvml",
                    HAMI_DRIVER_ROOT=str(place.root / "driver"),
                    FAKE_NVML=script,
                    HAMI_LIBRARY_DIR=str(a_library(place.root / "core")),
                )
                await allocator.wait_for(Inventory)
                await place.run_pod("p")
                driver.change("GPU-b", recovery=1)
                await allocator.wait_for(Inventory, 2)
    except NoCompiler as e:
        pytest.skip(str(e))

    told = [message for message in allocator.heard if isinstance(message, Inventory)]
    assert [(d.id, d.memory, d.slots, d.healthy) for d in told[0].devices] == [
        ("GPU-a", 49152, 10, True),
        ("GPU-b", 49152, 10, True),
    ]
    assert [(d.id, d.healthy) for d in told[-1].devices] == [("GPU-a", True), ("GPU-b", False)]
    assert place.kubelet.container_env("default", "p", "main")["NVIDIA_VISIBLE_DEVICES"] == "GPU-a"
    assert (told[0].driver, told[0].cuda) == ("550.54.15", "12.4")
    home = place.root / "hook" / "vgpu"
    assert (home / "ld.so.preload").read_text() == f"{home}/libvgpu.so\n"
    assert (home / "libvgpu.so").read_bytes() == (place.root / "core" / "libvgpu.so").read_bytes()


async def test_what_is_really_used_is_told_and_shown(place: Place) -> None:
    """By the driver for the card, by HAMi-core for the container: on the bus, and under the names of HAMi's monitor."""
    allocator = Allocator()
    await place.start_nats()
    try:
        with fake_nvml(place.root / "driver", Card(uuid="GPU-a", used=3 << 30, busy=(40, 7))):
            async with allocator.listening(place.nats) as bus:
                await bus.wait_connected()
                await place.start_agent(
                    HAMI_PROBES="nvml",
                    HAMI_DRIVER_ROOT=str(place.root / "driver"),
                    FAKE_NVML=str(place.root / "driver" / "nvml.script"),
                    HAMI_LIBRARY_DIR=str(a_library(place.root / "core")),
                    HAMI_LEGACY_METRICS="true",
                )
                ref = await place.run_pod("p")
                folder = place.root / "hook" / "vgpu" / "containers" / f"{ref.uid}_main"
                write_region(folder / "0b7c.cache", "GPU-a", "GPU-b")
                beat = await allocator.wait_beat(lambda beat: beat.containers)
                async with httpx.AsyncClient(trust_env=False) as http:
                    shown = (await http.get(f"http://{place.health}/metrics")).text
    except NoCompiler as e:
        pytest.skip(str(e))

    assert beat.cards == [MeasuredCard(device="GPU-a", memory=3072, busy=40)]
    assert beat.containers[0] == MeasuredContainer(pod=ref, container="main", device="GPU-a", memory=0, cores=40)
    card = f'device_index="0",device_type="NVIDIA A40",device_uuid="GPU-a",node="{NODE}",zone="vGPU"'
    first = 'container="main",device_uuid="GPU-a",namespace="default",pod="p",vdevice_index="0",zone="vGPU"'
    for line in (
        f"hami_host_gpu_memory_used_bytes{{{card}}} 3.221225472e+09",
        f"hami_host_gpu_utilization_ratio{{{card}}} 40.0",
        f"hami_host_gpu_memory_controller_utilization_ratio{{{card}}} 7.0",
        f"hami_vgpu_memory_used_bytes{{{first}}} 12000.0",
        f"hami_vgpu_memory_limit_bytes{{{first}}} 1.073741824e+09",
        f"hami_container_device_memory_bytes{{{first}}} 12000.0",
        f"hami_container_device_utilization_ratio{{{first}}} 40.0",
        f"hami_vgpu_memory_context_bytes{{{first}}} 4000.0",
        f"hami_vgpu_memory_module_bytes{{{first}}} 0.0",
        f"hami_vgpu_memory_buffer_bytes{{{first}}} 8000.0",
    ):
        assert line in ordered(shown)
    assert f"hami_container_last_kernel_elapsed_seconds{{{first}}}" in "\n".join(ordered(shown))
    assert "vGPU_device_memory_usage_in_bytes{" in shown


async def test_a_pods_process_on_the_wrong_card_is_told_and_shown(place: Place) -> None:
    """By the driver and the process's cgroup: an event, a number, and with each heartbeat while it lasts."""
    allocator = Allocator()
    await place.start_nats()
    try:
        with fake_nvml(place.root / "driver", Card(uuid="GPU-a"), Card(uuid="GPU-b")) as driver:
            async with allocator.listening(place.nats) as bus:
                await bus.wait_connected()
                await place.start_agent(
                    HAMI_PROBES="nvml",
                    HAMI_DRIVER_ROOT=str(place.root / "driver"),
                    FAKE_NVML=str(place.root / "driver" / "nvml.script"),
                    HAMI_LIBRARY_DIR=str(a_library(place.root / "core")),
                    HAMI_PROC_ROOT=str(place.root / "proc"),
                    HAMI_DRIFT_INTERVAL="100ms",
                )
                ref = await place.run_pod("p")
                process = place.root / "proc" / "4711"
                process.mkdir(parents=True)
                (process / "cgroup").write_text(f"0::/kubepods/burstable/pod{ref.uid}/1f\n")
                (process / "comm").write_text("python3\n")
                driver.change("GPU-b", processes=(Process(pid=4711, memory=5 << 20),))
                await allocator.wait_for(CloudEvent)
                beat = await allocator.wait_beat(lambda beat: beat.drift)
                async with httpx.AsyncClient(trust_env=False) as http:
                    shown = (await http.get(f"http://{place.health}/metrics")).text
    except NoCompiler as e:
        pytest.skip(str(e))

    says = "process 4711 (python3, 5 MiB) of pod default/p on card GPU-b, which was not given to it: it has GPU-a"
    assert beat.drift == [Drift(kind="wrong-card", says=says, device="GPU-b", pod=ref)]
    assert 'hami_node_agent_drift{kind="wrong-card"} 1.0' in shown
    assert 'hami_node_agent_drift{kind="stranger"} 0.0' in shown
    (event,) = [message for message in allocator.heard if isinstance(message, CloudEvent)]
    told = {"node": NODE, "kind": "wrong-card", "says": says, "devices": ["GPU-b"], "uid": ref.uid}
    assert (event.type, event.subject, event.data) == ("io.hami.drift.v1", "default/p", told)
    assert event.source.startswith(f"/hami/node-agent/{NODE}-")


async def test_a_container_gets_an_instance_of_a_card_in_mode_mig(place: Place) -> None:
    """No limits beside those of the hardware, no library needed; the allocator and the metrics hear which it is."""
    allocator = Allocator()
    await place.start_nats()
    (place.root / "config.json").write_text(f'{{"nodeconfig": [{{"name": "{NODE}", "operatingmode": "mig"}}]}}')
    cut = Cut(profile="2g.10gb", placement=Placement(4, 2))
    try:
        with fake_nvml(place.root / "driver", A100) as driver:
            async with allocator.listening(place.nats) as bus:
                await bus.wait_connected()
                await place.start_agent(
                    HAMI_PROBES="nvml",
                    HAMI_DRIVER_ROOT=str(place.root / "driver"),
                    FAKE_NVML=str(place.root / "driver" / "nvml.script"),
                    HAMI_NODE_CONFIG=str(place.root / "config.json"),
                    HAMI_LEGACY_METRICS="true",
                )
                await allocator.wait_for(Inventory)
                ref = await place.run_pod("p", Grant(uuid="GPU-m", vendor="NVIDIA", memory=9856, cores=29, cuts=(cut,)))
                await allocator.wait_for(Confirm)
                (made,) = driver.made
                async with httpx.AsyncClient(trust_env=False) as http:
                    shown = ordered((await http.get(f"http://{place.health}/metrics")).text)
    except NoCompiler as e:
        pytest.skip(str(e))

    heard = {type(message): message for message in allocator.heard}
    told = MadeInstance(
        container="main", place=0, device="GPU-m", uuid=made.uuid, gpu_instance=made.id, compute_instance=0
    )
    assert (made.start, made.size) == (4, 2)
    assert heard[Confirm].instances == [told]  # type: ignore[attr-defined]
    assert place.kubelet.container_env("default", "p", "main") == {"NVIDIA_VISIBLE_DEVICES": made.uuid}
    where = f'namespace="default",pod="{ref.name}",profile="2g.10gb",vdevice_index="0",zone="vGPU"'
    which = f'device_uuid="GPU-m",gpu_instance_id="{made.id}",mig_uuid="{made.uuid}"'
    assert f'hami_mig_device_info{{compute_instance_id="0",container="main",{which},{where}}} 1.0' in shown
    assert any(line.startswith(f'MigInfo{{ctrname="main",deviceuuid="GPU-m",instanceid="{made.id}"') for line in shown)


def a_library(folder: Path) -> Path:
    """Make a folder with something that a loader would take for HAMi-core: a shared library of this machine."""
    folder.mkdir()
    (folder / "libvgpu.so").write_bytes(Path(msgspec._core.__file__).read_bytes())
    return folder


def ordered(page: str) -> list[str]:
    """Return the lines of a metrics page with their labels in alphabetical order."""
    return [
        f"{line[: line.index('{')]}{{{','.join(sorted(line[line.index('{') + 1 : line.rindex('}')].split(',')))}}}"
        f"{line[line.rindex('}') + 1 :]}"
        for line in page.splitlines()
        if "{" in line and not line.startswith("#")
    ]


async def test_an_agent_without_nats_serves_and_tells_later(place: Place) -> None:
    """Bound pods start from the agent's own watch; the confirmation is heard when NATS comes up."""
    allocator = Allocator()
    await place.start_agent()
    ref = await place.run_pod("p")

    await place.start_nats()
    async with allocator.listening(place.nats):
        await allocator.wait_for(Confirm)

    assert [message.pod for message in allocator.heard if isinstance(message, Confirm)] == [ref]


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"HAMI_NODE_NAME": "n1"}, "HAMI_PROBES: libnvidia-ml.so.1 is not here: give the container the driver"),
        ({"HAMI_NODE_NAME": "n1", "HAMI_NODE_CONFIG": "{cards}"}, "HAMI_NODE_CONFIG: "),
        ({"HAMI_NODE_NAME": "n1", "DP_ENABLE_HEALTHCHECKS": "fan"}, 'DP_ENABLE_HEALTHCHECKS: "fan" is no XID'),
        ({"HAMI_NODE_NAME": "n1", "HAMI_PROBES": "sim:/nowhere.yaml"}, "HAMI_PROBES: /nowhere.yaml cannot be read"),
        ({"HAMI_PROBES": "sim:/nowhere.yaml"}, "HAMI_NODE_NAME"),
        ({"HAMI_NODE_NAME": "a/b"}, 'HAMI_NODE_NAME: "a/b" is no name of a Kubernetes object'),
        (
            {"HAMI_NODE_NAME": "n1", "HAMI_PROBES": "sim:{cards}", "HAMI_HOOK_PATH": "/proc/none"},
            'HAMI_HOOK_PATH: "/proc/none/vgpu/agent" cannot be written to (No such file or directory); name the folder',
        ),
    ],
)
def test_a_setting_that_cannot_be_used_ends_the_start_with_a_sentence(
    tmp_path: Path, given: dict[str, str], sentence: str
) -> None:
    """Exit code 2, one line, nothing else."""
    cards = tmp_path / "cards.yaml"
    cards.write_text(CARDS)
    command = [sys.executable, "-m", "hami_node_agent"]
    env = {"PATH": os.environ["PATH"], **{name: value.format(cards=cards) for name, value in given.items()}}
    ended = subprocess.run(command, env=env, capture_output=True, text=True, timeout=50, check=False)

    assert ended.returncode == 2
    assert sentence in ended.stderr
    assert len(ended.stderr.splitlines()) == 1
