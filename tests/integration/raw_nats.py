"""The NATS protocol by hand: for bytes that no client of ours would ever send."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

DEADLINE = 10.0
INBOX = "_INBOX.raw"


class RawNats:
    """One connection; a question at a time."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def publish(self, subject: str, data: bytes, *, reply: str = "") -> None:
        """Send bytes and wait until the server has taken them."""
        self._writer.write(b"PUB %s %s %d\r\n%s\r\nPING\r\n" % (subject.encode(), reply.encode(), len(data), data))
        await self._line(b"PONG")

    async def ask(self, subject: str, data: bytes) -> bytes:
        """Send bytes as a question and return the answer's bytes."""
        self._writer.write(b"SUB %s 1\r\nUNSUB 1 1\r\n" % INBOX.encode())
        self._writer.write(b"PUB %s %s %d\r\n%s\r\n" % (subject.encode(), INBOX.encode(), len(data), data))
        message = await self._line(b"MSG")
        return (await self._reader.readexactly(int(message.split()[-1]) + 2))[:-2]

    async def hello(self) -> None:
        """Introduce ourselves."""
        self._writer.write(b'CONNECT {"verbose": false, "name": "raw"}\r\nPING\r\n')
        await self._line(b"PONG")

    async def _line(self, word: bytes) -> bytes:
        async with asyncio.timeout(DEADLINE):
            while not (line := await self._reader.readline()).startswith(word):
                if not line or line.startswith(b"-ERR"):
                    raise ConnectionError(f"the NATS server said {line!r}")
                if line.startswith(b"PING"):
                    self._writer.write(b"PONG\r\n")
        return line


@asynccontextmanager
async def raw_nats(url: str) -> AsyncIterator[RawNats]:
    """Connect for the length of a block."""
    host, _, port = url.rpartition("//")[2].rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        raw = RawNats(reader, writer)
        await raw.hello()
        yield raw
    finally:
        writer.close()
        await writer.wait_closed()
