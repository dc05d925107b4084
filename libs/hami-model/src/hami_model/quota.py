"""How much of each vendor's memory and cores a namespace may use, and how much it does.

One rule: limits come from ResourceQuota objects (``limits.<resource>``), use from the same charges that the fleet
books; several objects in one namespace all hold, so the lowest limit of a key counts. Memory is kept in MiB.
"""

from collections.abc import Iterator, Mapping

from msgspec import Struct

from hami_model.bus.messages import QuotaDenied
from hami_model.catalog import Catalog
from hami_model.charge import Charges
from hami_model.cores import counted
from hami_model.limits import MOST_MEMORY
from hami_model.units import MIB, plain_integer, rounded_up
from hami_model.vendor import Vendor

Quantity = str | int | float
_PREFIX = "limits."


class Room(Struct, frozen=True, kw_only=True):
    """What a namespace may still take of one vendor, in MiB and percent; ``None`` = as much as it likes."""

    memory: int | None = None
    cores: int | None = None

    def holds(self, memory: int, cores: int) -> bool:
        """Say whether so much may be taken."""
        return (self.memory is None or memory <= self.memory) and (self.cores is None or cores <= self.cores)

    def less(self, memory: int, cores: int) -> "Room":
        """Return what is left when so much is taken."""
        return Room(
            memory=None if self.memory is None else self.memory - memory,
            cores=None if self.cores is None else self.cores - cores,
        )


QuotaView = Mapping[str, Room]
"""The room of one namespace by vendor word; a vendor without limit is absent."""

UNLIMITED: QuotaView = {}


def complaints(hard: Mapping[str, Quantity], catalog: Catalog) -> Iterator[str]:
    """Say of each limit that cannot be meant what is wrong and what to write; it limits nothing, as with HAMi."""
    for vendor in catalog.vendors:
        names = vendor.resources
        for resource, unit in ((names.memory, _unit(vendor)), (names.cores, "percent of a card's cores")):
            written = hard.get(_PREFIX + resource)
            if not resource or written is None:
                continue
            value = rounded_up(written) or 0
            meant = value // MIB // _factor(vendor)
            if plain_integer(written) is None:
                nearest = value or 1
                yield f"{_PREFIX}{resource} {written} sets no limit: write a whole number of {unit}, such as {nearest}"
            elif resource == names.memory and value * _factor(vendor) >= MOST_MEMORY and meant:
                yield f"{_PREFIX}{resource} {written} is too much to limit anything: it counts {unit}: write {meant}"


class Quotas:
    """The limits and the use of every namespace."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._hard: dict[str, dict[str, dict[str, int]]] = {}
        self._used: dict[str, dict[str, tuple[int, int]]] = {}

    def set(self, namespace: str, name: str, hard: Mapping[str, Quantity]) -> None:
        """Take note of a ResourceQuota. HAMi compat: a value that is no whole number sets no limit."""
        limits = {
            key.removeprefix(_PREFIX): value
            for key, quantity in hard.items()
            if key.startswith(_PREFIX) and (value := plain_integer(quantity)) is not None
        }
        self._hard.setdefault(namespace, {})[name] = limits

    def drop(self, namespace: str, name: str) -> None:
        """Forget a ResourceQuota; the namespace's use stays."""
        self._hard.get(namespace, {}).pop(name, None)

    def fits(self, namespace: str, word: str, memory: int, cores: int) -> QuotaDenied | None:
        """Return why so much more of a vendor does not fit the namespace's quota, or ``None``. Memory comes first."""
        vendor = self._catalog.by_word(word)
        used_memory, used_cores = self.used(namespace, word)
        limit = self._memory_limit(namespace, vendor)
        if limit is not None and used_memory + memory > limit:
            factor = _factor(vendor)
            return QuotaDenied(
                resource=vendor.resources.memory,
                used=used_memory // factor,
                limit=limit // factor,
                wanted=-(-memory // factor),
            )
        limit = self._limit(namespace, vendor.resources.cores)
        if limit is not None and used_cores + cores > limit:
            return QuotaDenied(resource=vendor.resources.cores, used=used_cores, limit=limit, wanted=cores)
        return None

    def view(self, namespace: str) -> QuotaView:
        """Return what the namespace may still take, by vendor."""
        if not self._hard.get(namespace):
            return UNLIMITED
        rooms = {vendor.word: self._room(namespace, vendor) for vendor in self._catalog.vendors}
        return {word: room for word, room in rooms.items() if room != Room()}

    def used(self, namespace: str, word: str) -> tuple[int, int]:
        """Return the memory (MiB) and cores that the namespace uses of a vendor."""
        return self._used.get(namespace, {}).get(word, (0, 0))

    def limit(self, namespace: str, resource: str) -> int | None:
        """Return the limit of a resource as it stands in the ResourceQuota, or ``None``."""
        return self._limit(namespace, resource)

    @property
    def namespaces(self) -> tuple[str, ...]:
        """Return the namespaces that have a limit or use something."""
        return tuple(dict.fromkeys([*self._hard, *self._used]))

    @property
    def uses(self) -> Mapping[tuple[str, str], tuple[int, int]]:
        """Return what is used by (namespace, vendor word), as ``used`` does of one."""
        return {(namespace, word): used for namespace, words in self._used.items() for word, used in words.items()}

    def charge(self, namespace: str, charges: Charges) -> None:
        """Add to what the namespace uses."""
        for (word, _), more in charges.items():
            self._add(namespace, word, more.memory, self._counted(word, more.cores))

    def discharge(self, namespace: str, charges: Charges) -> None:
        """Take back what ``charge`` added."""
        for (word, _), less in charges.items():
            self._add(namespace, word, -less.memory, -self._counted(word, less.cores))

    def snapshot(self) -> "Quotas":
        """Return a copy that changes on its own."""
        twin = Quotas(self._catalog)
        twin._hard = {namespace: dict(quotas) for namespace, quotas in self._hard.items()}
        twin._used = {namespace: dict(used) for namespace, used in self._used.items()}
        return twin

    def _counted(self, word: str, cores: int) -> int:
        vendor = self._catalog.find(word)
        return cores if vendor is None else counted(vendor.resources.core_unit, cores)

    def _add(self, namespace: str, word: str, memory: int, cores: int) -> None:
        used = self._used.setdefault(namespace, {})
        before = used.get(word, (0, 0))
        after = (before[0] + memory, before[1] + cores)
        used[word] = after
        if after == (0, 0):
            del used[word]
        if not used:
            del self._used[namespace]

    def _room(self, namespace: str, vendor: Vendor) -> Room:
        used_memory, used_cores = self.used(namespace, vendor.word)
        memory = self._memory_limit(namespace, vendor)
        cores = self._limit(namespace, vendor.resources.cores)
        return Room(
            memory=None if memory is None else memory - used_memory, cores=None if cores is None else cores - used_cores
        )

    def _memory_limit(self, namespace: str, vendor: Vendor) -> int | None:
        limit = self._limit(namespace, vendor.resources.memory)
        return None if limit is None else limit * _factor(vendor)

    def _limit(self, namespace: str, resource: str) -> int | None:
        """Return the lowest limit that any ResourceQuota sets."""
        quotas = self._hard.get(namespace, {}).values()
        return min((limits[resource] for limits in quotas if resource in limits), default=None)


def _unit(vendor: Vendor) -> str:
    factor = _factor(vendor)
    return "MiB" if factor == 1 else f"units of {factor} MiB"


def _factor(vendor: Vendor) -> int:
    """Return the MiB in one unit of the memory resource. HAMi compat: a factor of 0 means none."""
    return max(vendor.resources.memory_factor, 1)
