"""A wire to NATS that is slow or breaks: what the server says is held back for a while, or cut off."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit


class SlowWire:
    """Carries bytes both ways; ``delay`` (seconds) holds back the server's, ``cut_after`` breaks a connection."""

    def __init__(self) -> None:
        self.delay = 0.0
        self.cut_after: int | None = None
        """Bytes that the server may still say before the connection breaks under what comes next."""
        self.cuts = 0
        self.url = ""

    async def carry(self, server: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one client until either side is gone."""
        there, there_writer = await asyncio.open_connection(*_address(server))
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._up(reader, there_writer))
                tasks.create_task(self._down(there, writer))
        except* (OSError, EOFError):
            pass
        finally:
            there_writer.close()
            writer.close()

    async def _up(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        raise EOFError

    async def _down(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        loop, due = asyncio.get_running_loop(), 0.0
        while data := await reader.read(65536):
            if self._is_cut_by(len(data)):
                break
            due = max(due, loop.time() + self.delay)
            loop.call_at(due, writer.write, data)
        raise EOFError

    def _is_cut_by(self, count: int) -> bool:
        if self.cut_after is None:
            return False
        self.cut_after -= count
        if self.cut_after >= 0:
            return False
        self.cut_after = None
        self.cuts += 1
        return True


def _address(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    return parts.hostname or "", parts.port or 0


@asynccontextmanager
async def slow_wire(server: str) -> AsyncIterator[SlowWire]:
    """Open a wire to a server for the length of a block."""
    wire = SlowWire()
    carrying: set[asyncio.Task[None]] = set()

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        carrying.add(task)
        await wire.carry(server, reader, writer)

    listening = await asyncio.start_server(carry, "127.0.0.1", 0)
    wire.url = "nats://{}:{}".format(*listening.sockets[0].getsockname())
    try:
        yield wire
    finally:
        listening.close()
        for task in carrying:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
