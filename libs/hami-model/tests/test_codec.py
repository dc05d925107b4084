"""Messages survive the bus, and what is no message is named."""

import pytest
from hami_model.bus import messages
from hami_model.bus.codec import decode, encode, title
from hami_model.bus.events import CloudEvent
from hami_model.errors import BadMessage
from hami_testkit.strategies import values_of
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct

STRUCTS = [kind for kind in vars(messages).values() if isinstance(kind, type) and issubclass(kind, Struct)]
MESSAGES = sorted((kind for kind in STRUCTS if kind.__struct_config__.tag), key=title)


@pytest.mark.parametrize("kind", [*MESSAGES, CloudEvent], ids=title)
@given(data=st.data())
def test_a_message_survives_the_bus(kind: type[Struct], data: st.DataObject) -> None:
    """What was sent is what arrives, every field of it."""
    sent = data.draw(values_of(kind))

    assert sent == decode(encode(sent), kind)


def test_fields_of_a_newer_sender_are_skipped() -> None:
    """An older reader understands a message that has grown."""
    assert messages.Placed(node="node-1") == decode(b'{"type":"placed.v1","node":"node-1","score":7}', messages.Placed)


def test_an_answer_is_told_by_its_tag() -> None:
    """Whoever asks gets one of the answers, never a guess."""
    assert messages.Refused(error="why") == decode(b'{"type":"refused.v1","error":"why"}', messages.FilterAnswer)


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        pytest.param(b'{"type":"bind_pod.v1","node":"n"}', "Object missing required field `pod`", id="missing"),
        pytest.param(
            b'{"type":"bind_pod.v1","pod":{"namespace":"a","name":3,"uid":"u"},"node":"n"}',
            "Expected `str`, got `int` - at `$.pod.name`", id="wrong-type",
        ),
        pytest.param(b'{"type":"bind_pod.v2","node":"n"}', "Invalid value 'bind_pod.v2' - at `$.type`", id="version"),
        pytest.param(b"\xff\xfe", "JSON is malformed", id="no-json"),
        pytest.param(b"", "Input data was truncated", id="empty"),
    ],
)  # fmt: skip
def test_what_is_no_message_is_refused_with_the_field(data: bytes, sentence: str) -> None:
    """One sentence names the message and the field."""
    with pytest.raises(BadMessage) as refused:
        decode(data, messages.BindPod)

    assert str(refused.value).startswith(f"this is no bind_pod.v1 message: {sentence}")


@given(st.binary(max_size=64))
def test_no_bytes_do_more_than_be_refused(data: bytes) -> None:
    """Whatever arrives, the reader gets one kind of error."""
    with pytest.raises(BadMessage, match=r"this is no placed\.v1 or unplaced\.v1"):
        decode(data, messages.FilterAnswer)
