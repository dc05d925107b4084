"""A real nats-server from its wheel, on a free port of the loopback, for the length of a block.

One rule: it leaves nothing behind, neither process nor file; a test may stop it and start it again on the same port.
"""

import asyncio
import json
import signal
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
from hami_model.bus import subjects

from hami_testkit.processes import BIN

START_DEADLINE = 10.0
"""Seconds until a started server must have named its port."""

STOP_DEADLINE = 5.0


class NatsServer:
    """One nats-server; ``url`` stays the same over a restart."""

    def __init__(
        self, folder: Path, *, jetstream: bool, max_payload: int, file_store: str = "1GB", more: str = ""
    ) -> None:
        self._folder = folder
        self._jetstream = jetstream
        self._max_payload = max_payload
        self._file_store = file_store
        self._more = more
        self._process: asyncio.subprocess.Process | None = None
        self.port = -1
        self.monitor_port = -1

    @property
    def url(self) -> str:
        """Return where clients connect."""
        return f"nats://127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Start the server and wait until it listens."""
        config = self._folder / "nats.conf"
        config.write_text(self._config())
        with (self._folder / "nats.log").open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                str(BIN / "nats-server"), "-c", str(config), stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log
            )
        await self._wait_listening(self._process)

    async def stop(self) -> None:
        """Stop the server; its connections break."""
        process, self._process = self._process, None
        if process is None or process.returncode is not None:
            return
        process.terminate()
        try:
            async with asyncio.timeout(STOP_DEADLINE):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()

    def freeze(self) -> None:
        """Make the server hang: connections stay open and nothing is answered."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let a hanging server go on."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(number)

    async def monitor(self, page: str) -> dict[str, object]:
        """Read a page of the server's monitoring, such as ``connz``."""
        async with httpx.AsyncClient(trust_env=False) as client:
            found: dict[str, object] = (await client.get(f"http://127.0.0.1:{self.monitor_port}/{page}")).json()
        return found

    def _config(self) -> str:
        lines = [
            f"listen: 127.0.0.1:{self.port}",
            f"http: 127.0.0.1:{self.monitor_port}",
            f"max_payload: {self._max_payload}",
            f"ports_file_dir: {json.dumps(str(self._folder))}",
            self._more,
        ]
        if self._jetstream:
            store = json.dumps(str(self._folder / "jetstream"))
            lines.append(
                f"jetstream {{ store_dir: {store}, max_memory_store: 64MB, max_file_store: {self._file_store} }}"
            )
        return "\n".join(lines)

    async def _wait_listening(self, process: asyncio.subprocess.Process) -> None:
        """Read the ports that the server took; it writes them once it listens."""
        try:
            async with asyncio.timeout(START_DEADLINE):
                while not self._read_ports(process.pid):
                    if process.returncode is not None:
                        raise RuntimeError(f"nats-server ended at once: {(self._folder / 'nats.log').read_text()}")
                    await asyncio.sleep(0.01)
        except TimeoutError as e:
            await self.stop()
            raise RuntimeError(f"nats-server did not listen within {START_DEADLINE:g} s") from e

    def _read_ports(self, pid: int) -> bool:
        try:
            ports = json.loads((self._folder / f"nats-server_{pid}.ports").read_text())
        except (OSError, ValueError):
            return False
        self.port = int(ports["nats"][0].rpartition(":")[2])
        self.monitor_port = int(ports["monitoring"][0].rpartition(":")[2])
        return True


@asynccontextmanager
async def nats_running(
    *, jetstream: bool = True, max_payload: int = subjects.MAX_PAYLOAD, file_store: str = "1GB", more: str = ""
) -> AsyncIterator[NatsServer]:
    """Run a server that a test may stop, freeze and start again.

    ``file_store`` is what JetStream may keep on disk; ``more`` is added to the configuration.
    """
    with tempfile.TemporaryDirectory(prefix="nats-", ignore_cleanup_errors=True) as folder:
        server = NatsServer(
            Path(folder), jetstream=jetstream, max_payload=max_payload, file_store=file_store, more=more
        )
        try:
            await server.start()
            yield server
        finally:
            server.thaw()
            await server.stop()


@asynccontextmanager
async def nats_server(*, jetstream: bool = True) -> AsyncIterator[str]:
    """Run a server for the length of a block, which gets its URL."""
    async with nats_running(jetstream=jetstream) as server:
        yield server.url
