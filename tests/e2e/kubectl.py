"""kubectl as people run it, on a stand-in and on a real API server: the same commands must print the same words.

No kubelet and no scheduler runs: what they would write, kubectl writes.
"""

import asyncio
import json
import re
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from hami_testkit.cluster import Standin
from hami_testkit.real_cluster import control_plane
from msgspec import Struct, structs

POD = """
apiVersion: v1
kind: Pod
metadata:
  name: my-slice
  labels: {app: first}
spec:
  containers:
    - name: main
      image: ubuntu:24.04
      command: ["sleep", "infinity"]
      env: [{name: A, value: "1"}, {name: B, value: "2"}]
      resources:
        limits: {nvidia.com/gpu: "1", nvidia.com/gpumem: 3k, nvidia.com/gpucores: "30"}
"""
STARTED = "2026-11-01T10:00:00Z"
DEADLINE = 60.0
"""Seconds that one command may take on a busy machine; on an idle one it takes a fifth of one."""


class Said(Struct, frozen=True):
    """What a command printed, line by line with one blank between words, and how it ended."""

    code: int
    text: str

    @property
    def lines(self) -> list[str]:
        """Return what it printed, however wide its columns are."""
        return [" ".join(line.split()) for line in self.text.splitlines()]

    def missing(self, *lines: str) -> str:
        """Return the first of these lines that does not stand there in this order, empty for none; … is anything."""
        left = iter(self.lines)
        for line in lines:
            wanted = ".*".join(re.escape(part) for part in " ".join(line.split()).split("…"))
            if not any(re.fullmatch(wanted, found) for found in left):
                return line
        return ""

    def assert_shows(self, *lines: str) -> None:
        """Fail unless these lines stand there in this order."""
        missing = self.missing(*lines)
        assert missing == "", f"no {missing!r} in its place in:\n{self.text}"


class Kubectl(Struct, frozen=True):
    """The command line, led to one server and one namespace."""

    binary: Path
    kubeconfig: Path
    cache: Path
    namespace: str = "default"

    def within(self, namespace: str) -> "Kubectl":
        """Return the same in another namespace."""
        return structs.replace(self, namespace=namespace)

    async def __call__(self, *arguments: str, text: str = "") -> Said:
        """Run a command that must end well, with ``text`` as its input."""
        said = await self.try_(*arguments, text=text)
        assert said.code == 0, f"kubectl {' '.join(arguments)}: {said.text}"
        return said

    async def try_(self, *arguments: str, text: str = "") -> Said:
        """Run a command that may be refused."""
        async with self.running(*arguments) as process, asyncio.timeout(DEADLINE):
            said, _ = await process.communicate(text.encode())
        return Said(process.returncode or 0, said.decode())

    @asynccontextmanager
    async def running(self, *arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
        """Run a command until the block is left."""
        where = (f"--kubeconfig={self.kubeconfig}", f"--cache-dir={self.cache}", f"--namespace={self.namespace}")
        pipe, both = asyncio.subprocess.PIPE, asyncio.subprocess.STDOUT
        command = (str(self.binary), *where, *arguments)
        process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, stderr=both)
        try:
            yield process
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()


@asynccontextmanager
async def a_server(kind: str, binaries: Path, folder: Path) -> AsyncIterator[Path]:
    """Run the stand-in or a real control plane until the block is left, which gets its kubeconfig."""
    if kind == "stand-in":
        async with Standin.start() as cluster:
            yield cluster.kubeconfig(folder / "kubeconfig")
    else:
        async with control_plane(binaries, folder) as kubeconfig:
            yield kubeconfig


async def bind(kubectl: Kubectl, pod: str, node: str) -> None:
    """Do what a scheduler does."""
    binding = {
        "apiVersion": "v1",
        "kind": "Binding",
        "metadata": {"name": pod},
        "target": {"kind": "Node", "name": node},
    }
    path = f"/api/v1/namespaces/{kubectl.namespace}/pods/{pod}/binding"
    await kubectl("create", "--raw", path, "-f", "-", text=json.dumps(binding))


async def start(kubectl: Kubectl, pod: str) -> None:
    """Do what a kubelet does."""
    state = {"running": {"startedAt": STARTED}}
    main = {"name": "main", "image": "ubuntu:24.04", "imageID": "", "ready": True, "restartCount": 0, "state": state}
    ready = {"type": "Ready", "status": "True", "lastTransitionTime": STARTED}
    status = {
        "phase": "Running", "conditions": [ready], "containerStatuses": [main], "podIP": "10.0.0.7",
        "podIPs": [{"ip": "10.0.0.7"}],
    }  # fmt: skip
    await kubectl("patch", "pod", pod, "--subresource=status", "-p", json.dumps({"status": status}))


async def a_node(kubectl: Kubectl) -> str:
    """Make a node, as a kubelet does."""
    name = f"node-{uuid.uuid4().hex[:8]}"
    capacity = {"cpu": "4", "memory": "8Gi", "pods": "110", "nvidia.com/gpu": "20"}
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}, "status": {"capacity": capacity}}
    await kubectl("create", "-f", "-", text=json.dumps(node))
    ready = {
        "type": "Ready", "status": "True", "reason": "KubeletReady", "message": "well", "lastHeartbeatTime": STARTED,
        "lastTransitionTime": STARTED,
    }  # fmt: skip
    await kubectl("patch", "node", name, "--subresource=status", "-p", json.dumps({"status": {"conditions": [ready]}}))
    return name
