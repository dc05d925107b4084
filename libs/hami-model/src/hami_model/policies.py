"""Which of several good nodes and cards is taken: the process' defaults, and what a pod's annotations make of them.

One rule: an annotation that is there overrides the default even when it is empty; a word that nobody knows means
binpack for nodes and spread for cards (HAMi compat). Only weights can be wrong.
"""

import re

from msgspec import Struct

from hami_model.errors import DomainError
from hami_model.objects import Pod

BINPACK, SPREAD, NUMA, MUTEX, TOPOLOGY = "binpack", "spread", "numa", "mutex", "topology-aware"

NODE_POLICIES = (BINPACK, SPREAD)
CARD_POLICIES = (BINPACK, MUTEX, NUMA, SPREAD, TOPOLOGY)

NODE_KEY = "hami.io/node-scheduler-policy"
CARD_KEY = "hami.io/gpu-scheduler-policy"
WEIGHTS_KEY = "hami.io/device-scoring-weights"

_WEIGHT_NAMES = ("slot", "core", "memory")
_INTEGER = re.compile(r"[+-]?\d+")


class Policies(Struct, frozen=True, kw_only=True):
    """The policies of a process, for pods that say nothing."""

    node: str = BINPACK
    card: str = SPREAD


class Weights(Struct, frozen=True, kw_only=True):
    """How much slots, cores and memory count in a card's score."""

    slot: int = 1
    core: int = 1
    memory: int = 1


class SortKey(Struct, frozen=True):
    """One column by which cards are ordered before the list is walked from its end."""

    column: str
    """``score``, ``numa``, ``index`` or ``used_slots``."""
    descending: bool = False


class PodPolicies(Struct, frozen=True, kw_only=True):
    """The policies for one pod."""

    node: str = BINPACK
    card: str = SPREAD
    weights: Weights = Weights()

    @property
    def card_words(self) -> frozenset[str]:
        """Return the words of the card policy; ``mutex`` and ``topology-aware`` work wherever they stand in it."""
        return frozenset(_words(self.card))

    @property
    def prefers_full_nodes(self) -> bool:
        """Say whether the fullest node is the best one."""
        return self.node != SPREAD

    def card_order(self, *, numa_bind: bool) -> tuple[SortKey, ...]:
        """Return the columns that order the cards, the most important first."""
        if "," in self.card or self.card == NUMA:
            return _chain(_words(self.card), numa_bind=numa_bind)
        if self.card == MUTEX:
            # HAMi compat: here numa-bind does not order the cards (vendors-a NV-7).
            return (SortKey("used_slots", descending=True), SortKey("numa"))
        score = _SCORES.get(self.card, _SCORES[SPREAD])
        if numa_bind:
            return (SortKey("numa", descending=self.card == BINPACK), score)
        return (score, SortKey("numa"))


_SCORES = {BINPACK: SortKey("score"), SPREAD: SortKey("score", descending=True)}


def for_pod(pod: Pod, defaults: Policies) -> PodPolicies:
    """Return the policies for a pod; raise ``DomainError`` with HAMi's text for weights that cannot be read."""
    annotations = pod.annotations
    text = annotations.get(WEIGHTS_KEY)
    return PodPolicies(
        node=annotations.get(NODE_KEY, defaults.node),
        card=annotations.get(CARD_KEY, defaults.card),
        weights=Weights() if text is None else _weights(text, pod),
    )


def _words(policy: str) -> list[str]:
    return [word.strip() for word in policy.split(",")]


def _chain(words: list[str], *, numa_bind: bool) -> tuple[SortKey, ...]:
    """Return a chain's columns in written order, each once; without any, those of spread."""
    keys = [word for word in dict.fromkeys(words) if word in (BINPACK, SPREAD, NUMA)] or [SPREAD]
    if numa_bind:
        keys = [NUMA, *(key for key in keys if key != NUMA)]
    return (*(_SCORES.get(key, SortKey("numa")) for key in keys), SortKey("index"))


def _weights(text: str, pod: Pod) -> Weights:
    found: dict[str, int] = {}
    for part in text.split(","):
        name, is_pair, value = (piece.strip() for piece in part.partition("="))
        if not is_pair or name not in _WEIGHT_NAMES:
            raise _wrong(pod, text, "expected slot, core, and memory weights")
        if name in found:
            raise _wrong(pod, text, f'duplicate "{name}" weight')
        if not _INTEGER.fullmatch(value):
            raise _wrong(pod, text, f'"{name}" weight must be an integer')
        if int(value) < 0:
            raise _wrong(pod, text, f'"{name}" weight must not be negative')
        found[name] = int(value)
    if len(found) < len(_WEIGHT_NAMES):
        raise _wrong(pod, text, "expected slot, core, and memory weights")
    if not any(found.values()):
        raise _wrong(pod, text, "at least one weight must be positive")
    return Weights(**found)


def _wrong(pod: Pod, text: str, why: str) -> DomainError:
    return DomainError(
        f'calcScore failed invalid {WEIGHTS_KEY} annotation "{text}": {why} for pod {pod.metadata.name}; '
        "write all three, such as slot=1,core=1,memory=3"
    )
