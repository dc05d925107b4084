"""What the effects work with: the way to the API server, the bus and the books, and whether we may write at all.

One rule: a write is sent only if the Lease is ours at that instant. Whoever writes for the leader has a ``Kube`` behind
``only_leading``; only the Lease itself, and Kubernetes Events, go past it.
"""

from collections.abc import Callable
from typing import ClassVar, Protocol

from hami_kit.bus import Bus
from hami_kit.clock import Clock
from hami_kit.kube import Kube
from hami_kit.telemetry import Telemetry
from hami_model.errors import HamiError
from msgspec import Struct

from hami_allocator.desk import Desk
from hami_allocator.fence import Term
from hami_allocator.lock_keeper import LockKeeper
from hami_allocator.retry import Backoff
from hami_allocator.world import World
from hami_allocator.writer import Writer


class Lease(Protocol):
    """Whether we lead, at this instant."""

    def is_valid(self) -> bool:
        """Say whether the Lease is ours by CLOCK_BOOTTIME."""
        ...

    async def look(self) -> bool:
        """Read the Lease now, and say whether it is ours."""
        ...


class Deposed(HamiError):
    """Another allocator leads, or may lead: nothing may be written any more, and the term is over."""

    retriable: ClassVar[bool] = True


def only_leading(lease: Lease) -> Callable[[], None]:
    """Return a guard of writes that raises ``Deposed`` unless the Lease is ours now."""

    def guard() -> None:
        if not lease.is_valid():
            raise Deposed("this allocator does not lead any more: ask again")

    return guard


class Means(Struct, frozen=True, kw_only=True):
    """What binds and confirmations work with."""

    world: World
    writer: Writer
    desk: Desk
    kube: Kube
    bus: Bus
    locks: LockKeeper
    lease: Lease
    term: Term
    clock: Clock
    telemetry: Telemetry
    backoff: Backoff = Backoff()
    bind_timeout: float = 28.0
