"""The event stream: HAMI_EVENTS on JetStream, made when it is not there.

One rule: an event counts as stored when JetStream says so, and none is stored before those that were told before it.
Several are under way side by side, so each but the first names its predecessor in ``Nats-Expected-Last-Msg-Id``:
JetStream refuses it where anything else is the stream's last message. Whatever comes in between, be it a refusal, a
broken connection or another writer, the rest is refused and sent again. The first names nobody, as all before it are
known to be stored: so one always gets through.
"""

import logging
import time
from collections.abc import Sequence
from itertools import pairwise, takewhile

from hami_model.bus import subjects
from hami_model.bus.events import CloudEvent
from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.js import JetStreamContext
from nats.js.api import DiscardPolicy, Header, StreamConfig
from nats.js.errors import NotFoundError, ServiceUnavailableError

from hami_kit.bus import wire
from hami_kit.bus.acks import Ack, Acks, Publication
from hami_kit.bus.backlog import Letter
from hami_kit.bus.link import Link
from hami_kit.errors import BadMessage, BoundaryError, BusUnavailable, PayloadTooLarge

log = logging.getLogger(__name__)

STREAM = subjects.EVENTS_STREAM
READ_TIMEOUT = 2.0
LONGEST_PATIENCE = 10.0
DAY = 86_400.0
HEADERS_AT_MOST = 1024
"""Bytes; NATS counts them with the message, and hangs up on one that is too large."""
TOO_LARGE = 10054
"""JetStream's code for a message over the stream's own ``max_msg_size``."""


class EventStream:
    """Stores events on the JetStream stream of the current connection."""

    def __init__(self, link: Link, *, ack_timeout: float) -> None:
        self._link = link
        self._ack_timeout = ack_timeout
        self._patience = ack_timeout
        self._acks: Acks | None = None
        self._checked = False

    async def store(self, letters: Sequence[Letter]) -> int:
        """Store events in order, once there is a connection; the same id twice within two minutes is stored once."""
        await self._link.wait_connected()
        client = self._link.client()
        largest = client.max_payload - HEADERS_AT_MOST
        fitting = tuple(takewhile(lambda letter: len(letter.data) <= largest, letters))
        if not fitting:
            raise PayloadTooLarge(f"{STREAM}: event {letters[0].message_id} is larger than NATS carries")
        try:
            acks = await self._prepare(client)
            answers = await self._ask(acks, fitting)
        except (NatsError, OSError, TimeoutError) as e:
            self._checked = False
            if isinstance(e, TimeoutError):
                self._took(self._patience)
            raise BusUnavailable(f"{STREAM}: events cannot be stored: {e or type(e).__name__}") from e
        stored = sum(1 for _ in takewhile(_is_yes, answers))
        if not stored:
            self._checked = False
            raise _refused(letters[0], answers[0])
        return stored

    async def _prepare(self, client: Client) -> Acks:
        if self._acks is None or not self._acks.belongs_to(client):
            self._acks, self._checked = await Acks.listen(client), False
        if not self._checked:
            await _ensure(client.jetstream(timeout=self._patience))
            self._checked = True
        return self._acks

    async def _ask(self, acks: Acks, letters: Sequence[Letter]) -> Sequence[Ack | None]:
        began = time.monotonic()
        answers = await acks.collect(_publications(letters), timeout=self._patience)
        self._took(self._patience if None in answers else time.monotonic() - began)
        return answers

    def _took(self, seconds: float) -> None:
        """Wait twice as long the next time, so that a slow JetStream is heard in the end."""
        self._patience = min(max(2 * seconds, self._ack_timeout), LONGEST_PATIENCE)

    async def recent(self, limit: int) -> list[CloudEvent]:
        """Return the last stored events, oldest first; none where the stream is not there yet.

        What somebody removed from the stream, or stored there and is no event, is left out.
        """
        try:
            stream = self._link.client().jetstream(timeout=READ_TIMEOUT)
            state = (await stream.stream_info(STREAM)).state
            first = max(state.first_seq, state.last_seq - limit + 1, 1)
            found = [await _stored(stream, number) for number in range(first, state.last_seq + 1)]
        except NotFoundError:
            return []
        except (NatsError, OSError, TimeoutError) as e:
            raise BusUnavailable(f"{STREAM} cannot be read: {e or type(e).__name__}") from e
        return [event for data in found if data is not None and (event := _event(data)) is not None]


def _publications(letters: Sequence[Letter]) -> list[Publication]:
    first = Publication(letters[0].subject, letters[0].data, _headers(letters[0]))
    rest = (
        Publication(letter.subject, letter.data, {**_headers(letter), Header.EXPECTED_LAST_MSG_ID: before.message_id})
        for before, letter in pairwise(letters)
    )
    return [first, *rest]


def _headers(letter: Letter) -> dict[str, str]:
    return {Header.MSG_ID: letter.message_id, Header.EXPECTED_STREAM: STREAM}


def _is_yes(answer: Ack | None) -> bool:
    return answer is not None and answer.error is None


def _refused(letter: Letter, answer: Ack | None) -> BoundaryError:
    if answer is None or answer.error is None:
        return BusUnavailable(f"{STREAM}: JetStream does not say whether events are stored")
    if answer.error.err_code == TOO_LARGE:
        return PayloadTooLarge(f"{STREAM}: event {letter.message_id} is larger than the stream takes")
    return BusUnavailable(f"{STREAM}: events are not stored: {answer.error.description}")


async def _stored(stream: JetStreamContext, number: int) -> bytes | None:
    try:
        return (await stream.get_msg(STREAM, number)).data or b""
    except NotFoundError:
        return None


def _event(data: bytes) -> CloudEvent | None:
    try:
        event: CloudEvent = wire.read_message(STREAM, data, CloudEvent)
    except BadMessage as e:
        log.warning("%s", e)
        return None
    return event


async def _ensure(stream: JetStreamContext) -> None:
    """Make the stream unless it is there; one that somebody configured otherwise stays as it is."""
    try:
        found = await stream.stream_info(STREAM)
    except NotFoundError:
        await stream.add_stream(
            StreamConfig(
                name=STREAM,
                description="What HAMi did: CloudEvents",
                subjects=[subjects.ALL_EVENTS],
                max_age=7 * DAY,
                max_bytes=256 * 1024 * 1024,
                discard=DiscardPolicy.OLD,
                duplicate_window=120,
            )
        )
    except ServiceUnavailableError as e:
        raise BusUnavailable(f"{STREAM}: events cannot be stored: JetStream is not enabled, or not up") from e
    else:
        if found.config.no_ack:
            raise BusUnavailable(f"{STREAM} is configured with no_ack, so nobody knows what is stored; turn it off")
