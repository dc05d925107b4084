"""Cards that no annotation lists: a node's capacity says how many there are, and they are named by their numbers."""

from hami_model.allocation import Allocation, Grant
from hami_model.errors import MalformedInventory
from hami_model.objects import Node
from hami_model.units import INT32_MAX, plain_integer


def amount(node: Node, name: str) -> int:
    """Return how much of a resource a node has, 0 where it names none; raise ``MalformedInventory``."""
    written = (node.status.capacity or {}).get(name)
    value = 0 if written is None else plain_integer(written)
    if value is None or not 0 <= value <= INT32_MAX:
        raise MalformedInventory(f"capacity {name} of node {node.metadata.name} is {written}, not a whole number")
    return value


def number(grant: Grant) -> int:
    """Return the number of a granted card; one read back from a device list has it in its id."""
    return int(grant.uuid.rpartition("-")[2]) if grant.index is None else grant.index


def numbers_of_last(word: str, allocation: Allocation) -> str:
    """List the numbers of the last container with cards: one list is all that some plugins read (HAMi compat)."""
    last = [[grant for grant in c.grants if grant.vendor == word] for c in allocation.containers][::-1]
    return ",".join(str(number(grant)) for grant in next(grants for grants in last if grants))
