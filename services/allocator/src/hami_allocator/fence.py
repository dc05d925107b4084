"""What keeps a Binding of an earlier leader from landing: the pod's resourceVersion, moved by a mark of ours.

One rule: a mark is never written twice, since a patch that changes nothing moves nothing.
"""

from collections.abc import Iterator
from itertools import count

from hami_model.objects import Pod

TERM_KEY = "hami.io/allocator-term"


class Term:
    """This process' identity and the marks it makes: ``<identity>.<n>``."""

    def __init__(self, identity: str) -> None:
        self.identity = identity
        self._numbers: Iterator[int] = count(1)

    def mark(self) -> str:
        """Return a mark that nobody has written before."""
        return f"{self.identity}.{next(self._numbers)}"

    def is_overtaken(self, before: Pod, fresh: Pod) -> bool:
        """Say whether another allocator has marked the pod since we saw it: it leads now."""
        mark = fresh.annotations.get(TERM_KEY, "")
        return mark != before.annotations.get(TERM_KEY, "") and mark.rpartition(".")[0] != self.identity
