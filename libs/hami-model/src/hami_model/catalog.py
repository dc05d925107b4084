"""The vendors that one process knows, as a value.

One rule: built once from the device config and handed down; no two vendors share a word or a resource name.
"""

from collections.abc import Iterable
from functools import cached_property

from msgspec import Struct

from hami_model.errors import DomainError
from hami_model.vendor import Vendor


class Catalog(Struct, frozen=True, dict=True):
    """The vendors in the order in which a container's demands are listed."""

    vendors: tuple[Vendor, ...]

    @classmethod
    def of(cls, vendors: Iterable[Vendor]) -> "Catalog":
        """Collect vendors; raise ``DomainError`` when two claim the same word or the same count resource."""
        catalog = cls(tuple(vendors))
        for what, names in (
            ("common word", [v.word for v in catalog.vendors]),
            ("count resource", [v.resources.count for v in catalog.vendors]),
        ):
            twice = sorted({name for name in names if name and names.count(name) > 1})
            if twice:
                raise DomainError(f"the device config gives {what} {twice[0]} to two vendors: rename one of them")
        return catalog

    @cached_property
    def _by_word(self) -> dict[str, Vendor]:
        return {vendor.word: vendor for vendor in self.vendors}

    @property
    def words(self) -> tuple[str, ...]:
        """Return every vendor's common word, in order."""
        return tuple(self._by_word)

    @cached_property
    def resource_names(self) -> frozenset[str]:
        """Return every resource name by which a pod can ask any vendor for devices."""
        names = ((r.count, r.memory, r.cores, r.percentage, r.priority) for r in (v.resources for v in self.vendors))
        return frozenset(name for of_vendor in names for name in of_vendor if name)

    def by_word(self, word: str) -> Vendor:
        """Return the vendor of a word; raise ``KeyError`` for a word that is not ours."""
        return self._by_word[word]

    def find(self, word: str) -> Vendor | None:
        """Return the vendor of a word, or None for a word that is not ours."""
        return self._by_word.get(word)
