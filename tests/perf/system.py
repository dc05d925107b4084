"""The services on a big cluster, as processes: allocators that can be killed, stopped and started again.

One rule: like ``hami_testkit.stack``, everything is started by the console commands; the cluster alone is ours.
"""

import asyncio
import os
import re
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
from hami_testkit.parts import NATS_CONFIG
from hami_testkit.processes import BIN, Processes, Running, Spec, free_port, processes

READY = 120.0
"""Seconds for one process to get ready on a busy machine."""
AGAIN = 0.01
"""Seconds between two calls to an extender that has no leader to ask."""

_ROOT = Path(__file__).parents[2]


class System:
    """NATS, the cluster, the extender, and the allocators that were asked for."""

    def __init__(self, folder: Path, started: Processes) -> None:
        self.nats, self.api, self.extender = f"nats://{_free()}", f"http://{_free()}", f"http://{_free()}"
        self._folder = folder
        self._kubeconfig = folder / "kubeconfig"
        self._started = started

    async def start_ground(self, nodes: int) -> None:
        """Start NATS, the cluster and the extender."""
        file = self._folder / "nats.conf"
        file.write_text(NATS_CONFIG.format(port=self.nats.rpartition(":")[2], folder=self._folder))
        cluster = [str(BIN / "python"), "-m", "tests.perf.cluster", "--nodes", str(nodes)]
        where = ["--listen", _listen(self.api), "--kubeconfig-out", str(self._kubeconfig)]
        extender = {"HAMI_NATS_URL": self.nats, "HAMI_LISTEN": _listen(self.extender)}
        await self._start(Spec(name="nats", command=[str(BIN / "nats-server"), "-c", str(file)], ground=True))
        await self._start(
            Spec(
                name="cluster",
                command=[*cluster, *where],
                env={"PYTHONPATH": str(_ROOT)},
                ready_url=f"{self.api}/readyz",
                ground=True,
            )
        )
        await self._start(
            Spec(
                name="extender",
                command=[str(BIN / "hami-extender")],
                env=extender,
                ready_url=f"{self.extender}/readyz",
            )
        )

    async def _start(self, spec: Spec) -> Running:
        running = await self._started.start(spec)
        await running.wait_ready(READY)
        return running

    async def start_allocator(self, name: str) -> Running:
        """Start an allocator without waiting for it."""
        health = _free()
        env = {"HAMI_NATS_URL": self.nats, "KUBECONFIG": str(self._kubeconfig), "HAMI_HEALTH_LISTEN": health}
        command = [str(BIN / "hami-allocator")]
        return await self._started.start(
            Spec(name=name, command=command, env=env, ready_url=f"http://{health}/readyz", grace=15)
        )

    async def stop(self, name: str) -> None:
        """Stop a process, politely."""
        await self._started.stop(name)

    def process(self, name: str) -> Running:
        """Return a running process."""
        return next(running for running in self._started.running if running.spec.name == name)

    def cpu(self, name: str) -> float:
        """Return the seconds of CPU time that a process has taken so far."""
        return cpu_of(self.process(name).pid)

    def memory(self, name: str) -> tuple[float, float]:
        """Return the MiB that are resident now, and that were at most."""
        text = Path(f"/proc/{self.process(name).pid}/status").read_text()
        now, most = (int(re.findall(rf"{field}:\s+(\d+)", text)[0]) / 1024 for field in ("VmRSS", "VmHWM"))
        return now, most

    async def wait_answered(self, body: bytes) -> float:
        """Ask ``/filter`` until it names a node; return the seconds that it took."""
        started = time.perf_counter()
        async with asyncio.timeout(READY), a_client() as client:
            while not (await client.post(f"{self.extender}/filter", content=body)).json()["NodeNames"]:
                await asyncio.sleep(AGAIN)
        return time.perf_counter() - started


@asynccontextmanager
async def a_system(nodes: int) -> AsyncIterator[System]:
    """Run everything but allocators for the length of a block."""
    with tempfile.TemporaryDirectory(prefix="hami-perf-") as folder:
        async with processes(Path(folder)) as started:
            system = System(Path(folder), started)
            await system.start_ground(nodes)
            yield system


def cpu_of(pid: int) -> float:
    """Return the seconds of CPU time that a process has taken so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    user, system = int(fields[11]), int(fields[12])
    return (user + system) / os.sysconf("SC_CLK_TCK")


def a_client() -> httpx.AsyncClient:
    """Return a client for the loopback."""
    return httpx.AsyncClient(trust_env=False, verify=False, timeout=60)  # noqa: S501


def _free() -> str:
    return f"127.0.0.1:{free_port()}"


def _listen(url: str) -> str:
    return url.partition("://")[2]
