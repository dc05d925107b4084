"""hamictl at a prompt: a real NATS server, an allocator that knows what the test says, and what came out."""

import asyncio
import base64
import os
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hami_kit import bus as buses
from hami_kit.bus import Bus, BusSettings, Endpoint
from hami_kit.telemetry import Telemetry
from hami_model.bus import subjects
from hami_model.bus.messages import (
    AskSnapshot,
    Booking,
    DeviceUse,
    ExplainAnswer,
    ExplainPod,
    NodeUse,
    Refused,
    Snapshot,
    SnapshotAnswer,
)
from hami_testkit.nats import NatsServer, nats_running
from hami_testkit.processes import BIN
from hamictl import session
from hamictl.__main__ import run

DEADLINE = 20.0
VARIABLES = (
    "HAMI_NATS_URL",
    "HAMI_NATS_CREDS",
    "HAMI_NATS_CA",
    "HAMI_TRACES_URL",
    "KUBECONFIG",
    "HAMI_BIND_TIMEOUT",
    "HAMI_DEVICE_CONFIG",
    "HAMI_ENABLE_ASCEND",
    "HAMI_ENABLE_ILUVATAR",
    "HAMI_LEASE_NAMESPACE",
    "HAMI_SCHEDULER_NAME",
)


class Said(msgspec.Struct, frozen=True):
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def rows(self) -> list[list[str]]:
        """Return the table's lines as words."""
        return [line.split() for line in self.out.splitlines()]

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.out)

    @property
    def sentence(self) -> str:
        """Return the one line of an error; there is nothing else."""
        assert "" == self.out
        (line,) = self.err.splitlines()
        assert line.startswith("hamictl: ")
        return line.removeprefix("hamictl: ")


class Prompt:
    """Where hamictl is called, with the environment that a test makes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], folder: Path) -> None:
        self._monkeypatch = monkeypatch
        self._capsys = capsys
        for name in VARIABLES:
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("HOME", str(folder))

    def export(self, name: str, value: object) -> None:
        """Set a variable."""
        self._monkeypatch.setenv(name, str(value))

    def hurry(self, seconds: float = 0.3) -> None:
        """Wait for nothing that will not come."""
        self._monkeypatch.setattr(session, "CONNECTING", seconds)
        self._monkeypatch.setattr(session, "DEADLINE", seconds)

    async def hamictl(self, *arguments: str) -> Said:
        """Run a command to its end."""
        self._capsys.readouterr()
        async with asyncio.timeout(DEADLINE):
            code = await asyncio.to_thread(run, arguments)
        out, err = self._capsys.readouterr()
        return Said(code, out, err)

    @asynccontextmanager
    async def process(self, *arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
        """Run a command as a process of its own."""
        process = await asyncio.create_subprocess_exec(
            str(BIN / "hamictl"),
            *arguments,
            env=dict(os.environ),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            async with asyncio.timeout(DEADLINE):
                yield process
        finally:
            if process.returncode is None:
                process.kill()
            await process.communicate()


class Allocator:
    """Answers from what the test lays down."""

    def __init__(self, bus: Bus) -> None:
        self.bus = bus
        self.pages: list[list[NodeUse]] = [[]]
        self.bookings: list[Booking] = []
        self.explanations: dict[str, ExplainAnswer] = {}

    async def serve(self) -> None:
        endpoints = [
            Endpoint("snapshot", subjects.SNAPSHOT, AskSnapshot, self._snapshot),
            Endpoint("explain", subjects.EXPLAIN, ExplainPod, self._explain),
        ]
        await self.bus.serve("allocator", endpoints)

    async def _snapshot(self, question: AskSnapshot) -> SnapshotAnswer:
        page = int(question.after or 0)
        following = str(page + 1) if page + 1 < len(self.pages) else ""
        return Snapshot(nodes=self.pages[page], bookings=self.bookings, next=following)

    async def _explain(self, question: ExplainPod) -> ExplainAnswer:
        name = f"{question.namespace}/{question.name}"
        return self.explanations.get(name, Refused(error=f"pod {name} is not known"))


def use(card: Any, *, slots: int = 0, memory: int = 0, cores: int = 0) -> DeviceUse:
    return DeviceUse(device=card, used_slots=slots, used_memory=memory, used_cores=cores)


def a_bundle(folder: Path, *, days: int, authority: bool = True) -> str:
    """Make a certificate that signed itself; return it as a caBundle."""
    cert, kind = folder / "bundle.crt", "TRUE" if authority else "FALSE"
    command = [
        "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", str(days),
        "-keyout", str(folder / "bundle.key"), "-out", str(cert), "-subj", "/CN=hami-ca",
        "-addext", f"basicConstraints=critical,CA:{kind}",
    ]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True, timeout=20)
    return base64.b64encode(cert.read_bytes()).decode()


@pytest.fixture
def prompt(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Prompt:
    return Prompt(monkeypatch, capsys, tmp_path)


@pytest.fixture
async def nats(prompt: Prompt) -> AsyncIterator[NatsServer]:
    async with nats_running() as server:
        prompt.export("HAMI_NATS_URL", server.url)
        yield server


@pytest.fixture
async def bus(nats: NatsServer) -> AsyncIterator[Bus]:
    async with buses.connect(BusSettings(url=nats.url), name="test", telemetry=Telemetry()) as opened:
        async with asyncio.timeout(DEADLINE):
            await opened.wait_connected()
        yield opened


@pytest.fixture
async def allocator(bus: Bus) -> Allocator:
    allocator = Allocator(bus)
    await allocator.serve()
    return allocator
