"""A real node from its binaries: containerd and a kubelet, for the length of a block.

One rule: the node lives in namespaces of its own (mounts, processes) and in one group of control groups, and ends with
them: whatever its containers do, no process, mount or file of it is left. It needs root; ``why_not`` says what is
missing.
"""

import asyncio
import os
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import yaml
from msgspec import Struct

from hami_testkit import control_groups, pod_network
from hami_testkit.box import IMAGE, compile_box, pack_image
from hami_testkit.cluster.access import connect
from hami_testkit.nvml import NoCompiler
from hami_testkit.processes import Processes, ProcessFailedError, Running, Spec, free_port, processes

COMMANDS = ("containerd", "containerd-shim-runc-v2", "runc", "ctr", "unshare", "nsenter", "setpriv", "mount")
KUBELET = Path("/var/lib/kubelet")
"""Where a kubelet keeps the sockets of device plugins, whatever it is told; our own folder is mounted there."""
START_DEADLINE = 60.0
GONE_WITHIN = 20.0
READY = "namespaces-are-ready"

CONTAINERD = """\
version = 2
root = "{folder}/containerd"
state = "{folder}/state"
[grpc]
  address = "{socket}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{image}"
  disable_apparmor = true
  restrict_oom_score_adj = true
  stream_server_address = "127.0.0.1"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{plugins}"
    conf_dir = "{folder}/cni"
"""
NO_NETWORK = '{"cniVersion": "1.0.0", "name": "none", "plugins": [{"type": "none"}]}'
"""A node is ready only with a network; its pods use the machine's own (hostNetwork) and never ask for this one."""


class Told(Struct, frozen=True, kw_only=True):
    """What a container saw when it started, in its own words."""

    moment: int
    env: dict[str, str]
    mounts: dict[str, str]
    """Path in the container -> where it begins on its file system."""


class RealNode:
    """A running node."""

    def __init__(self, name: str, folder: Path, running: Processes, group: str) -> None:
        self.name = name
        self.root = folder / "k" / name
        """The kubelet's root folder, where the parts of ``hami_testkit.parts`` look for it too."""
        self.out = folder / "out"
        """What containers of the box write to: mount it as /out."""
        self.logs = folder / "logs"
        """What containers printed: ``<namespace>_<pod>_<uid>/<container>/<start>.log``."""
        self._running = running
        self._group = group

    def place(self, path: Path) -> Path:
        """Return where the machine sees a file of the node."""
        return Path(f"/proc/{self._running.find('node').pid}/root") / path.relative_to("/")

    async def kill_kubelet(self) -> None:
        """Let the kubelet crash; containers run on."""
        await self._running.kill("kubelet")

    async def start_kubelet(self) -> None:
        """Start the kubelet again, and wait until it is healthy."""
        await (await self._running.start_again("kubelet")).wait_ready(START_DEADLINE)

    def alive(self) -> set[str]:
        """Return the uids of the pods that have a process which tells: what runs, whatever the kubelet's books say."""
        root = control_groups.roots()[-1] / self._group / "kubepods"
        found = set()
        for folder, _, _ in os.walk(root):  # which minds no folder that goes while it looks
            pod = Path(folder).parent.name
            if pod.startswith("pod") and _tells(Path(folder) / "cgroup.procs"):
                found.add(pod.removeprefix("pod"))
        return found

    def told(self, uid: str, container: str) -> list[Told]:
        """Return what one container told at each of its starts."""
        found = sorted(path for path in self.out.glob(f"{uid}_{container}.*") if path.suffix != ".half")
        return [_told(path) for path in found]


def _tells(members: Path) -> bool:
    try:
        commands = [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in members.read_text().split()]
    except OSError:  # it ended while we looked
        return False
    return any(b"\0tell\0" in command for command in commands)


def _told(path: Path) -> Told:
    words = [line.split(" ", 1) for line in path.read_text().splitlines()]
    env = dict(rest.split("=", 1) for kind, rest in words if kind == "env")
    mounts = {point: root for kind, rest in words if kind == "mount" for root, point in [rest.split(" ", 1)]}
    return Told(moment=int(path.suffix[1:]), env=env, mounts=mounts)


