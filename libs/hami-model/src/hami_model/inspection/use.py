"""What a pod uses of each card, added up stage by stage of its life.

One rule: an ordinary init container runs with the sidecars before it and alone otherwise, then everything else runs
together; the most that any stage still to come needs is in use.
"""

from collections.abc import Iterator

from msgspec import Struct

from hami_model.inspection.reading import Given, Share
from hami_model.objects import Pod

CardKey = tuple[str, str]
"""(vendor word, card)."""
WHOLE = 100
"""Percent of a card's cores that make it a pod's own."""


class Use(Struct, frozen=True):
    """Of one card: slots, memory in MiB, cores in percent; ``whole`` says whether one container has all its cores."""

    slots: int = 0
    memory: int = 0
    cores: int = 0
    whole: bool = False


def use(pod: Pod, given: Given) -> dict[CardKey, Use]:
    """Return what the pod uses, most of all stages that are not over, by card."""
    stages = [_stage(stage) for stage in _stages(pod, given)]
    return {key: _most([stage[key] for stage in stages if key in stage]) for key in {k for s in stages for k in s}}


Running = list[tuple[bool, tuple[Share, ...]]]
"""Containers that run at once: whether it is an ordinary init container, and what it has."""


def _stages(pod: Pod, given: Given) -> Iterator[Running]:
    beside: Running = []
    over = _has_started(pod)
    for container, shares in zip(pod.init_containers, given, strict=False):
        if container.is_sidecar:
            beside.append((False, shares))
        elif not over:
            yield [(True, shares), *beside]
    yield beside + [(False, shares) for shares in given[len(pod.init_containers) :]]


def _has_started(pod: Pod) -> bool:
    """Say whether all ordinary init containers have ended with 0."""
    ends = {s.name: s.state.terminated for s in pod.status.init_container_statuses or () if s.state}
    ordinary = [container.name for container in pod.init_containers if not container.is_sidecar]
    return all((end := ends.get(name)) is not None and end.exit_code == 0 for name in ordinary)


def _stage(running: Running) -> dict[CardKey, Use]:
    total: dict[CardKey, Use] = {}
    for is_init, shares in running:
        seen: set[CardKey] = set()
        for share in shares:
            key = (share.word, share.card)
            was = total.get(key, Use())
            # HAMi compat: an init container takes one slot of a card that it names twice
            slot = 0 if is_init and key in seen else 1
            seen.add(key)
            total[key] = Use(
                was.slots + slot,
                was.memory + share.memory,
                was.cores + share.cores,
                was.whole or share.cores >= WHOLE,
            )
    return total


def _most(uses: list[Use]) -> Use:
    return Use(
        max(u.slots for u in uses), max(u.memory for u in uses), max(u.cores for u in uses), any(u.whole for u in uses)
    )
