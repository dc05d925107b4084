"""Messages recorded from every version of the wire are still understood: parts of different age talk to each other.

A recording is never edited. A message that grows keeps its recording; one with a new meaning gets a new tag and a new
recording beside the old.
"""

import json
from pathlib import Path
from typing import Any

import pytest
from hami_model.bus import messages
from hami_model.bus.codec import decode, encode, title
from hami_model.bus.events import CloudEvent
from msgspec import Struct

RECORDINGS = sorted((Path(__file__).parent / "wire").glob("*.json"))
STRUCTS = [kind for kind in vars(messages).values() if isinstance(kind, type) and issubclass(kind, Struct)]
KINDS: dict[str, type[Struct]] = {title(kind): kind for kind in STRUCTS if kind.__struct_config__.tag}
KINDS["cloud_event.v1"] = CloudEvent


@pytest.mark.parametrize("recording", RECORDINGS, ids=lambda path: path.stem)
def test_a_recorded_message_is_understood(recording: Path) -> None:
    """Every field that was once sent is read today, with the value it had."""
    message = decode(recording.read_bytes(), KINDS[recording.stem])

    assert lost(json.loads(recording.read_bytes()), json.loads(encode(message))) == []


def test_every_message_has_a_recording() -> None:
    """Whoever adds a message, or a version of one, records it."""
    assert sorted(KINDS) == [recording.stem for recording in RECORDINGS]


def lost(sent: Any, read: Any, path: str = "$") -> list[str]:
    """Return the paths of what was sent and is not read back as it was."""
    if isinstance(sent, dict) and isinstance(read, dict):
        return [gone for key in sent for gone in lost(sent[key], read.get(key), f"{path}.{key}")]
    if isinstance(sent, list) and isinstance(read, list) and len(sent) == len(read):
        return [gone for at, (s, r) in enumerate(zip(sent, read, strict=True)) for gone in lost(s, r, f"{path}[{at}]")]
    return [] if sent == read else [path]
