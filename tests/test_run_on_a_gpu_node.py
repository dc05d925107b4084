"""The how-to for a GPU node does what it says: its commands, in order, and each of the agent's sentences.

On the scripted driver, a stand-in kubelet and API server, and real processes of ours; the page's paths and addresses
stand for those of the test.
"""

import asyncio
import os
import re
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import msgspec
import pytest
from hami_model import annotations
from hami_model.allocation import Allocation, ContainerGrants, Grant
from hami_model.objects import Pod, PodRef
from hami_model.request import Role
from hami_testkit.builders import a_catalog
from hami_testkit.cluster import Standin
from hami_testkit.cluster.client import ApiClient
from hami_testkit.cluster.kubelet import Kubelet
from hami_testkit.nvml import Card, FakeNvml, NoCompiler, Process, fake_nvml
from hami_testkit.processes import BIN, Processes, Spec, free_port, processes
from msgspec import Struct

PAGE = (Path(__file__).parents[1] / "docs/how-to/run-on-a-gpu-node.md").read_text()
CHART = Path(__file__).parent / "compat/vectors/settings/device-config.yaml"
NODE = "gpu-a"
CARDS = [Card(uuid=f"GPU-3e9f60b4-7ca8-4d51-9f32-8a0cd4f31b{at:02d}") for at in range(4)]
UUIDS = [card.uuid for card in CARDS]
DEADLINE = 40.0
DRIVER_NOT_LOADED = 9
CURL = """#!{python}
import sys, urllib.request
ask = urllib.request.build_opener(urllib.request.ProxyHandler({{}})).open
sys.stdout.write(ask(sys.argv[-1]).read().decode())
"""
"""Machines that run tests need not have curl."""


class Command(Struct, frozen=True):
    """A command of the page, the section that it stands in, and what it prints there."""

    section: str
    text: str
    prints: list[str]


def commands() -> list[Command]:
    found = []
    for section in PAGE.split("\n## ")[1:]:
        for block in re.findall(r"```console\n(.*?)```", section, re.DOTALL):
            for text, *prints in (part.splitlines() for part in re.split(r"^\$ ", block, flags=re.MULTILINE) if part):
                found.append(Command(section.partition("\n")[0], text, prints))
    return found


def block(language: str) -> str:
    """Return the page's one block in a language."""
    (text,) = re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    return str(text)


def sentences(after: str) -> list[str]:
    """Return the first cells of the table that follows some words of the page."""
    rows = PAGE.partition(after)[2].partition("\n\n|")[2].partition("\n\n")[0].splitlines()
    return [row.split("`")[1] for row in rows if row.startswith("| `")]


def matches(shown: str, said: str) -> bool:
    """Say whether a line is what the page shows, where … stands for anything."""
    return re.fullmatch(".*".join(re.escape(part.strip()) for part in shown.split("…")), said.strip()) is not None


def shows(prints: list[str], output: str) -> bool:
    """Say whether the lines that the page shows stand in an output, in order."""
    lines = iter(output.splitlines())
    return all(any(matches(shown, line) for line in lines) for shown in prints)


