"""Bytes and messages: JSON both ways, one decoder for each type.

One rule: what cannot be read is said with the field's path, so that the sender finds it.
"""

from functools import cache
from typing import Any

import msgspec
from hami_model.bus import subjects
from hami_model.bus.messages import Refused
from msgspec import Struct

from hami_kit.errors import BadMessage

NODE_PREFIX = f"{subjects.PREFIX}.node."

HEADERS = 128
"""Bytes kept for a traceparent, which NATS counts too."""

_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What decoding raises for bytes that are no JSON, no text, or nested without end."""

_encoder = msgspec.json.Encoder()


def encode(message: Struct) -> bytes:
    """Write a message."""
    return _encoder.encode(message)


def fits(data: bytes, limit: int) -> bool:
    """Say whether a server whose max_payload is ``limit`` bytes takes a message with the headers that we add."""
    return len(data) + HEADERS <= limit


@cache
def decoder(kind: Any) -> msgspec.json.Decoder[Any]:
    """Return the one decoder of a type, built when first asked for."""
    return msgspec.json.Decoder(kind)


def read_message(subject: str, data: bytes, kind: Any) -> Any:
    """Read what came on a subject; raise BadMessage that names the field.

    A node may speak for itself only: NATS rights guard the subject, so a message that names another node is malformed.
    """
    try:
        message = decoder(kind).decode(data)
    except _UNREADABLE as e:
        raise BadMessage(f"{subject}: the message cannot be read: {e}") from e
    if subject.startswith(NODE_PREFIX):
        node = getattr(message, "node", None)
        if node is not None and node != subjects.node_of(subject):
            raise BadMessage(f'{subject}: `$.node` is "{node}", but only {subjects.node_of(subject)} may speak there')
    return message


def read_answer(subject: str, data: bytes, kind: Any) -> Any:
    """Read an answer; raise BadMessage, with the peer's reason if any, where it is none of what was asked for."""
    try:
        return decoder(kind).decode(data)
    except _UNREADABLE as e:
        raise BadMessage(f"{subject}: {_refusal(data) or f'the answer cannot be read: {e}'}") from e


def _refusal(data: bytes) -> str:
    try:
        refused: Refused = decoder(Refused).decode(data)
    except _UNREADABLE:
        return ""
    return refused.error
