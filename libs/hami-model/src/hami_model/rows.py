"""A view on some rows of a vendor's cards: what a check sees, be it of one node or of all.

One rule: the columns may have any shape, all the same one, and hold all cards of each of their nodes. Booking on a view
changes nothing of the cards it looks at, unless it is a view on one unbroken range, which nobody books on.
"""

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from hami_model.device import Device

if TYPE_CHECKING:
    from hami_model.columns import Cards

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
Where = slice | Ints


class Rows:
    """Some rows of ``Cards``: one node, a few, all, or a table of [node, card], whose uses may be changed freely."""

    __slots__ = ("_read", "cards", "used_cores", "used_memory", "used_slots", "where")

    def __init__(self, cards: "Cards", where: Where) -> None:
        self.cards = cards
        self.where = where
        self.used_memory = cards.used_memory[where]
        self.used_cores = cards.used_cores[where]
        self.used_slots = cards.used_slots[where]
        self._read: dict[str, npt.NDArray[Any]] = {}

    def _column(self, name: str) -> Any:
        """Return a column, gathered once."""
        if name not in self._read:
            self._read[name] = getattr(self.cards, name)[self.where]
        return self._read[name]

    @property
    def shape(self) -> tuple[int, ...]:
        """Return the shape of every column."""
        return self.used_slots.shape

    @property
    def node(self) -> Ints:
        """Node ids."""
        found: Ints = self._column("node")
        return found

    @property
    def memory(self) -> Ints:
        """MiB."""
        found: Ints = self._column("memory")
        return found

    @property
    def cores(self) -> Ints:
        """Percent of a card."""
        found: Ints = self._column("cores")
        return found

    @property
    def slots(self) -> Ints:
        """How many pods may share the card."""
        found: Ints = self._column("slots")
        return found

    @property
    def numa(self) -> Ints:
        """NUMA nodes."""
        found: Ints = self._column("numa")
        return found

    @property
    def index(self) -> Ints:
        """Positions on the node, as the driver counts."""
        found: Ints = self._column("index")
        return found

    @property
    def healthy(self) -> Mask:
        """Usable, and reported by somebody alive."""
        found: Mask = self._column("healthy")
        return found

    @property
    def cordoned(self) -> Mask:
        """Closed to new pods."""
        found: Mask = self._column("cordoned")
        return found

    @property
    def soft_split(self) -> Mask:
        """The node splits cards in software."""
        found: Mask = self._column("soft_split")
        return found

    @property
    def model(self) -> Ints:
        """Positions in ``cards.models``."""
        found: Ints = self._column("model")
        return found

    @property
    def mode(self) -> Ints:
        """Positions in ``cards.modes``."""
        found: Ints = self._column("mode")
        return found

    @property
    def group(self) -> Ints:
        """Groups of well-connected cards, numbered node by node."""
        found: Ints = self._column("group")
        return found

    @property
    def cut(self) -> Ints:
        """How each card is cut into parts; 0 = it is not."""
        found: Ints = self._column("cut")
        return found

    @property
    def taken(self) -> Ints:
        """Which slices of a card that is cut into parts are taken, as masks."""
        found: Ints = self._column("taken")
        return found

    @property
    def size(self) -> Ints:
        """Which sizes of shares each card gives; 0 = any."""
        found: Ints = self._column("size")
        return found

    @property
    def guests(self) -> Ints:
        """What the pods on each card are, this one left out: their vendor's counters, added up."""
        found: Ints = self._column("guests")
        return found

    @property
    def elsewhere(self) -> Ints:
        """How many pods have each card in its other form, this one included."""
        found: Ints = self._column("elsewhere")
        return found

    @property
    def free_memory(self) -> Ints:
        """MiB not booked; 0 where more is booked than the card has (now)."""
        free: Ints = np.maximum(self.memory - self.used_memory, 0)
        return free

    @property
    def numbers(self) -> Ints:
        """The rows' own numbers, by which the cards' lists are indexed."""
        where = self.where
        return np.arange(where.start, where.stop) if isinstance(where, slice) else where

    @property
    def ids(self) -> list[str]:
        """Uuids, row by row; a free row has none."""
        ids, where = self.cards.ids, self.where
        return ids[where] if isinstance(where, slice) else [ids[row] for row in where.ravel().tolist()]

    @property
    def devices(self) -> list[Device]:
        """The devices themselves, row by row, free rows left out."""
        rows = (self.cards.devices[row] for row in self.numbers.ravel().tolist())
        return [device for device in rows if device is not None]
