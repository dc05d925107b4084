"""Who leads: one at a time, for less long than others wait, and another soon after."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from hami_kit.clock import Clock, SystemClock
from hami_kit.errors import KubeConflict
from hami_kit.kube import Kube, Lease
from hami_kit.kube.lease import Election, Terms
from hami_testkit.clock import FakeClock
from hami_testkit.cluster import Standin
from hami_testkit.cluster.faults import Fault
from hami_testkit.cluster.resources import LEASES
from msgspec import structs

from .conftest import DEADLINE, until

QUICK = Terms(duration=2.0, renew_every=0.1, look_every=0.1, margin=0.5)
SLOW = Terms(duration=60.0, renew_every=0.05, look_every=0.05, margin=3.0)
NAMESPACE, NAME = "kube-system", "hami-allocator"


def an_election(kube: Kube, identity: str, *, terms: Terms = QUICK, clock: Clock | None = None) -> Election:
    return Election(kube, namespace=NAMESPACE, name=NAME, identity=identity, clock=clock or SystemClock(), terms=terms)


@asynccontextmanager
async def standing(*elections: Election) -> AsyncIterator[None]:
    """Let these take part for the length of a block."""
    async with asyncio.timeout(DEADLINE), asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(work) for e in elections for work in (e.run(), e.watch_expiry())]
        try:
            yield
        finally:
            for task in running:
                task.cancel()


async def lease_of(kube: Kube) -> Lease:
    return await kube.get_lease(NAMESPACE, NAME)


async def test_the_first_takes_a_lease_that_nobody_has(kube: Kube) -> None:
    """It is made, with who, how long, since when; renewing moves only the time of renewal."""
    election = an_election(kube, "a")
    async with standing(election):
        await election.wait_gained()
        first = (await lease_of(kube)).spec
        await until(lambda: _renewed(kube, first.renew_time))
        later = (await lease_of(kube)).spec

    assert ("a", 2, 1) == (first.holder_identity, first.lease_duration_seconds, first.lease_transitions)
    assert (first.acquire_time, first.lease_transitions) == (later.acquire_time, later.lease_transitions)


async def _renewed(kube: Kube, before: str | None) -> bool:
    return (await lease_of(kube)).spec.renew_time != before


async def test_only_one_of_many_leads(kube: Kube) -> None:
    """Two processes that start together: the API server's conflict decides."""
    elections = [an_election(kube, identity) for identity in "abcd"]
    async with standing(*elections):
        await until(lambda: any(e.is_valid() for e in elections))
        await until(lambda: len({e.holder for e in elections}) == 1)

        assert 1 == sum(e.is_valid() for e in elections)


async def test_a_lease_given_back_is_taken_at_once(kube: Kube) -> None:
    """A clean stop hands over without waiting for expiry; who gave back does not take it again."""
    leaving, follower = an_election(kube, "a", terms=SLOW), an_election(kube, "b", terms=SLOW)
    async with standing(leaving):
        await leaving.wait_gained()
        async with standing(follower):
            began = time.monotonic()
            await leaving.release()
            assert not leaving.is_valid()
            await follower.wait_gained()
            assert time.monotonic() - began < 10

            assert "b" == follower.holder
            assert 2 == (await lease_of(kube)).spec.lease_transitions


async def test_after_standing_again_it_may_lead_again(kube: Kube) -> None:
    """A process that stepped down because NATS was gone takes part again later."""
    election = an_election(kube, "a", terms=SLOW)
    async with standing(election):
        await election.wait_gained()
        await election.release()
        election.stand()
        await election.wait_gained()


async def test_a_holder_that_is_gone_is_followed_after_its_time(kube: Kube) -> None:
    """Nobody renews any more: the follower takes over after the Lease's duration as it saw it, not before."""
    dead, follower = an_election(kube, "a"), an_election(kube, "b")
    async with standing(dead):
        await dead.wait_gained()
    began = time.monotonic()
    async with standing(follower):
        await follower.wait_gained()

    assert 1.5 < time.monotonic() - began < 8
    assert not dead.is_valid()


async def test_the_holders_wall_clock_does_not_count(kube: Kube) -> None:
    """A renewal time far in the past or future is not believed: only that it changes, by our own clock."""
    follower = an_election(kube, "b")
    skewed = FakeClock(now=1_000_000_000.0)
    holder = an_election(kube, "a", clock=skewed)
    async with standing(holder):
        await holder.wait_gained()
        skewed.advance(0.001)
        async with standing(follower):
            await until(lambda: follower.holder == "a")
            later = time.monotonic() + 1.0

            async def still_held() -> bool:
                skewed.advance(0.001)
                assert not follower.is_valid()
                return time.monotonic() > later

            await until(still_held)


