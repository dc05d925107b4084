"""Messages to bytes and back.

One rule: whoever reads a message that is not what it should be gets one ``BadMessage``, a sentence that names the
message and the field.
"""

from collections.abc import Hashable
from functools import cache
from types import UnionType
from typing import Any, TypeVar, get_args, overload

import msgspec

from hami_model.errors import BadMessage

T = TypeVar("T")

_ENCODER = msgspec.json.Encoder()


@cache
def decoder(kind: Hashable) -> msgspec.json.Decoder[Any]:
    """Return the decoder of a message type, or of a union of them such as ``FilterAnswer``, built once."""
    return msgspec.json.Decoder(kind)


def encode(message: msgspec.Struct) -> bytes:
    """Write a message as JSON."""
    return _ENCODER.encode(message)


@overload
def decode(data: bytes, kind: type[T]) -> T: ...
@overload
def decode(data: bytes, kind: UnionType) -> Any: ...
def decode(data: bytes, kind: Any) -> Any:
    """Read a message of this type; fields it does not know are skipped. Raise ``BadMessage`` for anything else."""
    try:
        return decoder(kind).decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise BadMessage(f"this is no {title(kind)} message: {error}") from error


def title(kind: Any) -> str:
    """Return what people call a message type: its tag, or the tags of a union."""
    return " or ".join(_tag(member) for member in get_args(kind) or (kind,))


def _tag(kind: type[Any]) -> str:
    config = getattr(kind, "__struct_config__", None)
    return str((config and config.tag) or kind.__name__)
