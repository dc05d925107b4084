"""Calls of the driver, in threads of their own: they may hang, and then nobody waits for them.

One rule: what hangs is waited for once; until it returns, whoever comes next is told so at once.
"""

import asyncio
import logging
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from hami_node_agent.probes.nvml.driver import DriverTrouble, Unfinished

T = TypeVar("T")

log = logging.getLogger(__name__)


class Worker:
    """Does one thing at a time, for one asker at a time."""

    def __init__(self, deadline: float) -> None:
        self._deadline = deadline
        self._running: asyncio.Future[Any] | None = None

    async def do(self, work: Callable[[], T]) -> T:
        """Return what the work returns; raise ``DriverTrouble`` while earlier work has not returned.

        Raise ``Unfinished`` when it takes too long: it may yet be done, at any later time.
        """
        if self._running is not None and not self._running.done():
            raise DriverTrouble("the NVIDIA driver has not returned from an earlier call: look at dmesg of the node")
        self._running = running = in_thread(work)
        await asyncio.wait([running], timeout=self._deadline)
        if not running.done():
            running.add_done_callback(_ended_late)
            raise Unfinished(f"the NVIDIA driver has not answered for {self._deadline:g} s: look at dmesg of the node")
        return running.result()


def _ended_late(work: asyncio.Future[Any]) -> None:
    if not work.cancelled() and (error := work.exception()) is not None:
        log.warning("a call of the NVIDIA driver that was given up has failed: %s", error)


def in_thread(work: Callable[[], T]) -> "asyncio.Future[T]":
    """Run work in a thread that nobody waits for at the end of the process."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def run() -> None:
        try:
            result = work()
        except Exception as e:
            error = e
            tell(loop, lambda: None if done.done() else done.set_exception(error))
        else:
            tell(loop, lambda: None if done.done() else done.set_result(result))

    threading.Thread(target=run, name="nvml", daemon=True).start()
    return done


def tell(loop: asyncio.AbstractEventLoop, what: Callable[[], None]) -> bool:
    """Hand something to the loop; say whether there still is one."""
    try:
        loop.call_soon_threadsafe(what)
    except RuntimeError:
        return False
    return True
