"""The shared region of one container: what HAMi-core (``libvgpu.so``) writes there of memory, cores and activity.

One rule: the file belongs to the tenant. It is read piece by piece and never mapped, so that cutting it short ends
nothing; a number that makes no sense is clamped, a layout that is none is refused. Memory in bytes, cores in percent.
"""

import os
import stat
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from msgspec import Struct

MAGIC = 19920718
MOST_CARDS, MOST_PROCESSES = 16, 1024
UUID_BYTES = 40
"""Of the 96 bytes kept for a uuid: ``GPU-`` and 36 (HAMi compat)."""

BLOCKED = -1
"""The value of ``recent_kernel`` at which HAMi-core launches nothing."""


class Layout(Struct, frozen=True, kw_only=True):
    """Where things stand, in bytes from the beginning of the file; of a slot, from the beginning of the slot."""

    size: int
    uuids: int
    limits: int
    core_limits: int
    slots: int
    slot_size: int
    card_size: int
    """Of what a slot says of one card's memory: context, module, data, offset, total."""
    use_at: int
    use_size: int
    """Of what it says of one card's use: decoder, encoder, multiprocessors."""
    status: int
    process_count: int
    last_kernel: int | None

    @property
    def switch(self) -> int:
        """Return where the switch of the core limit stands; ``recent_kernel`` and ``priority`` follow."""
        return self.process_count + 4


V0 = Layout(
    size=1197896, uuids=56, limits=1592, core_limits=1720, slots=1848, slot_size=1168, card_size=40, use_at=776,
    use_size=24, status=1160, process_count=1197880, last_kernel=None,
)  # fmt: skip
"""Before the layout had a version."""

V1 = Layout(
    size=2008952, uuids=64, limits=1600, core_limits=1728, slots=1856, slot_size=1960, card_size=64, use_at=1160,
    use_size=48, status=1928, process_count=2008896, last_kernel=2008912,
)  # fmt: skip


class CardUse(Struct, frozen=True, kw_only=True):
    """What a container uses of one card, all its processes together."""

    uuid: str
    limit: int
    """0 = unlimited."""
    core_limit: int
    used: int = 0
    context: int = 0
    module: int = 0
    data: int = 0
    cores: int = 0


class Reading(Struct, frozen=True, kw_only=True):
    """One reading of a region."""

    cards: tuple[CardUse, ...]
    switch: int
    """1 = cores are limited, 0 = they are not."""
    recent_kernel: int
    """Above 0 = launched lately; ``BLOCKED`` = may not."""
    priority: int
    """0 = high."""
    last_kernel: int
    """Unix seconds; 0 = never, or not told."""


class BadRegion(Exception):
    """A file that is no region; the sentence says what is wrong with it."""


class Region:
    """One open region. ``read`` and the writes raise ``OSError`` for a file that is gone."""

    def __init__(self, file: int, layout: Layout) -> None:
        self._file = file
        self._layout = layout

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open a file and find out its layout; raise ``BadRegion``, or ``OSError``."""
        # no link is followed and nothing is waited for: a tenant may have put anything there
        file = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            return cls(file, _layout(file))
        except BaseException:
            os.close(file)
            raise

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)

    def read(self) -> Reading:
        """Read it; raise ``BadRegion`` where it was cut short meanwhile."""
        at = self._layout
        head = self._bytes(0, at.slots)
        count, switch, recent, priority = struct.unpack("<4i", self._bytes(at.process_count, 16))
        last = 0 if at.last_kernel is None else struct.unpack("<q", self._bytes(at.last_kernel, 8))[0]
        cards = list(self._cards(head))
        used = {index: _Sum() for index, _ in cards}
        processes = min(max(count, 0), MOST_PROCESSES)
        slots = self._bytes(at.slots, processes * at.slot_size)
        for number in range(processes):
            self._add(slots, number * at.slot_size, used)
        return Reading(
            cards=tuple(used[index].of(card) for index, card in cards),
            switch=switch,
            recent_kernel=recent,
            priority=priority,
            last_kernel=max(last, 0),
        )

    def write_switch(self, value: int) -> None:
        """Say whether cores are limited."""
        os.pwrite(self._file, struct.pack("<i", value), self._layout.switch)

    def write_recent_kernel(self, value: int) -> None:
        """Say how lately something was launched, or that nothing may be."""
        os.pwrite(self._file, struct.pack("<i", value), self._layout.switch + 4)

    def _cards(self, head: bytes) -> Iterator[tuple[int, CardUse]]:
        """Yield the cards with their places; HAMi compat: one without a name, or with one that is no text, is none."""
        at = self._layout
        for index in range(MOST_CARDS):
            start = at.uuids + index * 96
            try:
                uuid = head[start : start + UUID_BYTES].partition(b"\0")[0].decode()
            except UnicodeDecodeError:
                continue
            if uuid and uuid.isprintable():
                (limit,) = struct.unpack_from("<Q", head, at.limits + 8 * index)
                (cores,) = struct.unpack_from("<Q", head, at.core_limits + 8 * index)
                yield index, CardUse(uuid=uuid, limit=limit, core_limit=cores)

    def _add(self, slots: bytes, start: int, used: "dict[int, _Sum]") -> None:
        at = self._layout
        (status,) = struct.unpack_from("<i", slots, start + at.status)
        if not status:
            return
        for index, total in used.items():
            context, module, data, _, whole = struct.unpack_from("<5Q", slots, start + 8 + index * at.card_size)
            _, _, cores = struct.unpack_from("<3Q", slots, start + at.use_at + index * at.use_size)
            total.add(context, module, data, whole, cores)

    def _bytes(self, start: int, size: int) -> bytes:
        found = os.pread(self._file, size, start)
        if len(found) < size:
            raise BadRegion(f"it ends at byte {os.fstat(self._file).st_size}, where HAMi-core writes more")
        return found


class _Sum:
    """What the processes of a container use of one card."""

    def __init__(self) -> None:
        self._numbers = [0] * 5

    def add(self, *numbers: int) -> None:
        self._numbers = [a + b for a, b in zip(self._numbers, numbers, strict=True)]

    def of(self, card: CardUse) -> CardUse:
        context, module, data, used, cores = self._numbers
        return CardUse(
            uuid=card.uuid, limit=card.limit, core_limit=card.core_limit, used=used, context=context, module=module,
            data=data, cores=cores,
        )  # fmt: skip


def _layout(file: int) -> Layout:
    found = os.fstat(file)
    if not stat.S_ISREG(found.st_mode):
        raise BadRegion("it is no ordinary file")
    head = os.pread(file, 12, 0)
    if len(head) < 12:
        raise BadRegion(f"it has {found.st_size} bytes only: HAMi-core has not begun with it yet, or it was cut short")
    magic, major, _ = struct.unpack("<iII", head)
    if magic != MAGIC:
        raise BadRegion("it does not begin as HAMi-core's regions do")
    if V0.size <= found.st_size < V1.size:
        return V0
    if major == 1 and found.st_size >= V1.size:
        return V1
    raise BadRegion(f"it is of version {major} with {found.st_size} bytes: HAMi-core of another release writes it")