async def test_an_api_server_that_hangs_ends_the_lease_in_time(cluster: Standin, kube: Kube) -> None:
    """The holder stops believing before anybody else may take over, though its renewal is still waiting."""
    election = an_election(kube, "a")
    async with standing(election):
        await election.wait_gained()
        began = time.monotonic()
        cluster.faults.set(Fault(kind="pause"))
        await election.wait_lost()
        lost = time.monotonic() - began
        cluster.faults.set(Fault(kind="resume"))
        await election.wait_gained()

    assert lost < QUICK.duration


async def test_time_asleep_counts(kube: Kube) -> None:
    """A machine that was suspended for a minute does not believe in its Lease when it wakes."""
    clock = FakeClock()
    election = an_election(kube, "a", clock=clock, terms=Terms(duration=15, renew_every=60, look_every=0.05, margin=3))
    async with standing(election):
        await election.wait_gained()
        clock.suspend(11.9)
        assert election.is_valid()
        clock.suspend(0.2)

        assert not election.is_valid()


async def test_a_lease_taken_by_force_is_lost_at_once(kube: Kube) -> None:
    """Somebody writes another holder into the Lease: the old one sees it at its next look and stops."""
    election = an_election(kube, "a", terms=SLOW)
    async with standing(election):
        await election.wait_gained()

        async def take() -> bool:
            lease = await lease_of(kube)
            spec = structs.replace(lease.spec, holder_identity="operator")
            try:
                await kube.replace_lease(structs.replace(lease, spec=spec))
            except KubeConflict:
                return False
            return True

        await until(take)
        await election.wait_lost()

        assert "operator" == election.holder


async def test_refusals_do_not_end_the_election(cluster: Standin, kube: Kube) -> None:
    """The API server answers 500 for a while; the Lease is held as soon as it does not."""
    cluster.faults.set(Fault(kind="refuse", resource="leases", code=500, times=3))
    election = an_election(kube, "a")
    async with standing(election):
        await election.wait_gained()


def test_somebody_else_leads_within_fifteen_seconds() -> None:
    """The terms promise it: duration and one look after the last renewal seen; and the holder gives up before."""
    terms = Terms()

    assert terms.duration + terms.look_every <= 15 - 4  # which leaves time to take over
    assert terms.renew_every < terms.duration - terms.margin


async def test_a_lease_that_is_deleted_goes_to_nobody_at_once(cluster: Standin, kube: Kube) -> None:
    """Its holder believes in it: whoever saw it held waits as long as for a dead one, and the holder renews it."""
    holder = an_election(kube, "a", terms=SLOW)
    follower = an_election(kube, "b", terms=SLOW)
    async with standing(holder):
        await holder.wait_gained()
        async with standing(follower):
            await until(lambda: follower.holder == "a")
            cluster.registry.delete(LEASES, (NAMESPACE, NAME), {})
            assert not await _gains_within(follower, 1.0)

            assert "a" == (await lease_of(kube)).spec.holder_identity


@pytest.mark.parametrize("name", ["", "b"], ids=["emptied", "given to a follower"])
async def test_a_lease_that_is_edited_goes_to_nobody_at_once(cluster: Standin, kube: Kube, name: str) -> None:
    """Only the holder gives it back; an operator's edit ends its belief no earlier than its next look."""
    holder = an_election(kube, "a", terms=structs.replace(SLOW, renew_every=1.0))
    follower = an_election(kube, "b", terms=SLOW)
    async with standing(holder):
        await holder.wait_gained()

        def edit(lease: dict[str, Any]) -> dict[str, Any]:
            return {**lease, "spec": {**lease["spec"], "holderIdentity": name}}

        cluster.registry.patch(LEASES, (NAMESPACE, NAME), edit, dry_run=False)
        async with standing(follower):
            await holder.wait_lost()

            assert not await _gains_within(follower, 0.5)


async def _gains_within(election: Election, seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            await election.wait_gained()
    except TimeoutError:
        return False
    return True


async def test_the_end_of_anothers_lease_is_looked_for_when_it_is_due(kube: Kube) -> None:
    """Not a whole look later."""
    terms = Terms(duration=2.0, renew_every=0.1, look_every=1.5, margin=0.5)
    dead, follower = an_election(kube, "a", terms=terms), an_election(kube, "b", terms=terms)
    async with standing(dead):
        await dead.wait_gained()
    async with standing(follower):
        await until(lambda: follower.holder == "a")
        began = time.monotonic()
        await follower.wait_gained()

    assert time.monotonic() - began < 2.9
