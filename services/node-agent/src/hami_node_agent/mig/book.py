"""Which MIG instances are for whom: one piece for each device of a container that is an instance.

One rule: a piece is written down before its instance is made and forgotten after it is destroyed, so that an agent that
starts again knows what is its own.
"""

from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec
from hami_model.allocation import Grant
from hami_model.device import Placement
from hami_model.objects import PodRef
from msgspec import Struct

Key = tuple[str, str, int]
"""Pod uid, container, and the place among the container's devices."""


class Piece(Struct, frozen=True, kw_only=True):
    """An instance of a card for one device of a container; without a uuid it is not made yet, as far as we know."""

    pod: PodRef
    container: str
    place: int
    card: str
    profile: str
    placement: Placement
    uuid: str = ""
    """What the container is given: ``MIG-…``."""
    gpu_instance: int = 0
    compute_instance: int = 0

    @property
    def key(self) -> Key:
        """Return what there is only one piece of."""
        return self.pod.uid, self.container, self.place

    def __str__(self) -> str:
        return f"{self.profile} at {self.placement.start}+{self.placement.size} of {self.card}"


def pieces(pod: PodRef, container: str, grants: Iterable[Grant]) -> tuple[Piece, ...]:
    """Return what a container's grants of one vendor ask for, one for each that is part of a card."""
    return tuple(
        Piece(pod=pod, container=container, place=place, card=grant.uuid, profile=cut.profile, placement=cut.placement)
        for place, grant in enumerate(grants)
        for cut in grant.cuts[:1]  # more are what a pod's annotations name beside
    )


def overlap(one: Placement, other: Placement) -> bool:
    """Say whether two places share a slice."""
    return one.start < other.start + other.size and other.start < one.start + one.size


class Book:
    """The pieces, by pod, container and place."""

    def __init__(
        self, written: Iterable[Piece] = (), *, on_change: Callable[[tuple[Piece, ...]], None] | None = None
    ) -> None:
        self._pieces = {piece.key: piece for piece in written}
        self._on_change = on_change

    @property
    def pieces(self) -> tuple[Piece, ...]:
        """Return every piece, oldest first."""
        return tuple(self._pieces.values())

    @property
    def pods(self) -> tuple[PodRef, ...]:
        """Return every pod that has a piece, each once."""
        return tuple(dict.fromkeys(piece.pod for piece in self._pieces.values()))

    def find(self, key: Key) -> Piece | None:
        """Return one piece."""
        return self._pieces.get(key)

    def of_pod(self, uid: str) -> tuple[Piece, ...]:
        """Return one pod's pieces."""
        return tuple(piece for piece in self._pieces.values() if piece.pod.uid == uid)

    def of_card(self, card: str) -> tuple[Piece, ...]:
        """Return the pieces of one card."""
        return tuple(piece for piece in self._pieces.values() if piece.card == card)

    def in_the_way(self, wanted: Piece) -> Piece | None:
        """Return the piece of another container, or of another device, that has some of the same slices."""
        return next(
            (p for p in self.of_card(wanted.card) if p.key != wanted.key and overlap(p.placement, wanted.placement)),
            None,
        )

    def put(self, piece: Piece) -> None:
        """Write a piece down in place of an older one."""
        if self._pieces.get(piece.key) != piece:
            self._change({**self._pieces, piece.key: piece})

    def drop(self, piece: Piece) -> None:
        """Forget a piece."""
        if piece.key in self._pieces:
            self._change({key: one for key, one in self._pieces.items() if key != piece.key})

    def _change(self, pieces: dict[Key, Piece]) -> None:
        """Have it written down first: what cannot be has not happened."""
        if self._on_change is not None:
            self._on_change(tuple(pieces.values()))
        self._pieces = pieces


class _File(Struct, frozen=True, tag="mig.v1"):
    pieces: tuple[Piece, ...] = ()


class BookFile:
    """The book on disk: replaced as a whole, so that a crash leaves the old one or the new one."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> tuple[Piece, ...]:
        """Return what was written last; nothing where no file is. Raise ``ValueError`` for one that cannot be read."""
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=_File).pieces
        except FileNotFoundError:
            return ()
        except msgspec.DecodeError as e:
            raise ValueError(
                f"{self._path} does not say which MIG instances are ours ({e}); pods' annotations do"
            ) from e

    def write(self, pieces: tuple[Piece, ...]) -> None:
        """Replace the file."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        new = self._path.with_suffix(".new")
        new.write_bytes(msgspec.json.encode(_File(pieces)))
        new.replace(self._path)