class Machine:
    """A node as the page describes it, below a folder."""

    def __init__(self, root: Path, started: Processes, driver: FakeNvml, port: int) -> None:
        nats = f"nats://127.0.0.1:{port}"
        self.root = root
        self.port = port
        self.driver = driver
        self.started = started
        self.env = {
            "PATH": f"{root}/bin:{BIN}:{os.environ['PATH']}",
            "HAMI_NATS_URL": nats,
            "FAKE_NVML": str(root / "driver/nvml.script"),
            "HAMI_LOCK_DIR": str(root / "lock"),
            "HAMI_PROC_ROOT": str(root / "proc"),
            "HAMI_DRIFT_INTERVAL": "100ms",
        }
        self._here = {
            "HAMI_DRIVER_ROOT=/": f"HAMI_DRIVER_ROOT={root}/driver",
            "nats://nats.hami:4222": nats,
            "127.0.0.1:9394": f"127.0.0.1:{free_port()}",
            "/etc/hami": f"{root}/etc",
            "/opt/hami-core": f"{root}/core",
            "/usr/local": f"{root}/hook",
            "/var/lib/kubelet": f"{root}/k",
        }

    def here(self, text: str) -> str:
        """Write the page's text as it is on this machine."""
        for theirs, ours in self._here.items():
            text = text.replace(f"{theirs}\n", f"{ours}\n") if theirs.endswith("=/") else text.replace(theirs, ours)
        return text

    def there(self, text: str) -> str:
        """Write what was said here as it is in the page."""
        for theirs, ours in self._here.items():
            text = text.replace(ours, theirs)
        return text

    def lay_down(self) -> None:
        """Make the files that the page speaks of."""
        for name in ("etc", "core", "bin", "proc", "hook"):
            (self.root / name).mkdir()
        (self.root / "etc/agent.env").write_text(self.here(block("ini")))
        (self.root / "etc/config.json").write_text(block("json"))
        shutil.copyfile(CHART, self.root / "etc/device-config.yaml")
        shutil.copyfile(msgspec._core.__file__, self.root / "core/libvgpu.so")
        curl = self.root / "bin/curl"
        curl.write_text(CURL.format(python=sys.executable))
        curl.chmod(0o755)

    async def run(self, text: str) -> str:
        """Run a command of the page to its end; return what it printed."""
        process = await asyncio.create_subprocess_exec(
            "bash",
            "-c",
            self.here(text),
            env=self.env,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await process.communicate()
        return self.there(output.decode())

    async def start_nats(self) -> None:
        where = ["-a", "127.0.0.1", "-p", str(self.port), "-js", "-sd", str(self.root / "nats")]
        await self.started.start(Spec(name="nats", command=[str(BIN / "nats-server"), *where], ground=True))

    async def start_agent(self, text: str, **more: str) -> None:
        """Start the agent by a command that does not end."""
        env = {**self.env, "HOME": str(self.root), **more}
        await self.started.start(Spec(name="agent", command=["bash", "-c", self.here(text)], env=env))

    async def wait_logged(self, prints: list[str]) -> None:
        """Wait until the agent's log has these lines, in order."""
        await until(lambda: shows(prints, self.log), lambda: f"{prints} is not in\n{self.log}")

    @property
    def log(self) -> str:
        return self.there(self.started.find("agent").log_tail(1000))


async def until(is_so: Callable[[], bool], complaint: Callable[[], str]) -> None:
    try:
        async with asyncio.timeout(DEADLINE):
            while not is_so():
                await asyncio.sleep(0.05)
    except TimeoutError as e:
        raise AssertionError(complaint()) from e


@pytest.fixture
async def machine() -> AsyncIterator[Machine]:
    """A node with a driver; its folder is short, since sockets' paths are."""
    with tempfile.TemporaryDirectory(prefix="hg") as folder:
        root = Path(folder)
        try:
            with fake_nvml(root / "driver", *CARDS[:2]) as driver:
                async with processes(root) as started:
                    machine = Machine(root, started, driver, free_port())
                    machine.lay_down()
                    yield machine
        except NoCompiler as e:
            pytest.skip(str(e))


@pytest.mark.timeout(120)
async def test_the_commands_of_the_page_print_what_it_shows(machine: Machine) -> None:
    """From the device config to a stranger on a card, with an allocator that hears of it all."""
    raw = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE}}
    async with (
        Standin.start(nodes=[raw]) as cluster,
        ApiClient.connect(cluster.url) as api,
        Kubelet(api, NODE, machine.root / "k").running(),
    ):
        cluster.kubeconfig(machine.root / "etc/kubeconfig")
        await machine.start_nats()
        await start_allocator(machine)
        section = ""
        for command in commands():
            if command.section != section == "See that it serves":
                await run_a_pod(api)
            if command.section != section and command.section == "What disagrees":
                start_a_stranger(machine)
            section = command.section
            if "hami-node-agent" in command.text:
                await machine.start_agent(command.text)
                await machine.wait_logged(command.prints)
            else:
                await wait_printed(machine, command)
        await machine.started.stop("agent")


async def wait_printed(machine: Machine, command: Command) -> None:
    """Run a command until it prints what the page shows."""
    output = ""
    try:
        async with asyncio.timeout(DEADLINE):
            while not shows(command.prints, output):
                output = await machine.run(command.text)
    except TimeoutError as e:
        raise AssertionError("\n".join([f"$ {command.text}", output, "and not", *command.prints])) from e


async def start_allocator(machine: Machine) -> None:
    health = f"127.0.0.1:{free_port()}"
    env = {
        "HAMI_NATS_URL": machine.env["HAMI_NATS_URL"],
        "KUBECONFIG": str(machine.root / "etc/kubeconfig"),
        "HAMI_HEALTH_LISTEN": health,
    }
    command = [str(BIN / "hami-allocator")]
    spec = Spec(name="allocator", command=command, env=env, ready_url=f"http://{health}/readyz")
    await (await machine.started.start(spec)).wait_ready(DEADLINE)


