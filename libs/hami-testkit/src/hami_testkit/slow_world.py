"""What a scheduler without columns knows: nodes with their cards and uses, and a pod with all that decides about it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from hami_model.device import Device
from hami_model.policies import PodPolicies
from hami_model.quota import Room
from hami_model.request import PodDemand
from hami_model.vendor import Constraints


@dataclass
class Use:
    """What is booked on one card, and what this pod has of it."""

    slots: int = 0
    memory: int = 0
    cores: int = 0
    running: tuple[int, int] = (0, 0)
    peak: tuple[int, int] = (0, 0)
    shares: int = 0
    starts: int = 0

    @property
    def paid(self) -> tuple[int, int]:
        """Return the memory and cores that the namespace pays for."""
        return max(self.peak[0], self.running[0]), max(self.peak[1], self.running[1])


@dataclass(frozen=True)
class Guest:
    """What another pod on a card is, where their vendor looks at that: its class and its QoS, empty = none."""

    kind: str
    qos: str


@dataclass
class SlowNode:
    """A node: its cards in the order of its list, and their use by uuid."""

    devices: Sequence[Device]
    use: Mapping[str, Use] = field(default_factory=dict)
    cordoned: frozenset[str] = frozenset()
    soft_split: bool = False
    guests: Mapping[str, Sequence[Guest]] = field(default_factory=dict)
    """By uuid."""


@dataclass
class SlowPod:
    """What decides about one pod; constraints, and the room that a quota leaves, by vendor word."""

    demand: PodDemand
    constraints: Mapping[str, Constraints]
    policies: PodPolicies
    rooms: Mapping[str, Room] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_mutex(self) -> bool:
        """Say whether the pod wants no other pod on its cards."""
        return "mutex" in self.policies.card.split(",")
