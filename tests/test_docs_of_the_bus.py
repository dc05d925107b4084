"""The page about the bus leaves nothing out: whoever adds a subject, a message or an event describes it."""

from pathlib import Path

from hami_model.bus import messages, subjects
from hami_model.bus.events import EVENT_KINDS
from msgspec import Struct

PAGE = (Path(__file__).parents[1] / "docs" / "reference" / "bus.md").read_text()
OF_THE_ALLOCATOR = [value for value in vars(subjects).values() if str(value).startswith("hami.v1.allocator.")]
OF_A_NODE = ["inventory", "heartbeat", "allocation", "confirm", "refuse", "report", "withdraw"]


def test_the_page_has_every_subject() -> None:
    """Each subject stands in the page as it is on the wire."""
    named = [*OF_THE_ALLOCATOR, *(f"hami.v1.node.<n>.{what}" for what in OF_A_NODE)]

    assert [] == [subject for subject in named if f"`{subject}`" not in PAGE]


def test_the_page_has_every_message_and_event() -> None:
    """Each message stands there by its tag, each event by its kind."""
    kinds = [kind for kind in vars(messages).values() if isinstance(kind, type) and issubclass(kind, Struct)]
    tags = [str(kind.__struct_config__.tag) for kind in kinds if kind.__struct_config__.tag]

    assert [] == [word for word in [*tags, *EVENT_KINDS] if f"`{word}`" not in PAGE]
