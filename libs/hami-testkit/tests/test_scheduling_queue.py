"""The scheduler's queue: who is tried next, and when again."""

import asyncio
from typing import Any

from hami_testkit.cluster.queue import SchedulingQueue


class Time:
    """A clock that stands until a test moves it."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def a_queue(time: Time) -> SchedulingQueue:
    return SchedulingQueue(initial=1, longest=10, clock=time)


def a_pod(name: str, *, priority: int = 0, annotations: dict[str, str] | None = None) -> dict[str, Any]:
    meta = {"uid": name, "name": name, "annotations": annotations or {}}
    return {"metadata": meta, "spec": {"priority": priority}}


async def next_of(queue: SchedulingQueue) -> str | None:
    """Return the pod that is ready now, None when there is none."""
    taking = asyncio.create_task(queue.take())
    await asyncio.wait([taking], timeout=0.005)
    if not taking.done():
        taking.cancel()
        return None
    return taking.result().uid


async def test_priority_comes_first_then_who_came_first() -> None:
    """The highest priority, then the order of arrival."""
    queue = a_queue(Time())
    for name, priority in (("a", 0), ("b", 0), ("urgent", 9)):
        queue.put(a_pod(name, priority=priority))

    assert ["urgent", "a", "b", None] == [await next_of(queue) for _ in range(4)]


async def test_back_off_doubles_up_to_its_longest() -> None:
    """1, 2, 4, 8, 10, 10 seconds."""
    time = Time()
    queue = a_queue(time)
    queue.put(a_pod("a"))
    waits = []
    for _ in range(6):
        item = await queue.take()
        queue.give_back(item, for_change=False)
        waits.append(item.due - time.now)
        time.now = item.due

    assert [1, 2, 4, 8, 10, 10] == waits


async def test_an_unschedulable_pod_waits_for_a_change_and_for_its_back_off() -> None:
    """Time alone does not bring it back, a change does, but not before the back-off is over."""
    time = Time()
    queue = a_queue(time)
    queue.put(a_pod("a"))
    queue.give_back(await queue.take(), for_change=True)
    time.now = 60
    assert None is await next_of(queue)

    queue.move_all()
    assert "a" == await next_of(queue)


async def test_a_change_during_the_attempt_counts() -> None:
    """What moved while the pod was being tried sends it to back-off instead of waiting."""
    time = Time()
    queue = a_queue(time)
    queue.put(a_pod("a"))
    item = await queue.take()
    queue.move_all()
    queue.give_back(item, for_change=True)

    assert () == queue.unschedulable
    time.now = 1
    assert "a" == await next_of(queue)


async def test_an_unschedulable_pod_is_tried_again_after_five_minutes() -> None:
    """A change that nobody told of is bridged by time."""
    time = Time()
    queue = a_queue(time)
    queue.put(a_pod("a"))
    queue.give_back(await queue.take(), for_change=True)

    time.now = 302
    assert "a" == await next_of(queue)


async def test_a_changed_wish_brings_the_pod_back_and_a_changed_status_does_not() -> None:
    """New annotations of an unschedulable pod may make it fit; its own condition may not."""
    time = Time()
    queue = a_queue(time)
    queue.put(a_pod("a"))
    queue.give_back(await queue.take(), for_change=True)
    time.now = 5

    queue.put(a_pod("a") | {"status": {"conditions": []}})
    assert None is await next_of(queue)
    queue.put(a_pod("a", annotations={"hami.io/gpu-scheduler-policy": "binpack"}))
    assert "a" == await next_of(queue)


async def test_a_pod_that_left_while_it_was_tried_does_not_come_back() -> None:
    """Bound or deleted meanwhile: its failure is nobody's business any more; nor is it taken twice."""
    time = Time()
    queue = a_queue(time)
    queue.put(a_pod("a"))
    item = await queue.take()
    queue.put(a_pod("a"))
    assert None is await next_of(queue)

    queue.drop("a")
    queue.give_back(item, for_change=False)
    time.now = 60
    assert None is await next_of(queue)
