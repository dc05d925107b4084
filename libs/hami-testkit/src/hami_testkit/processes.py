"""The whole system as processes, started and stopped as a user would: by environment, one command each.

One rule: whatever was started here is stopped here, what others stand on last; a process that dies early says so with
the end of its own log. Used by the demo, by the tests over HTTP and by the benchmarks.
"""

import asyncio
import os
import re
import secrets
import signal
import socket
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import httpx
from msgspec import Struct

BIN = Path(sys.executable).parent
"""Where the console commands of this environment stand."""

PORTS = range(12_000, 32_000)
"""Below those that the kernel gives to connections, which would take them between our look and the process's start."""

STOP_GRACE = 8.0
"""Seconds between the polite and the impolite signal."""


OURS = ("HAMI_", "OTEL_", "KUBECONFIG", "KUBERNETES_")
"""How variables begin that would configure what is started here."""


COMPLAINT = re.compile(r" (WARNING|ERROR|CRITICAL) |Traceback")
"""What stands in a line of a log that somebody should see when things went wrong."""


class ProcessFailedError(Exception):
    """A process ended, or did not get ready; the text holds the end of its log."""


class Spec(Struct, frozen=True, kw_only=True):
    """One process: its name, its command, its additions to the environment, where it answers 200 once it is ready."""

    name: str
    command: Sequence[str]
    env: Mapping[str, str] = {}
    ready_url: str = ""
    ground: bool = False
    """Whether others stand on it, so that it is stopped after them."""
    grace: float = STOP_GRACE


class Running:
    """A started process with its log."""

    def __init__(self, spec: Spec, process: asyncio.subprocess.Process, log: Path) -> None:
        self.spec = spec
        self.pid = process.pid
        self._process = process
        self._log = log
        self._is_paused = False

    def log_tail(self, lines: int = 15) -> str:
        """Return the end of what the process printed."""
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-lines:])

    async def wait_ready(self, deadline: float) -> None:
        """Wait until the process says that it is ready; raise ``ProcessFailedError`` when it ends or takes too long."""
        try:
            # verify=False: it speaks to the loopback, and the certificates of the world take long to load
            async with asyncio.timeout(deadline), httpx.AsyncClient(timeout=1, trust_env=False, verify=False) as http:  # noqa: S501
                while not await self._is_ready(http):
                    if self._process.returncode is not None:
                        raise ProcessFailedError(
                            f"{self.spec.name} ended with {self._process.returncode}:\n{self.log_tail()}"
                        )
                    await asyncio.sleep(0.05)
        except TimeoutError as e:
            raise ProcessFailedError(f"{self.spec.name} was not ready within {deadline:g} s:\n{self.log_tail()}") from e

    async def _is_ready(self, http: httpx.AsyncClient) -> bool:
        if not self.spec.ready_url:
            return True
        try:
            return (await http.get(self.spec.ready_url)).status_code == 200
        except httpx.HTTPError:
            return False

    @property
    def is_alive(self) -> bool:
        """Say whether the process has not ended; a paused one has not."""
        return self._process.returncode is None

    def kill(self) -> None:
        """End the process at once, as a crash would."""
        self._signal(signal.SIGKILL)

    def pause(self) -> None:
        """Let the process stand still, as a machine that is too busy would; its connections stay open."""
        self._signal(signal.SIGSTOP)
        self._is_paused = True

    def resume(self) -> None:
        """Let a paused process go on."""
        self._signal(signal.SIGCONT)
        self._is_paused = False

    def _signal(self, number: signal.Signals) -> None:
        if self.is_alive:
            self._process.send_signal(number)

    async def wait_ended(self) -> int:
        """Return how the process ended, once it has."""
        return await self._process.wait()

    async def stop(self) -> None:
        """Ask the process to stop, then make it."""
        if self.is_alive:
            self._signal(signal.SIGTERM)
            # One that stands still hears nothing. Any other may be gone by now, and must get no second signal: asyncio
            # loses sight of an end that a signal has found out.
            if self._is_paused:
                self.resume()
            try:
                async with asyncio.timeout(self.spec.grace):
                    await self._process.wait()
            except TimeoutError:
                self._process.kill()
        await self._process.wait()


class Processes:
    """All processes of one run; their logs stand in ``folder``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.running: list[Running] = []
        self._specs: dict[str, Spec] = {}

    async def start(self, spec: Spec) -> Running:
        """Start one process without waiting for it."""
        log = self.folder / f"{spec.name}.log"
        with log.open("ab") as out:
            process = await asyncio.create_subprocess_exec(
                *spec.command,
                env={**_inherited(), **spec.env},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        running = Running(spec, process, log)
        self.running.append(running)
        self._specs[spec.name] = spec
        return running

    def find(self, name: str) -> Running:
        """Return a running process by its name."""
        return next(p for p in self.running if p.spec.name == name)

    async def start_again(self, name: str) -> Running:
        """Start a process that was stopped or killed as it was started before, without waiting for it."""
        return await self.start(self._specs[name])

    async def stop(self, name: str) -> None:
        """Stop one process by its name."""
        running = self.find(name)
        self.running.remove(running)
        await running.stop()

    async def kill(self, name: str) -> None:
        """End one process by its name as a crash would, and wait until it is gone."""
        running = self.find(name)
        self.running.remove(running)
        running.kill()
        await running.wait_ended()

    def complaints(self) -> list[str]:
        """Return what the processes logged as a warning or worse, with their names."""
        found = [(p.spec.name, p.log_tail(1000).splitlines()) for p in self.running]
        return [f"{name}: {line}" for name, lines in found for line in lines if COMPLAINT.search(line)]

    async def stop_all(self) -> None:
        """Stop everything: together all that stand on others, then together what they stood on."""
        for ground in (False, True):
            await asyncio.gather(*(p.stop() for p in self.running if p.spec.ground is ground))
        self.running.clear()


def _inherited() -> dict[str, str]:
    """Pass on the environment less what would configure our services from outside, or lead them past the loopback."""
    return {k: v for k, v in os.environ.items() if not k.upper().startswith(OURS) and not k.upper().endswith("_PROXY")}


def free_port() -> int:
    """Return a port of the loopback that is free right now, and that no connection is given by the kernel meanwhile."""
    while True:
        with socket.socket() as s, suppress(OSError):
            port = PORTS.start + secrets.randbelow(len(PORTS))
            s.bind(("127.0.0.1", port))
            return port


@asynccontextmanager
async def processes(folder: Path) -> AsyncIterator[Processes]:
    """Run processes for the length of a block."""
    all_of_them = Processes(folder)
    try:
        yield all_of_them
    finally:
        await all_of_them.stop_all()
