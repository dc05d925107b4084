"""The order in which the writer attends to letters."""

import asyncio

import pytest
from hami_allocator.mailbox import Urgency
from hami_allocator.writer import Writer


async def test_a_filter_goes_before_news_of_the_cluster() -> None:
    """While kube-scheduler waits for a filter it places nothing else, so the filter does not wait for a long list."""
    writer = Writer()
    done: list[str] = []
    for number in range(3):
        writer.tell(lambda n=number: done.append(f"news {n}"))  # type: ignore[misc]
    filtered = asyncio.create_task(writer.ask(lambda: done.append("filter"), urgency=Urgency.DECISION))
    await asyncio.sleep(0)

    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(writer.run())
        await filtered
        await writer.wait_caught_up()
        running.cancel()

    assert ["filter", "news 0", "news 1", "news 2"] == done


async def test_what_a_question_raises_reaches_whoever_asked() -> None:
    """A question that fails is the asker's; the writer goes on."""
    writer = Writer()
    running = asyncio.create_task(writer.run())

    def fail() -> None:
        raise ValueError("no such node")

    with pytest.raises(ValueError, match="no such node"):
        await writer.ask(fail)
    assert await writer.ask(lambda: 7) == 7
    running.cancel()


async def test_a_question_nobody_waits_for_any_more_changes_nothing() -> None:
    """Who gave up waiting gets no reservation behind his back."""
    writer = Writer()
    done: list[str] = []
    question = asyncio.create_task(writer.ask(lambda: done.append("reserved")))
    await asyncio.sleep(0)
    question.cancel()

    running = asyncio.create_task(writer.run())
    await writer.wait_caught_up()
    running.cancel()

    assert done == []


async def test_the_writer_is_busy_while_decisions_are_asked_for() -> None:
    """What can wait for a pause asks; news of the cluster do not count."""
    writer = Writer()
    running = asyncio.create_task(writer.run())
    before = writer.is_busy(60)
    await writer.ask(lambda: None)
    after_work = writer.is_busy(60)
    await writer.ask(lambda: None, urgency=Urgency.DECISION)

    assert [False, False, True] == [before, after_work, writer.is_busy(60)]
    assert not writer.is_busy(0)
    running.cancel()
