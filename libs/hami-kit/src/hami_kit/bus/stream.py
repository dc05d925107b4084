"""The event stream: HAMI_EVENTS on JetStream, made when it is not there.

One rule: it says yes when the event is stored, and raises BusUnavailable for every other outcome.
"""

import logging

from hami_model.bus import subjects
from hami_model.bus.events import CloudEvent
from msgspec import Struct
from nats.errors import Error as NatsError
from nats.js import JetStreamContext
from nats.js.api import DiscardPolicy, StreamConfig
from nats.js.errors import NotFoundError

from hami_kit.bus import wire
from hami_kit.bus.link import Link
from hami_kit.errors import BadMessage, BusUnavailable

log = logging.getLogger(__name__)

ACK_TIMEOUT = 2.0
DAY = 86_400.0


class EventStream:
    """Stores events on the JetStream stream of the current connection."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._checked: object = None

    async def store(self, subject: str, message: Struct, *, message_id: str) -> None:
        """Store one event; the same ``message_id`` twice within two minutes is stored once."""
        client = self._link.client()
        try:
            stream = client.jetstream(timeout=ACK_TIMEOUT)
            if self._checked is not client:
                await _ensure(stream)
                self._checked = client
            await stream.publish(
                subject,
                wire.encode(message),
                stream=subjects.EVENTS_STREAM,
                headers={"Nats-Msg-Id": message_id},
                timeout=ACK_TIMEOUT,
            )
        except (NatsError, OSError, TimeoutError) as e:
            self._checked = None
            raise BusUnavailable(f"{subjects.EVENTS_STREAM}: the event was not stored: {e}") from e

    async def recent(self, limit: int) -> list[CloudEvent]:
        """Return the last stored events, oldest first; none where the stream is not there yet.

        What somebody removed from the stream, or stored there and is no event, is left out.
        """
        try:
            stream = self._link.client().jetstream(timeout=ACK_TIMEOUT)
            state = (await stream.stream_info(subjects.EVENTS_STREAM)).state
            first = max(state.first_seq, state.last_seq - limit + 1, 1)
            found = [await _stored(stream, number) for number in range(first, state.last_seq + 1)]
        except NotFoundError:
            return []
        except (NatsError, OSError, TimeoutError) as e:
            raise BusUnavailable(f"{subjects.EVENTS_STREAM} cannot be read: {e or type(e).__name__}") from e
        return [event for data in found if data is not None and (event := _event(data)) is not None]


async def _stored(stream: JetStreamContext, number: int) -> bytes | None:
    try:
        return (await stream.get_msg(subjects.EVENTS_STREAM, number)).data or b""
    except NotFoundError:
        return None


def _event(data: bytes) -> CloudEvent | None:
    try:
        event: CloudEvent = wire.read_message(subjects.EVENTS_STREAM, data, CloudEvent)
    except BadMessage as e:
        log.warning("%s", e)
        return None
    return event


async def _ensure(stream: object) -> None:
    """Make the stream unless it is there; one that somebody configured otherwise stays as it is."""
    try:
        await stream.stream_info(subjects.EVENTS_STREAM)  # type: ignore[attr-defined]
    except NotFoundError:
        await stream.add_stream(  # type: ignore[attr-defined]
            StreamConfig(
                name=subjects.EVENTS_STREAM,
                description="What HAMi did: CloudEvents",
                subjects=[subjects.ALL_EVENTS],
                max_age=7 * DAY,
                max_bytes=256 * 1024 * 1024,
                discard=DiscardPolicy.OLD,
                duplicate_window=120,
            )
        )
