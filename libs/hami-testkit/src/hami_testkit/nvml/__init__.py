"""A driver that is not there: the real nvidia-ml-py on a small C library, compiled here, that answers by a script.

One rule: what a test says of the cards is written as one file, replaced as a whole, and the MIG instances that calls
have made stand in another; the library holds no state of its own but which XIDs it has told, so those are numbered
throughout a process.
"""

import functools
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Literal

from msgspec import Struct, structs

SOURCES = [Path(__file__).parent / name for name in ("fake_nvml.c", "fake_mig.c")]
WHERE = Path("usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1")
"""Below the folder of a driver, as the NVIDIA container toolkit lays it out."""
SCRIPT = "FAKE_NVML"
GIB = 1024**3

_XIDS = count(1)


class NoCompiler(Exception):
    """There is no C compiler to make the library with."""


class Profile(Struct, frozen=True, kw_only=True):
    """One MIG profile of a card: NVML's number, slices, most instances, multiprocessors, MB, (start, size) pairs."""

    number: int
    name: str = ""
    slices: int
    instances: int
    sms: int
    mb: int
    placements: tuple[tuple[int, int], ...]


class Process(Struct, frozen=True, kw_only=True):
    """One process on a card; ``memory`` in bytes, ``instance``: the GPU instance that it is on, None = the card."""

    pid: int
    memory: int = 0
    kind: Literal["compute", "graphics"] = "compute"
    instance: int | None = None


def _at(size: int, *starts: int) -> tuple[tuple[int, int], ...]:
    return tuple((start, size) for start in starts)


