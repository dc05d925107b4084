"""Messages to JetStream under way side by side, and what it says to each.

One rule: an answer counts for the round in which its message was sent. What comes later tells nothing.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Self

import msgspec
from msgspec import Struct
from nats.aio.client import Client
from nats.aio.msg import Msg


class Publication(Struct, frozen=True):
    """A message for a stream."""

    subject: str
    data: bytes
    headers: Mapping[str, str]


class Refusal(Struct, frozen=True):
    """JetStream's no: its own code, 0 where no stream answers at all, and its words."""

    err_code: int = 0
    description: str = ""


class Ack(Struct, frozen=True):
    """JetStream's answer: stored, now or before, unless there is an error."""

    error: Refusal | None = None


NOBODY = Ack(error=Refusal(description="no stream takes their subjects, or JetStream is not enabled"))

_decoder = msgspec.json.Decoder(Ack)


class Acks:
    """Publishes on one connection and collects the answers, one round at a time."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._inbox = client.new_inbox()
        self._round = 0
        self._answers: list[Ack | None] = []
        self._missing = 0
        self._all = asyncio.Event()

    @classmethod
    async def listen(cls, client: Client) -> Self:
        """Begin to hear answers; the connection keeps the subscription when it reconnects."""
        acks = cls(client)
        await client.subscribe(f"{acks._inbox}.*.*", cb=acks._hear)
        return acks

    def belongs_to(self, client: Client) -> bool:
        """Say whether it is this connection's."""
        return self._client is client

    async def collect(self, publications: Sequence[Publication], *, timeout: float) -> Sequence[Ack | None]:
        """Publish all and return the answers, None for what was not answered in time."""
        self._round += 1
        self._answers = [None] * len(publications)
        self._missing = len(publications)
        self._all.clear()
        try:
            async with asyncio.timeout(timeout):
                for number, sent in enumerate(publications):
                    reply = f"{self._inbox}.{self._round}.{number}"
                    await self._client.publish(sent.subject, sent.data, reply=reply, headers=dict(sent.headers))
                await self._all.wait()
        except TimeoutError:
            pass
        return self._answers

    async def _hear(self, msg: Msg) -> None:
        _, round_, number = msg.subject.rsplit(".", 2)
        if int(round_) != self._round or self._answers[int(number)] is not None:
            return
        self._answers[int(number)] = NOBODY if not msg.data else _decoder.decode(msg.data)
        self._missing -= 1
        if not self._missing:
            self._all.set()