def why_not(binaries: Path) -> str:
    """Return why no node can run here, in one sentence; empty where one can."""
    if os.geteuid() != 0:
        return "a kubelet needs root, and this is not root"
    missing = [name for name in COMMANDS if shutil.which(name) is None]
    if missing:
        return f"{', '.join(missing)} is not installed (on Debian: apt-get install containerd runc)"
    if not (binaries / "kubelet").is_file():
        return f"{binaries} holds no kubelet"
    if not control_groups.roots():
        return f"{control_groups.CGROUPS} has no control groups"
    try:
        with tempfile.TemporaryDirectory() as folder:
            compile_box(Path(folder))
    except NoCompiler as e:
        return str(e)
    command = ["unshare", "--mount", "--pid", "--fork", "--mount-proc", "true"]
    tried = subprocess.run(command, capture_output=True, check=False)
    return f"namespaces cannot be made: {tried.stderr.decode(errors='replace').strip()}" if tried.returncode else ""


@asynccontextmanager
async def real_node(
    binaries: Path,
    folder: Path,
    kubeconfig: Path,
    name: str = "real-1",
    *,
    images: Sequence[Path] = (),
    pods_have_a_network: bool = False,
) -> AsyncIterator[RealNode]:
    """Run a node of the cluster until the block is left; ``folder`` must have a short path, since it holds sockets.

    ``images``: archives of images, as ``docker save`` writes them, that the node has besides the box. Where pods have a
    network, the link of ``pod_network`` is there already.
    """
    if why := why_not(binaries):
        raise ProcessFailedError(f"no node can run here: {why}")
    group = f"hami-{os.getpid()}-{name}"
    root = folder / "k" / name
    for path in (root, folder / "out", folder / "cni"):
        path.mkdir(parents=True)
    control_groups.make(group)
    try:
        async with processes(folder) as running:
            node = _Node(name=name, root=root, group=group, images=images, has_network=pods_have_a_network)
            await _start(binaries, folder, kubeconfig, running, node)
            yield RealNode(name, folder, running, group)
    finally:
        await control_groups.remove(group, within=GONE_WITHIN)


class _Node(Struct, frozen=True, kw_only=True):
    name: str
    root: Path
    group: str
    images: Sequence[Path]
    has_network: bool

    @property
    def address(self) -> str:
        return pod_network.NODE if self.has_network else "127.0.0.1"


async def _start(binaries: Path, folder: Path, kubeconfig: Path, running: Processes, node: _Node) -> None:
    box, socket = await asyncio.to_thread(compile_box, folder), folder / "containerd.sock"
    await asyncio.to_thread(pack_image, box, folder / "box.tar")
    plugins = pod_network.PLUGINS if node.has_network else folder / "cni"
    (folder / "cni" / "10.conflist").write_text(pod_network.NETWORK if node.has_network else NO_NETWORK)
    config = CONTAINERD.format(folder=folder, socket=socket, image=IMAGE, plugins=plugins)
    (folder / "containerd.toml").write_text(config)
    space = await running.start(_space(folder, box, node))
    enter = await _entrance(space, folder / READY, has_network=node.has_network)
    if node.has_network:
        await pod_network.connect(space.pid)
    command = ["containerd", f"--config={folder / 'containerd.toml'}"]
    await running.start(Spec(name="containerd", command=[*enter, *command], ground=True))
    for archive in (folder / "box.tar", *node.images):
        await _import(socket, archive, running.find("containerd"))
    kubelet = await running.start(_kubelet(binaries, folder, kubeconfig, node, enter))
    await kubelet.wait_ready(START_DEADLINE)
    await _wait_node(kubeconfig, node.name)
    if node.has_network:
        proxy = await running.start(pod_network.kube_proxy(binaries, folder, kubeconfig, node.name, enter))
        await proxy.wait_ready(START_DEADLINE)


def _space(folder: Path, box: Path, node: _Node) -> Spec:
    """Return the node's first process: its namespaces live as long as it does."""
    groups = " ".join(str(path / node.group / "node" / "cgroup.procs") for path in control_groups.roots())
    script = f"""
    set -e
    for group in {groups}; do echo 0 > $group; done
    for place in /run /var/lib /var/log; do mount -t tmpfs tmpfs $place; done
    mkdir /run/upper /run/work
    mount -t overlay overlay -o lowerdir=/usr/local,upperdir=/run/upper,workdir=/run/work /usr/local
    mkdir {KUBELET}
    mount --bind {node.root} {KUBELET}
    mount --make-rshared /
    touch {folder / READY}
    exec {box}
    """
    command = ["unshare", "--mount", "--propagation=private", "--pid", "--fork", "--kill-child", "--mount-proc"]
    command += ["--net"] if node.has_network else []
    # unshare itself does not hear SIGTERM; its child dies with it
    return Spec(name="node", command=[*command, "sh", "-c", script], ground=True, grace=0.1)


