"""After the first lists: what stays for long is out of the collector's way."""

import gc
from typing import cast

from hami_allocator.bootstrap import settle
from hami_allocator.process import Process


class Started:
    """A process that has just read the whole cluster."""

    def __init__(self) -> None:
        self.frozen_before: int | None = None

    async def wait_settled(self) -> None:
        self.frozen_before = gc.get_freeze_count()


async def test_the_collector_passes_over_what_the_first_lists_brought() -> None:
    """Walking the books of a big cluster for garbage would hold up every filter meanwhile."""
    process = Started()
    try:
        await settle(cast("Process", process))

        assert 0 == process.frozen_before
        assert gc.get_freeze_count() > 0
    finally:
        gc.unfreeze()
