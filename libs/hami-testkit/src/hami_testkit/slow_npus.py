"""How NPUs of the Ascend 910 family and Vastai's dies are picked, what their nodes are worth, and Neuron's blocks.

One rule: cards come in walk order, and what is equally good is taken in that order.
"""

from collections.abc import Callable, Sequence

from hami_model.device import Device
from hami_model.reason import Reason, reason_text
from hami_model.request import Demand

Pick = Callable[[list[Device]], tuple[list[Device], int | None]]
"""Of the cards that passed: those that are taken, and what stands for the number of cards in HAMi's words, if odd."""


class Refused(Exception):
    """The node does not take the pod; its text is HAMi's."""


def block(devices: Sequence[tuple[Device, bool]], count: int) -> list[Device]:
    """Return the first block of idle Neuron devices: any on Inferentia, aligned ones of some sizes on Trainium."""
    idle = {card.index: card for card, is_idle in devices if is_idle}
    steps = 1 if "inf" in devices[0][0].mode else count
    for start in range(0, len(devices), steps):
        wanted = range(start, start + count)
        if all(at in idle for at in wanted) and (steps == 1 or count in (4, 8, 16)):
            return [idle[at] for at in wanted]
    ill = sum(not card.healthy and card.index > 0 for card, _ in devices)
    raise Refused(reason_text({Reason.NUMA_MISMATCH: 1, **({Reason.UNHEALTHY: ill} if ill else {})}, len(devices)))


def picker(demand: Demand, mine: Sequence[Device]) -> Pick | None:
    """Return how a demand for several cards is served from a node's; None where the first ones serve."""
    if demand.count == 1 or not is_grouped(demand.vendor):
        return None
    if demand.vendor == "Ascend910C":
        return lambda passed: (modules(passed, demand.count), demand.count)
    if any(network(card) is None for card in mine):
        return None
    return lambda passed: (networks(passed, demand.count), None)


def modules(passed: list[Device], count: int) -> list[Device]:
    """Take whole modules, as many as it needs to reach the count."""
    taken: list[Device] = []
    for card in passed:
        module = [other for other in passed if other.index // 2 == card.index // 2]
        if card not in taken and len(module) == 2 and len(taken) < count:
            taken += module
    return taken


def networks(passed: list[Device], count: int) -> list[Device]:
    """Take the biggest network's cards first, unless all are wanted."""
    if len(passed) <= count:
        return passed
    taken: list[Device] = []
    left = list(passed)
    while len(taken) < count:
        sizes = [sum(network(other) == network(card) for other in left) for card in left]
        best = network(left[sizes.index(max(sizes))])
        taken += [card for card in left if network(card) == best]
        left = [card for card in left if network(card) != best]
    return taken[:count]


def is_grouped(word: str) -> bool:
    """Say whether the vendor's cards come in groups that belong together."""
    return word.startswith("Ascend910") or word == "Vastai"


def network(card: Device) -> object:
    """Return the card's network, or the physical card that it is a die of; None where it is unknown."""
    if card.vendor == "Vastai":
        return card.custom.get("AIC") if card.custom.get("DeviceStrategy") == "die" else None
    return card.custom.get("NetworkID")


def bonus(containers: Sequence[Sequence[Device]]) -> float:
    """Return 10 for each container whose 910s share one network, 1 for dies of one card, less where they do not."""
    cards = [card for container in containers for card in container]
    if any(not is_grouped(card.vendor) or network(card) is None for card in cards):
        return 0.0
    best = 0.0
    for container in containers:
        named = [network(card) for card in container]
        worth = 1 if container and container[0].vendor == "Vastai" else 10
        best += worth * max(named.count(name) for name in named) / len(named) if named else 0
    return best
