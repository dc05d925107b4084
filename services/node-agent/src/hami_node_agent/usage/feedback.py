"""Who may launch kernels, and whose cores are limited: HAMi's priority feedback.

One rule: a pure function from what the containers of a node did lately to what is written back to each; numbers are
HAMi's (0 = high priority; active = a launch within about two rounds).
"""

from collections import Counter
from collections.abc import Sequence

from msgspec import Struct

from hami_node_agent.usage.region import BLOCKED, Reading


class Change(Struct, frozen=True, kw_only=True):
    """What is to be written into a region; None = it stands as it should."""

    recent_kernel: int | None = None
    switch: int | None = None


def observe(readings: Sequence[Reading]) -> list[Change]:
    """Return one round's changes, in the order of the readings.

    Activity counts down by one a round. A container that shares a card with an active one of a higher priority may
    launch nothing; cores are limited where somebody of a higher priority, or more than one of the same, is active.
    """
    recent = [max(reading.recent_kernel - 1, 0) if reading.recent_kernel > 0 else reading.recent_kernel
              for reading in readings]  # fmt: skip
    active: Counter[tuple[str, int]] = Counter()
    for reading, left in zip(readings, recent, strict=True):
        if left > 0 and reading.priority >= 0:
            active.update((card.uuid, reading.priority) for card in reading.cards)
    return [_change(reading, left, active) for reading, left in zip(readings, recent, strict=True)]


def _change(reading: Reading, left: int, active: Counter[tuple[str, int]]) -> Change:
    mine = {card.uuid for card in reading.cards}
    is_below = any(uuid in mine and priority < reading.priority for uuid, priority in active)
    is_shared = is_below or any(active[uuid, reading.priority] > 1 for uuid in mine)
    wanted = left
    if is_below and left >= 0:
        wanted = BLOCKED
    elif not is_below and left < 0:
        wanted = 0
    switch = int(is_shared)
    return Change(
        recent_kernel=None if wanted == reading.recent_kernel else wanted,
        switch=None if switch == reading.switch else switch,
    )
