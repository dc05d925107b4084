"""Whoever waits for a folder's files is woken when one comes or goes, and not before."""

import asyncio
import time
from pathlib import Path

import pytest
from asyncinotify import Inotify
from hami_node_agent.folder_watch import watching

LONG = 20.0


@pytest.mark.parametrize("what", ["comes", "goes", "is replaced"])
async def test_a_change_wakes(tmp_path: Path, what: str) -> None:
    """Long before the time is over."""
    file, new = tmp_path / "kubelet.sock", tmp_path / "new"
    if what != "comes":
        file.touch()
    if what == "is replaced":
        new.touch()
    began = time.monotonic()
    with watching(tmp_path) as news:
        waiting = asyncio.create_task(news.wait(LONG))
        await asyncio.sleep(0)
        {"comes": file.touch, "goes": lambda: file.unlink(missing_ok=True), "is replaced": lambda: new.rename(file)}[
            what
        ]()
        await waiting

    assert time.monotonic() - began < LONG / 2


async def test_without_a_change_it_takes_its_time(tmp_path: Path) -> None:
    """Nothing is made up."""
    with watching(tmp_path) as news:
        began = time.monotonic()
        await news.wait(0.1)

    assert news.is_told
    assert time.monotonic() - began >= 0.1


async def test_where_the_kernel_does_not_tell_one_looks_by_oneself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder that is not there, or no instance of inotify left: waiting takes as long as it may."""
    with watching(tmp_path / "absent") as news:
        await news.wait(0)
        blind = not news.is_told

    def none_left(_self: Inotify) -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(Inotify, "__init__", none_left)
    with watching(tmp_path) as news:
        await news.wait(0)

        assert blind
        assert not news.is_told
