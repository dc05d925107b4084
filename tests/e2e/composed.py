"""The stack of compose.yaml on a Docker engine, driven by testcontainers, beside any stack that the user runs.

One rule: nothing is built and nothing pulled here; what is missing is said in one sentence, with the way out.
"""

import asyncio
import os
import re
import shutil
import subprocess
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from hami_testkit.cluster.client import ApiClient
from hami_testkit.cluster.simulated import kubeconfig
from hami_testkit.processes import free_port
from testcontainers.compose import ComposeContainer, DockerCompose

Json = dict[str, Any]
ROOT = Path(__file__).parents[2]
OBSERVABILITY = "observability"
"""The profile of compose.yaml that watches the rest."""
LEASE = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/hami-allocator"


def why_not(profile: str = "") -> str:
    """Return why the stack, or a profile of it, cannot run here; empty where it can."""
    if shutil.which("docker") is None:
        return "no docker command is on the PATH"
    for command, what in (("info", "no Docker engine answers"), ("compose version", "docker compose is not installed")):
        found = _docker(*command.split())
        if found.returncode:
            return f"{what}: {(found.stderr or found.stdout).strip().splitlines()[-1]}"
    if absent := [image for image in _images(profile) if not _is_here(image)]:
        way = "their registry has them" if profile else "make images first"
        return f"images {', '.join(absent)} are not here: {way}"
    return ""


def _docker(*arguments: str) -> "subprocess.CompletedProcess[str]":
    env = {**os.environ, "NATS_IMAGE": _nats_image()} if arguments[0] == "compose" else None
    return subprocess.run(["docker", *arguments], cwd=ROOT, env=env, capture_output=True, text=True, check=False)


def _images(profile: str) -> list[str]:
    chosen = ("--profile", profile) if profile else ()
    return sorted(set(_docker("compose", *chosen, "config", "--images").stdout.split()))


def _nats_image() -> str:
    """Return the image to take for NATS: the testkit's, which has a server too, where no other was named or is here."""
    if named := os.environ.get("NATS_IMAGE"):
        return named
    (default,) = re.findall(r"image: \$\{NATS_IMAGE:-(\S+)\}", (ROOT / "compose.yaml").read_text())
    return str(default) if _is_here(default) else f"hami/testkit:{os.environ.get('HAMI_TAG', '0.1.0')}"


def _is_here(image: str) -> bool:
    return _docker("image", "inspect", image).returncode == 0


def is_healthy(container: ComposeContainer) -> bool:
    """Say whether a container runs and does what it is for."""
    return (container.State, container.Health) == ("running", "healthy")


class Composed:
    """The running stack, as its user sees it."""

    def __init__(self, compose: DockerCompose, api: ApiClient, kubeconfig: Path) -> None:
        self.compose = compose
        self.api = api
        self.kubeconfig = kubeconfig

    def containers(self) -> list[ComposeContainer]:
        """Return all containers, also those that have ended."""
        return self.compose.get_containers(include_all=True)

    async def leader(self) -> str:
        """Return the id of the container whose allocator leads: a container's host name is how its id begins."""
        holder = (await self.api.get(LEASE))["spec"].get("holderIdentity") or ""
        host = holder.partition("-")[0]
        return next((c.ID for c in self.containers() if c.ID and host and c.ID.startswith(host)), "")

    async def docker(self, *arguments: str) -> str:
        """Run a docker command, and return what it printed."""
        found = await asyncio.to_thread(_docker, *arguments)
        assert found.returncode == 0, f"docker {' '.join(arguments)}: {found.stderr}"
        return found.stdout

    async def wait_healthy(self, deadline: float) -> None:
        """Wait until every container runs and is healthy."""
        async with asyncio.timeout(deadline):
            while not all(map(is_healthy, await asyncio.to_thread(self.containers))):
                await asyncio.sleep(0.5)


@asynccontextmanager
async def composed(folder: Path) -> AsyncIterator[Composed]:
    """Run the stack under a name and on ports of its own until the block is left; it leaves no container behind."""
    name, port = f"hami-e2e-{uuid.uuid4().hex[:8]}", str(free_port())
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("NATS_IMAGE", await asyncio.to_thread(_nats_image))
        environment.setenv("COMPOSE_PROJECT_NAME", name)
        environment.setenv("HAMI_API_PORT", port)
        environment.setenv("HAMI_NATS_PORT", str(free_port()))
        compose = DockerCompose(ROOT)
        try:
            await _start(compose)
            url, file = f"http://127.0.0.1:{port}", folder / "kubeconfig"
            file.write_text(kubeconfig(url))
            async with ApiClient.connect(url) as api:
                yield Composed(compose, api, file)
        finally:
            await asyncio.to_thread(DockerCompose(ROOT, profiles=[OBSERVABILITY]).stop)
        left = await asyncio.to_thread(_docker, "ps", "-aq", "--filter", f"label=com.docker.compose.project={name}")
        assert left.stdout == "", f"containers of {name} were left: {left.stdout}"


async def _start(compose: DockerCompose) -> None:
    try:
        await asyncio.to_thread(compose.start)
    except subprocess.CalledProcessError as e:
        logs, _ = await asyncio.to_thread(compose.get_logs)
        raise AssertionError(f"{e.stderr.decode()}\n{logs[-10_000:]}") from e
