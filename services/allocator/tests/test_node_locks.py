"""Pods in line for a node whose plugin takes the pod in its lock annotation as its own."""

import asyncio

import pytest
from hami_allocator.node_locks import Contended, LockValue, NodeLocks, go_duration, read_lock, write_lock
from hami_model.objects import PodRef
from hami_model.vendor import MUTEX_LOCK, Lock

MUTEX = MUTEX_LOCK.key
DSMLU = Lock("cambricon.com/dsmlu.lock", owned=False, within="2 minutes")
FIRST = PodRef("team-a", "first", "uid-1")
SECOND = PodRef("team-a", "second", "uid-2")
THIRD = PodRef("team-a", "third", "uid-3")


def soon(seconds: float = 5.0) -> float:
    return asyncio.get_running_loop().time() + seconds


async def test_the_second_pod_has_its_turn_when_the_first_was_served() -> None:
    """A second bind waits instead of failing into the scheduler's back-off."""
    locks = NodeLocks(timeout=300)
    await locks.wait_turn("node-1", [MUTEX_LOCK], FIRST, deadline=soon())
    second = asyncio.create_task(locks.wait_turn("node-1", [MUTEX_LOCK], SECOND, deadline=soon()))
    await asyncio.sleep(0)
    waited = not second.done()

    held = locks.leave(FIRST.uid)
    await second

    assert waited
    assert (("node-1", MUTEX),) == held


@pytest.mark.parametrize(("lock", "within"), [(MUTEX_LOCK, "5m0s"), (DSMLU, "2 minutes")])
async def test_who_waits_in_vain_gets_hamis_words(lock: Lock, within: str) -> None:
    """The text is what HAMi's users and dashboards know, a vendor's own included."""
    locks = NodeLocks(timeout=300)
    await locks.wait_turn("node-1", [lock], FIRST, deadline=soon())

    with pytest.raises(Contended) as refused:
        await locks.wait_turn("node-1", [lock], SECOND, deadline=soon(0.01))

    assert f"node node-1 has been locked within {within}: node lock contention" == str(refused.value)
    locks.leave(FIRST.uid)
    await locks.wait_turn("node-1", [lock], THIRD, deadline=soon())


async def test_other_nodes_and_other_keys_do_not_wait() -> None:
    """Cambricon reads a key of its own, and nodes are apart."""
    locks = NodeLocks(timeout=300)
    await locks.wait_turn("node-1", [MUTEX_LOCK], FIRST, deadline=soon())

    await locks.wait_turn("node-1", [DSMLU], SECOND, deadline=soon())
    await locks.wait_turn("node-2", [MUTEX_LOCK], THIRD, deadline=soon())


async def test_a_pod_of_two_vendors_that_waits_in_vain_for_one_lock_gives_back_the_other() -> None:
    """Nobody holds a lock that it does not use."""
    locks = NodeLocks(timeout=300)
    await locks.wait_turn("node-1", [MUTEX_LOCK], FIRST, deadline=soon())
    with pytest.raises(Contended):
        await locks.wait_turn("node-1", [DSMLU, MUTEX_LOCK], SECOND, deadline=soon(0.01))

    await locks.wait_turn("node-1", [DSMLU], THIRD, deadline=soon())


async def test_a_lock_found_at_start_holds_the_line_until_its_pod_is_served() -> None:
    """A restart forgets nobody who is between lock and confirmation."""
    locks = NodeLocks(timeout=300)
    locks.restore("node-1", MUTEX, FIRST, since=soon(0))
    second = asyncio.create_task(locks.wait_turn("node-1", [MUTEX_LOCK], SECOND, deadline=soon()))
    await asyncio.sleep(0)
    waited = not second.done()
    locks.leave(FIRST.uid)
    await second

    assert waited


async def test_a_lock_older_than_the_timeout_is_overdue() -> None:
    """After five minutes the next pod has its turn, whatever became of the holder."""
    locks = NodeLocks(timeout=300)
    locks.restore("node-1", MUTEX, FIRST, since=soon(-301))
    locks.restore("node-2", MUTEX, SECOND, since=soon(-299))

    assert (FIRST.uid,) == locks.overdue(soon(0))


def test_a_lock_names_its_pod_except_cambricons() -> None:
    """``<RFC3339>,<namespace>,<pod>``, or the bare time."""
    assert "2026-01-01T00:00:00Z,team-a,first" == write_lock(MUTEX_LOCK, FIRST, 1767225600.0)
    assert "2026-01-01T00:00:00Z" == write_lock(DSMLU, FIRST, 1767225600.7)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2026-01-01T00:00:00Z,team-a,first", LockValue(1767225600.0, "team-a", "first")),
        ("2026-01-01T08:00:00+08:00", LockValue(1767225600.0)),
        ("yesterday,team-a,first", None),
        ("2026-01-01T00:00:00Z,first", None),
        ("", None),
    ],
)
def test_a_lock_that_cannot_be_read_is_nobodys(text: str, value: LockValue | None) -> None:
    """A malformed lock names no pod, so no plugin waits for one."""
    assert value == read_lock(text)


@pytest.mark.parametrize(("seconds", "text"), [(300, "5m0s"), (28, "28s"), (3600, "1h0m0s"), (90.5, "1m30.5s")])
def test_durations_read_as_go_prints_them(seconds: float, text: str) -> None:
    """The duration stands inside HAMi's text."""
    assert text == go_duration(seconds)
