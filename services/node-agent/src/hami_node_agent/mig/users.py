"""Who uses which card, before anything on it is changed.

One rule: what nobody can read may be anything. A pod that lives here, asks for cards, and whose allocation cannot be
read, uses all of them.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence

from hami_model.allocation import Allocation, Grant
from hami_model.objects import Pod, PodRef

from hami_node_agent.identity import view_of
from hami_node_agent.mig.book import Piece, pieces
from hami_node_agent.table import Entry

Users = Mapping[str, Mapping[str, tuple[Piece, ...]]]
"""By card, the pods that use it, each with the instances of it that it was promised."""


def users(
    entries: Iterable[Entry],
    pods: Iterable[Pod],
    *,
    allocation: Callable[[PodRef], Allocation | None],
    resources: Iterable[str],
    cards: Sequence[str],
) -> Users:
    """Return who uses a card: whoever holds something here, and the pods that have not ended."""
    found: dict[str, dict[str, tuple[Piece, ...]]] = {}
    for entry in entries:
        _add(found, entry.pod, pieces(entry.pod, entry.container, entry.grants), entry.grants)
    for pod in pods:
        ref, given = PodRef.of(pod), allocation(PodRef.of(pod))
        if given is not None:
            for container in given.containers:
                _add(found, ref, pieces(ref, container.name, container.grants), container.grants)
        elif any(view_of(pod, resource).wanting for resource in resources):
            for card in cards:
                found.setdefault(card, {}).setdefault(str(ref), ())
    return found


def _add(
    found: dict[str, dict[str, tuple[Piece, ...]]], pod: PodRef, wanted: Sequence[Piece], grants: Iterable[Grant]
) -> None:
    for card in {grant.uuid for grant in grants}:
        before = found.setdefault(card, {}).get(str(pod), ())
        new = tuple(piece for piece in wanted if piece.card == card and piece not in before)
        found[card][str(pod)] = (*before, *new)
