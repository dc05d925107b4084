"""Who leads: a Lease of coordination.k8s.io/v1, held by one of several.

One rule: the holder believes in its Lease for less time than others must wait for it. Its own clock counts from before
the renewal was sent, and also while the machine sleeps; theirs from when they saw the last renewal.
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

from hami_model.objects import Meta
from msgspec import Struct, structs

from hami_kit.clock import Clock
from hami_kit.errors import KubeConflict, KubeError, KubeNotFound
from hami_kit.kube.client import Kube
from hami_kit.kube.wire import Lease, LeaseSpec

log = logging.getLogger(__name__)


class Terms(Struct, frozen=True, kw_only=True):
    """How long a Lease lasts and how often it is renewed or looked at, in seconds.

    Somebody else leads at most ``duration + look_every`` after the holder's last renewal: less than 15 s.
    """

    duration: float = 12.0
    renew_every: float = 2.0
    look_every: float = 1.0
    margin: float = 3.0
    """The holder gives up so much earlier than others may take over."""


class Election:
    """Takes part in the election for one Lease as ``identity``, which must be new for each process start."""

    def __init__(
        self, kube: Kube, *, namespace: str, name: str, identity: str, clock: Clock, terms: Terms | None = None
    ) -> None:
        self._kube = kube
        self._namespace = namespace
        self._name = name
        self._clock = clock
        self._terms = terms or Terms()
        self._valid_until = float("-inf")
        self._observed: tuple[str, str] = ("", "")
        self._observed_at = float("-inf")
        self._changed = asyncio.Condition()
        self._was_valid = False
        self._standing = True
        self.identity = identity
        self.holder = ""
        """Who held the Lease when it was last seen; empty for nobody."""

    def is_valid(self) -> bool:
        """Say whether we hold the Lease now, by CLOCK_BOOTTIME; true for no longer than others must wait."""
        return self._clock.boottime() < self._valid_until

    async def run(self) -> None:
        """Take part until cancelled; a held Lease is then left to expire (``release`` gives it back)."""
        while True:
            try:
                await self._step()
            except KubeError as e:
                log.warning("the Lease %s cannot be renewed: %s", self._name, e)
            await self._tell()
            every = self._terms.renew_every if self.is_valid() else self._terms.look_every
            await asyncio.sleep(every * random.uniform(0.8, 1.0))  # noqa: S311 - spreads calls, keeps no secret

    async def watch_expiry(self) -> None:
        """Tell at once when the Lease runs out, also while a renewal hangs; runs beside ``run``."""
        while True:
            await asyncio.sleep(0.2)
            await self._tell()

    async def look(self) -> bool:
        """Read the Lease now, and say whether we hold it; raise ``KubeError`` where it cannot be read."""
        self._observe(await self._kube.get_lease(self._namespace, self._name))
        await self._tell()
        return self.is_valid()

    async def wait_gained(self) -> None:
        """Return once we hold the Lease."""
        async with self._changed:
            await self._changed.wait_for(self.is_valid)

    async def wait_lost(self) -> None:
        """Return once we do not hold the Lease."""
        async with self._changed:
            await self._changed.wait_for(lambda: not self.is_valid())

    async def release(self) -> None:
        """Give the Lease back, so that another may take it at once; does not take it again until ``stand``."""
        self._standing = False
        held, self._valid_until = self.is_valid(), float("-inf")
        await self._tell()
        if held:
            await self._give_back()

    async def _give_back(self) -> None:
        """Empty the Lease; a renewal of ours that was on its way may come between, hence more than one try."""
        for _ in range(3):
            try:
                lease = await self._kube.get_lease(self._namespace, self._name)
                if lease.spec.holder_identity == self.identity:
                    empty = structs.replace(lease.spec, holder_identity="", renew_time=_now(self._clock))
                    await self._kube.replace_lease(structs.replace(lease, spec=empty))
            except KubeConflict:
                continue
            except KubeError as e:
                log.warning("the Lease %s could not be given back, it expires by itself: %s", self._name, e)
            return

    def stand(self) -> None:
        """Take part again after ``release``."""
        self._standing = True

    async def _tell(self) -> None:
        if self.is_valid() != self._was_valid:
            self._was_valid = self.is_valid()
            async with self._changed:
                self._changed.notify_all()

    async def _step(self) -> None:
        if not self._standing:
            return
        sent = self._clock.boottime()
        try:
            lease = await self._kube.get_lease(self._namespace, self._name)
        except KubeNotFound:
            meta = Meta(name=self._name, namespace=self._namespace)
            await self._take(self._kube.create_lease, Lease(metadata=meta), sent)
            return
        self._observe(lease)
        if lease.spec.holder_identity == self.identity or self._is_free(lease):
            await self._take(self._kube.replace_lease, lease, sent)

    def _observe(self, lease: Lease) -> None:
        self.holder = lease.spec.holder_identity or ""
        if self.holder != self.identity:
            self._valid_until = float("-inf")  # taken from us, whatever our clock says
        seen = (self.holder, lease.spec.renew_time or "")
        if seen != self._observed:
            self._observed, self._observed_at = seen, self._clock.monotonic()

    def _is_free(self, lease: Lease) -> bool:
        """Say whether the Lease has no holder, or one that has not renewed for its duration as we saw it."""
        duration = lease.spec.lease_duration_seconds or self._terms.duration
        return not lease.spec.holder_identity or self._clock.monotonic() >= self._observed_at + duration

    async def _take(self, write: Callable[[Lease], Awaitable[Lease]], lease: Lease, sent: float) -> None:
        try:
            await write(self._mine(lease))
        except KubeConflict:
            return  # somebody else was quicker; the next look tells who
        if self._standing:
            self.holder = self.identity
            self._valid_until = sent + self._terms.duration - self._terms.margin

    def _mine(self, lease: Lease) -> Lease:
        now, spec = _now(self._clock), lease.spec
        anew = spec.holder_identity != self.identity
        held = LeaseSpec(
            holder_identity=self.identity,
            lease_duration_seconds=int(self._terms.duration),
            acquire_time=now if anew else spec.acquire_time,
            renew_time=now,
            lease_transitions=(spec.lease_transitions or 0) + int(anew),
        )
        return structs.replace(lease, spec=held)


def _now(clock: Clock) -> str:
    return datetime.fromtimestamp(clock.now(), UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
