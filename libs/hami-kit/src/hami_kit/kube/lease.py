"""Who leads: a Lease of coordination.k8s.io/v1, held by one of several.

One rule: the holder believes in its Lease for less time than others must wait for it. Its own clock counts from before
the renewal was sent, and also while the machine sleeps; theirs from when they saw the last renewal. Only a holder ends
this wait, by giving the Lease back: after whatever else happened to the Lease, deleted or edited, it is waited for.
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

    Somebody else holds it at most ``duration + look_every`` after the last renewal: 11 s, which leaves a new leader 4 s
    to take over within 15 s.
    """

    duration: float = 10.0
    renew_every: float = 2.0
    look_every: float = 1.0
    margin: float = 2.5
    """The holder gives up so much earlier than others may take over."""


GIVEN_BACK = 1
"""Seconds of ``leaseDurationSeconds`` that say that a holder has given the Lease back, as client-go writes it."""


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
        self._observed_duration = self._terms.duration
        self._changed = asyncio.Condition()
        self._was_valid = False
        self._standing = True
        self._has_taken = False
        """Whether it was we who wrote our name into the Lease, should it stand there."""
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
            await asyncio.sleep(self._pause())

    def _pause(self) -> float:
        """Return the seconds until the next look; whoever waits for the end of another's Lease looks right then."""
        ends_in = self._observed_at + self._observed_duration - self._clock.monotonic()
        if not self.is_valid() and 0 < ends_in < self._terms.look_every:
            return ends_in
        every = self._terms.renew_every if self.is_valid() else self._terms.look_every
        return every * random.uniform(0.8, 1.0)  # noqa: S311 - spreads calls, keeps no secret

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
        self._standing = self._has_taken = False
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
                    now = _now(self._clock)
                    empty = structs.replace(
                        lease.spec, holder_identity="", renew_time=now, lease_duration_seconds=GIVEN_BACK
                    )
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
            if not self._observed[0] or self._is_ours(self._observed[0]) or self._is_over():
                meta = Meta(name=self._name, namespace=self._namespace)
                await self._take(self._kube.create_lease, Lease(metadata=meta), sent)
            return
        self._observe(lease)
        if self._is_ours(self.holder) or self._is_given(lease) or self._is_over():
            await self._take(self._kube.replace_lease, lease, sent)

    def _observe(self, lease: Lease) -> None:
        self.holder = lease.spec.holder_identity or ""
        if self.holder != self.identity:
            self._valid_until = float("-inf")  # taken from us, whatever our clock says
        seen = (self.holder, lease.spec.renew_time or "")
        if seen != self._observed:
            self._observed, self._observed_at = seen, self._clock.monotonic()
        self._observed_duration = max(self._terms.duration, lease.spec.lease_duration_seconds or 0)

    def _is_ours(self, holder: str) -> bool:
        return holder == self.identity and self._has_taken

    def _is_given(self, lease: Lease) -> bool:
        """Say whether its holder has given the Lease back, or nobody has ever held it."""
        duration = lease.spec.lease_duration_seconds
        return self.holder in ("", self.identity) and duration in (None, GIVEN_BACK)

    def _is_over(self) -> bool:
        """Say whether the Lease has not changed, as we saw it, for as long as any holder may believe in it."""
        return self._clock.monotonic() >= self._observed_at + self._observed_duration

    async def _take(self, write: Callable[[Lease], Awaitable[Lease]], lease: Lease, sent: float) -> None:
        self._has_taken = True  # also where the answer is lost: the next look shows our name
        try:
            await write(self._mine(lease))
        except KubeConflict:
            self._has_taken = False
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
