"""``make demo CLUSTER=compose``: the same demo on the stack that ``docker compose up`` runs, which it leaves running.

One rule: it talks to what the stack publishes on this machine's loopback, as any user of it does; only what containers
were given is copied out of the stand-in's container, where its kubelets keep it.
"""

import asyncio
import os
from pathlib import Path

from msgspec import Struct

from hami_testkit.cluster.simulated import kubeconfig
from hami_testkit.demo_cluster import DEADLINE, DemoError
from hami_testkit.parts import Addresses, Plan

CLUSTER = "cluster"
"""The service of the stand-in in compose.yaml."""


class ComposeStack(Struct, frozen=True, kw_only=True):
    """The running stack, as far as the demo needs it."""

    project: Path
    """The folder of compose.yaml."""
    plan: Plan
    at: Addresses

    @classmethod
    def find(cls, project: Path, plan: Plan) -> "ComposeStack":
        """Return where a stack of compose.yaml listens; it has to run already."""
        port, password = os.environ.get("HAMI_NATS_PORT", "4222"), os.environ.get("HAMI_NATS_PASSWORD", "hami")
        api = f"http://127.0.0.1:{os.environ.get('HAMI_API_PORT', '8001')}"
        file = plan.folder / "kubeconfig"
        file.write_text(kubeconfig(api))
        nats = f"nats://reader:{password}@127.0.0.1:{port}"
        traces = os.environ.get("HAMI_TRACES_URL", "")
        at = Addresses(nats=nats, api=api, webhook="", extender="", allocators={}, traces=traces, kubeconfig=file)
        return cls(project=project, plan=plan, at=at)

    def environment(self) -> dict[str, str]:
        """Return what ``hamictl`` needs to talk to this system."""
        return self.at.environment()

    async def fetch_gifts(self, node: str) -> None:
        """Copy what a node's containers were given to where the demo reads it."""
        folder = self.plan.folder / "k" / node
        folder.mkdir(parents=True, exist_ok=True)
        await self._compose("cp", f"{CLUSTER}:/k/{node}/containers", str(folder))

    async def _compose(self, *arguments: str) -> None:
        process = await asyncio.create_subprocess_exec(
            "docker", "compose", *arguments, cwd=self.project,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        async with asyncio.timeout(DEADLINE):
            said = (await process.communicate())[0].decode().strip()
        if process.returncode:
            raise DemoError(f"docker compose {' '.join(arguments)}: {said}")