async def _entrance(space: Running, ready: Path, *, has_network: bool) -> list[str]:
    """Return the command that runs another one in the node's namespaces, and takes it along when it dies."""
    await _until(ready.exists, space)
    namespaces = f"/proc/{space.pid}/ns"
    return [
        "nsenter", f"--mount={namespaces}/mnt", f"--pid={namespaces}/pid_for_children",
        *([f"--net={namespaces}/net"] if has_network else []),
        "setpriv", "--pdeathsig=KILL",
    ]  # fmt: skip


def _kubelet(binaries: Path, folder: Path, kubeconfig: Path, node: _Node, enter: list[str]) -> Spec:
    health = free_port()
    none = dict.fromkeys(("nodefs.available", "nodefs.inodesFree", "imagefs.available", "memory.available"), "0%")
    config: dict[str, Any] = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
        "address": node.address, "port": free_port(), "healthzPort": health, "readOnlyPort": 0,
        "healthzBindAddress": node.address,
        "authentication": {"anonymous": {"enabled": False}, "webhook": {"enabled": False}},
        "authorization": {"mode": "AlwaysAllow"},
        "containerRuntimeEndpoint": f"unix://{folder / 'containerd.sock'}",
        "cgroupDriver": "cgroupfs", "cgroupRoot": f"/{node.group}", "failCgroupV1": False, "failSwapOn": False,
        "enforceNodeAllocatable": [], "evictionHard": none, "imageGCHighThresholdPercent": 100, "oomScoreAdj": 0,
        "makeIPTablesUtilChains": False, "resolvConf": "", "podLogsDir": str(folder / "logs"),
        "volumePluginDir": str(folder / "volume-plugins"), "nodeStatusUpdateFrequency": "1s",
    }  # fmt: skip
    if node.has_network:
        config |= {"clusterDNS": [pod_network.MACHINE], "clusterDomain": pod_network.DOMAIN}
    (folder / "kubelet.yaml").write_text(yaml.safe_dump(config))
    command = [
        str(binaries / "kubelet"), f"--config={folder / 'kubelet.yaml'}", f"--kubeconfig={kubeconfig}",
        f"--root-dir={KUBELET}", f"--cert-dir={folder / 'kubelet-certificates'}", f"--hostname-override={node.name}",
        "--v=2", *([f"--node-ip={node.address}"] if node.has_network else []),
    ]  # fmt: skip
    return Spec(name="kubelet", command=[*enter, *command], ready_url=f"http://{node.address}:{health}/healthz")


async def _import(socket: Path, archive: Path, containerd: Running) -> None:
    """Give the image to containerd, as soon as that listens."""
    await _until(socket.exists, containerd)
    command = ["ctr", f"--address={socket}", "--namespace=k8s.io", "images", "import", str(archive)]
    async with asyncio.timeout(START_DEADLINE):
        while True:
            process = await asyncio.create_subprocess_exec(
                *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
            )
            said, _ = await process.communicate()
            if not process.returncode:
                return
            if not containerd.is_alive:
                raise ProcessFailedError(f"containerd takes no image: {said.decode(errors='replace')}")
            await asyncio.sleep(0.1)


async def _wait_node(kubeconfig: Path, name: str) -> None:
    async with asyncio.timeout(START_DEADLINE), connect(kubeconfig) as api:
        async for event in api.watch("/api/v1/nodes", fieldSelector=f"metadata.name={name}"):
            conditions = event["object"].get("status", {}).get("conditions") or []
            if any(c["type"] == "Ready" and c["status"] == "True" for c in conditions):
                return


async def _until(is_so: Any, process: Running) -> None:
    async with asyncio.timeout(START_DEADLINE):
        while not is_so():
            if not process.is_alive:
                raise ProcessFailedError(f"{process.spec.name} ended:\n{process.log_tail()}")
            await asyncio.sleep(0.02)