async def run_a_pod(api: ApiClient) -> None:
    """Do what kubectl, the scheduler and the allocator would: a pod with a slice of the first card, bound here."""
    pods = "/api/v1/namespaces/default/pods"
    limits = {"nvidia.com/gpu": "1", "nvidia.com/gpumem": "3000", "nvidia.com/gpucores": "30"}
    container = {"name": "main", "image": "app", "resources": {"limits": limits}}
    meta = {"name": "my-slice", "namespace": "default"}
    body = {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": {"containers": [container]}}
    pod = msgspec.convert(await api.create(pods, body), Pod)
    grants = (Grant(uuid=UUIDS[0], vendor="NVIDIA", memory=3000, cores=30),)
    given = (ContainerGrants(name="main", role=Role.APP, grants=grants),)
    allocation = Allocation(pod=PodRef.of(pod), node=NODE, containers=given)
    written = annotations.allocation_annotations(a_catalog(), allocation, pod, now=1.0)
    binding = {"name": "my-slice", "uid": pod.metadata.uid, "annotations": written}
    target = {"kind": "Node", "name": NODE}
    await api.create(
        f"{pods}/my-slice/binding", {"apiVersion": "v1", "kind": "Binding", "metadata": binding, "target": target}
    )


def start_a_stranger(machine: Machine) -> None:
    folder = machine.root / "proc/4711"
    folder.mkdir()
    (folder / "cgroup").write_text("0::/user.slice/user-1000.slice/session-3.scope\n")
    (folder / "comm").write_text("jupyter\n")
    machine.driver.change(UUIDS[0], processes=(Process(pid=4711, memory=300 << 20),))


# What it says when something is wrong

ENDS = {
    "HAMI_PROBES: libnvidia-ml.so.1 is not here: …": "HAMI_DRIVER_ROOT=/none",
    "HAMI_PROBES: the NVIDIA driver is not loaded on this node: …": "",
    "HAMI_NODE_CONFIG: … is no node config of HAMi: …": "HAMI_NODE_CONFIG=/etc/hami/bad",
    'HAMI_DEVICE_CONFIG: "…" line …: …': "HAMI_DEVICE_CONFIG=/etc/hami/bad",
    'HAMI_HOOK_PATH: "…" cannot be written to (…); …': "HAMI_HOOK_PATH=/proc/none",
    'DEVICE_LIST_STRATEGY: "…" is none; write …': "DEVICE_LIST_STRATEGY=magic",
}
"""Sentence -> what differs from the page's settings."""

RUNS_ON = "It runs on, and says in its log:"


def test_each_sentence_of_the_page_is_tried() -> None:
    """Those that end the agent stand above; those of a running one are waited for below."""
    assert list(ENDS) == sentences("It ends at once")
    assert 9 == len(sentences(RUNS_ON))


@pytest.mark.parametrize("sentence", ENDS)
async def test_a_start_that_cannot_be_ends_with_the_line_of_the_page(machine: Machine, sentence: str) -> None:
    """Its last line; exit code 2."""
    (machine.root / "etc/bad").write_text(
        '{"nodeconfig": [{"devicesplitcount": "x"}], "nvidia": {"deviceSplitCount": "x"}}'
    )
    if "not loaded" in sentence:
        machine.driver.fail("nvmlInitWithFlags", DRIVER_NOT_LOADED)

    said = await machine.run(f"set -a; . /etc/hami/agent.env; {ENDS[sentence]}\nhami-node-agent || echo ended with $?")

    *_, line, code = said.splitlines()
    assert (True, "ended with 2") == (matches(f"…{sentence}", line), code), line


@pytest.mark.timeout(120)
async def test_a_running_agent_says_the_lines_of_the_page(machine: Machine) -> None:
    """Cards that fail one way each, HAMi-core that is missing or damaged, a kubelet that is not to be seen."""
    machine.driver.show(*CARDS)
    (machine.root / "etc/config.json").write_text("{}")
    no_kubelet, no_resources, no_core, damaged, xid, asks, fell, mig, well = (f"…{s}" for s in sentences(RUNS_ON))
    start = "set -a; . /etc/hami/agent.env; {} exec hami-node-agent"
    raw = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE}}
    async with Standin.start(nodes=[raw]) as cluster:
        cluster.kubeconfig(machine.root / "etc/kubeconfig")
        await machine.start_agent(start.format("HAMI_LIBRARY_DIR=;"))
        for line in (no_core, no_kubelet):
            await machine.wait_logged([line])
        machine.driver.raise_xid(UUIDS[0], 48)
        for uuid, trouble in zip(UUIDS[1:], ({"recovery": 1}, {"is_lost": True}, {"mig": 1}), strict=True):
            machine.driver.change(uuid, **trouble)
        for line in (xid, asks, fell, mig):
            await machine.wait_logged([line])
        machine.driver.change(UUIDS[1], recovery=0)
        await machine.wait_logged([well])
        await machine.started.stop("agent")

        (machine.root / "core/libvgpu.so.sha256").write_text(f"{'0' * 64}  libvgpu.so\n")
        (machine.root / "k/device-plugins").mkdir(parents=True)
        (machine.root / "k/device-plugins/kubelet.sock").touch()
        await machine.start_agent(start.format(""))
        for line in (damaged, no_resources):
            await machine.wait_logged([line])
        await machine.started.stop("agent")
