"""A folder whose files come and go: whoever waits for that is woken by the kernel, and looks for himself.

One rule: it only says that something may have changed. Where the kernel does not tell (no inotify left, a folder that
is not there or was replaced) waiting just takes as long as it may.
"""

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from asyncinotify import Inotify, Mask

log = logging.getLogger(__name__)

_CHANGES = Mask.CREATE | Mask.DELETE | Mask.MOVED_TO | Mask.MOVED_FROM | Mask.ATTRIB


class FolderNews:
    """What the kernel tells of one folder."""

    def __init__(self, inotify: Inotify | None) -> None:
        self._inotify = inotify

    @property
    def is_told(self) -> bool:
        """Say whether the kernel tells at all."""
        return self._inotify is not None

    async def wait(self, seconds: float) -> None:
        """Return at the next change, or after so many seconds."""
        if self._inotify is None:
            await asyncio.sleep(seconds)
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._inotify.get()


@contextmanager
def watching(folder: Path) -> Iterator[FolderNews]:
    """Have the kernel tell of a folder for the length of a block."""
    try:
        inotify = Inotify()
        inotify.add_watch(folder, _CHANGES)
    except OSError as e:
        log.debug("the kernel does not tell of changes in %s: %s", folder, e)
        yield FolderNews(None)
        return
    with inotify:
        yield FolderNews(inotify)