class Made(Struct, frozen=True, kw_only=True):
    """A MIG instance that is there: its card, its profile's number, its place, and whether one can compute on it."""

    card: str
    number: int
    start: int
    size: int
    computes: bool = True

    @property
    def id(self) -> int:
        """Return the driver's number of it on its card."""
        if self.size >= 8:
            return 0
        return next(first + self.start // size for size, first in ((4, 1), (2, 3), (1, 7)) if self.size >= size)

    @property
    def uuid(self) -> str:
        """Return what the driver calls it."""
        return f"MIG-{self.card}-{self.id}"


class Card(Struct, frozen=True, kw_only=True):
    """What NVML says of one card; ``memory`` in bytes, None = not supported; ``mig`` None = not supported."""

    uuid: str
    name: str = "NVIDIA A40"
    memory: int | None = 48 * GIB
    used: int = 0
    busy: tuple[int, int] | None = (0, 0)
    """Percent of time that it computes, and that its memory is accessed; None = not supported."""
    bus: str = "00000000:3B:00.0"
    mig: int | None = None
    is_lost: bool = False
    recovery: int | None = 0
    """What the driver says must be done to the card; None = it cannot say."""
    needs_reset: bool = False
    """Whether MIG is turned on by a reset only."""
    profiles: tuple[Profile, ...] = ()
    links: tuple[tuple[str, str], ...] = ()
    """NVLinks: kind of the other end (gpu, switch), and its bus id."""
    processes: tuple[Process, ...] = ()

    def lines(self, index: int) -> Iterator[str]:
        """Yield the script's lines."""
        of = f"card {index}"
        yield f"{of} uuid {self.uuid}"
        yield f"{of} name {self.name}"
        yield f"{of} memory {'unsupported' if self.memory is None else self.memory}"
        yield f"{of} used {self.used}"
        if self.busy is not None:
            yield f"{of} busy {self.busy[0]} {self.busy[1]}"
        yield f"{of} bus {self.bus}"
        yield f"{of} lost {int(self.is_lost)}"
        yield f"{of} needs_reset {int(self.needs_reset)}"
        if self.mig is not None:
            yield f"{of} mig {self.mig}"
        if self.recovery is not None:
            yield f"{of} recovery {self.recovery}"
        for number, (kind, bus) in enumerate(self.links):
            yield f"link {index} {number} {kind} {bus}"
        for number, process in enumerate(self.processes):
            on = -1 if process.instance is None else process.instance
            yield f"process {index} {number} {process.kind} {process.pid} {process.memory} {on}"
        for one in self.profiles:
            places = ",".join(f"{start}+{size}" for start, size in one.placements)
            yield f"profile {index} {one.number} {one.slices} {one.instances} {one.sms} {one.mb} {places} {one.name}"


A100 = Card(
    uuid="GPU-m",
    name="NVIDIA A100-SXM4-40GB",
    memory=40 * GIB,
    mig=1,
    profiles=(
        Profile(number=0, name="1g.5gb", slices=1, instances=7, sms=14, mb=4864, placements=_at(1, *range(7))),
        Profile(number=1, name="2g.10gb", slices=2, instances=3, sms=28, mb=9856, placements=_at(2, 0, 2, 4)),
        Profile(number=2, name="3g.20gb", slices=3, instances=2, sms=42, mb=19968, placements=_at(4, 0, 4)),
        Profile(number=3, name="4g.20gb", slices=4, instances=1, sms=56, mb=19968, placements=_at(4, 0)),
        Profile(number=4, name="7g.40gb", slices=7, instances=1, sms=98, mb=40192, placements=_at(8, 0)),
        Profile(number=7, name="1g.5gb+me", slices=1, instances=1, sms=14, mb=4864, placements=_at(1, *range(7))),
        Profile(number=9, name="1g.10gb", slices=1, instances=4, sms=14, mb=9856, placements=_at(2, 0, 2, 4, 6)),
    ),
)
"""An A100 of 40 GB in MIG mode, cut as its driver says."""


class FakeNvml:
    """The cards of one machine, as the driver shows them."""

    def __init__(self, script: Path, cards: Sequence[Card] = ()) -> None:
        self._script = script
        self._cards = list(cards)
        self._levels: dict[tuple[int, int], int] = {}
        self._lines: list[str] = []
        self._write()

    def show(self, *cards: Card) -> None:
        """Have these cards from now on."""
        self._cards = list(cards)
        self._write()

    def change(self, uuid: str, **facts: object) -> None:
        """Change what is said of one card."""
        self._cards = [structs.replace(c, **facts) if c.uuid == uuid else c for c in self._cards]
        self._write()

    @property
    def made(self) -> list[Made]:
        """Return the MIG instances that are there."""
        found = (line.split() for line in self._read_made() if line.startswith("instance"))
        numbers = ([int(word) for word in words[1:]] for words in found)
        return [
            Made(card=self._cards[n[0]].uuid, number=n[2], start=n[3], size=n[4], computes=n[5] >= 0) for n in numbers
        ]

    def make(self, made: Made) -> None:
        """Have a MIG instance that somebody else made."""
        index = next(i for i, card in enumerate(self._cards) if card.uuid == made.card)
        compute = 0 if made.computes else -1
        self._write_made(
            [*self._read_made(), f"instance {index} {made.id} {made.number} {made.start} {made.size} {compute}"]
        )

    def reset(self) -> None:
        """Reset the cards: no MIG instance is left, and what waited for a reset has happened."""
        modes = [line.split() for line in self._read_made() if line.startswith("mode")]
        self._write_made([f"mode {card} {pending} {pending}" for _, card, _, pending in modes])

    def is_cut(self, uuid: str) -> bool:
        """Say whether MIG was turned on for a card by a call."""
        index = next(i for i, card in enumerate(self._cards) if card.uuid == uuid)
        return f"mode {index} 1 1" in self._read_made()

    def _read_made(self) -> list[str]:
        file = self._script.with_name(f"{self._script.name}.mig")
        return file.read_text().splitlines() if file.exists() else []

    def _write_made(self, lines: Sequence[str]) -> None:
        new = self._script.with_name("made.new")
        new.write_text("\n".join([*lines, ""]))
        new.replace(self._script.with_name(f"{self._script.name}.mig"))

    def set_level(self, one: int, other: int, level: int) -> None:
        """Say what connects two cards on the PCIe bus: one of NVML's topology levels."""
        self._levels[one, other] = level
        self._write()

    def raise_xid(self, uuid: str, xid: int) -> None:
        """Report an error of a card, once, to whoever waits for events."""
        index = next(i for i, card in enumerate(self._cards) if card.uuid == uuid)
        self._add(f"xid {next(_XIDS)} {index} {xid}")

    @contextmanager
    def hanging(self, function: str) -> Iterator[None]:
        """Let a function not return for the length of a block."""
        yield from self._during(f"hang {function}")

    @contextmanager
    def failing(self, function: str, code: int) -> Iterator[None]:
        """Let a function answer with an error for the length of a block."""
        yield from self._during(f"error {function} {code}")

    def fail(self, function: str, code: int) -> None:
        """Let a function answer with an error from now on."""
        self._add(f"error {function} {code}")

    def _during(self, line: str) -> Iterator[None]:
        self._add(line)
        try:
            yield
        finally:
            self._lines.remove(line)
            self._write()

    def _add(self, line: str) -> None:
        self._lines.append(line)
        self._write()

    def _write(self) -> None:
        lines = ["driver 550.54.15", "cuda 12040", *self._lines]
        lines += [f"level {one} {other} {level}" for (one, other), level in self._levels.items()]
        lines += [line for index, card in enumerate(self._cards) for line in card.lines(index)]
        new = self._script.with_suffix(".new")
        new.write_text("\n".join([*lines, ""]))
        new.replace(self._script)


@contextmanager
def fake_nvml(folder: Path, *cards: Card) -> Iterator[FakeNvml]:
    """Have a driver with these cards for the length of a block, in this process and in those that it starts.

    ``folder`` becomes the driver's root: give it to whoever looks for the library. Raise ``NoCompiler``.
    """
    library = folder / WHERE
    library.parent.mkdir(parents=True, exist_ok=True)
    library.write_bytes(_compiled())
    script = folder / "nvml.script"
    before, os.environ[SCRIPT] = os.environ.get(SCRIPT), str(script)
    try:
        yield FakeNvml(script, cards)
    finally:
        os.environ.pop(SCRIPT)
        if before is not None:
            os.environ[SCRIPT] = before


@functools.cache
def _compiled() -> bytes:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise NoCompiler("no C compiler (cc) is here to make the stand-in of libnvidia-ml.so.1 with")
    flags = ["-shared", "-fPIC", "-O1", f"-Wl,-soname,{WHERE.name}"]
    with tempfile.TemporaryDirectory(prefix="hami-nvml-") as folder:
        library = Path(folder) / WHERE.name
        subprocess.run([compiler, *flags, "-o", str(library), *map(str, SOURCES)], check=True)
        return library.read_bytes()
