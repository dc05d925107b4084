"""Every few seconds: find the containers' regions, read them, answer them, and clear away what is left of dead ones.

One rule: whatever a tenant puts into its folder concerns that container alone; it is told once, the others are read.
"""

import asyncio
import logging
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from hami_kit.clock import Clock
from hami_model.objects import Pod, PodRef
from msgspec import Struct

from hami_node_agent.usage.feedback import Change, observe
from hami_node_agent.usage.region import BadRegion, Reading, Region

log = logging.getLogger(__name__)

EVERY = 5.0
"""Seconds between two rounds: HAMi's rhythm, in which activity counts down."""

GRACE = 300.0
"""Seconds that the folder of a pod nobody knows is kept: the pod may be younger than our watch (HAMi compat)."""


class ContainerUse(Struct, frozen=True, kw_only=True):
    """What one container uses, as last read."""

    pod: PodRef
    container: str
    reading: Reading


class Monitor:
    """The containers of the node. ``holders``: uids of pods that hold devices here, gone from the API or not."""

    def __init__(
        self, home: Path, *, pods: Callable[[], Iterable[Pod]], holders: Callable[[], Iterable[str]], clock: Clock
    ) -> None:
        self._folder = home / "containers"
        self._pods = pods
        self._holders = holders
        self._clock = clock
        self._open: dict[Path, _Open] = {}
        self._told: dict[str, str] = {}
        self.seen: tuple[ContainerUse, ...] = ()

    async def run(self) -> None:
        """Do round after round until cancelled."""
        try:
            while True:
                pods = {pod.metadata.uid: PodRef.of(pod) for pod in self._pods()}
                kept = pods.keys() | set(self._holders())
                self.seen = await _in_thread(lambda pods=pods, kept=kept: self.round(pods, kept))  # type: ignore[misc]
                await asyncio.sleep(EVERY)
        finally:
            self.close()

    def round(self, pods: Mapping[str, PodRef], kept: Iterable[str]) -> tuple[ContainerUse, ...]:
        """Do one round: ``pods`` by uid are those that the API server has; folders of ``kept`` uids stay."""
        found, kept = dict(self._found()), frozenset(kept)
        for folder in self._open.keys() - found.keys():
            self._open.pop(folder).region.close()
        seen: list[tuple[_Open, ContainerUse]] = []
        for folder, (uid, container) in found.items():
            if uid not in kept:
                self._clear(folder)
            elif uid in pods and (read := self._read(folder)) is not None:
                opened, reading = read
                seen.append((opened, ContainerUse(pod=pods[uid], container=container, reading=reading)))
        for (opened, use), change in zip(seen, observe([use.reading for _, use in seen]), strict=True):
            self._answer(opened, use, change)
        return tuple(use for _, use in seen)

    def close(self) -> None:
        """Close every region."""
        for opened in self._open.values():
            opened.region.close()
        self._open.clear()

    def _found(self) -> Iterator[tuple[Path, tuple[str, str]]]:
        """Yield the containers' folders with pod uid and container: ``<uid>_<container>``."""
        try:
            folders = sorted(self._folder.iterdir())
        except OSError:
            return  # no container has been served yet
        for folder in folders:
            uid, mark, container = folder.name.partition("_")
            if mark and uid and container and folder.is_dir() and not folder.is_symlink():
                yield folder, (uid, container)

    def _read(self, folder: Path) -> "tuple[_Open, Reading] | None":
        try:
            opened = self._opened(folder)
            if opened is None:
                return None
            reading = opened.region.read()
        except (BadRegion, OSError) as e:
            self._forget(folder)
            self._tell(folder.name, f"its use cannot be read: {e}")
            return None
        self._tell(folder.name, "")
        return opened, reading

    def _opened(self, folder: Path) -> "_Open | None":
        """Return the container's region, opened anew where the file is another; None while HAMi-core has not begun."""
        files = sorted(folder.glob("*.cache"))
        if not files:
            return None
        if len(files) > 1:
            raise BadRegion(f"{len(files)} files end in .cache, HAMi-core makes one")
        status = files[0].lstat()
        stamp = status.st_dev, status.st_ino
        opened = self._open.get(folder)
        if opened is not None and opened.stamp == stamp:
            return opened
        self._forget(folder)
        self._open[folder] = _Open(Region.open(files[0]), stamp)
        return self._open[folder]

    def _forget(self, folder: Path) -> None:
        opened = self._open.pop(folder, None)
        if opened is not None:
            opened.region.close()

    def _answer(self, opened: "_Open", use: ContainerUse, change: Change) -> None:
        try:
            if change.recent_kernel is not None:
                opened.region.write_recent_kernel(change.recent_kernel)
            if change.switch is not None:
                opened.region.write_switch(change.switch)
        except OSError as e:
            self._tell(f"{use.pod.uid}_{use.container}", f"it cannot be answered: {e}")

    def _clear(self, folder: Path) -> None:
        """Remove the folder of a pod that nobody knows, once it is old enough not to be a new one."""
        try:
            age = self._clock.now() - folder.stat().st_mtime
        except OSError:
            return
        if age > GRACE:
            log.info("%s: its pod is gone; removing what it has left", folder)
            self._forget(folder)
            shutil.rmtree(folder, ignore_errors=True)

    def _tell(self, about: str, what: str) -> None:
        """Tell each change once."""
        if self._told.get(about, "") != what:
            log.warning("container %s: %s", about, what or "its use is read again")
        self._told = {key: text for key, text in {**self._told, about: what}.items() if text}


async def _in_thread(work: Callable[[], tuple[ContainerUse, ...]]) -> tuple[ContainerUse, ...]:
    """Work in a thread; who is cancelled waits for its end, so that nobody closes what it reads."""
    running = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        return await asyncio.shield(running)
    finally:
        await asyncio.wait([running])


class _Open(Struct, frozen=True):
    region: Region
    stamp: tuple[int, int]
