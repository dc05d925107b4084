"""HAMi-core on the host: installed from a folder, looked after, and the reason why cards take nobody without it.

One rule: a file is replaced as a whole under its name, never written into: containers that run keep the one they have.
Whatever is wrong is said; pods without limits are never the answer.
"""

import hashlib
import logging
import os
import platform
import re
from collections.abc import Iterator
from pathlib import Path

from msgspec import Struct

log = logging.getLogger(__name__)

LIBRARY, PRELOAD, CHECKSUM = "libvgpu.so", "ld.so.preload", ".sha256"

_MACHINES = {"x86_64": 62, "aarch64": 183}
"""ELF's numbers of the machines that NVIDIA has drivers for."""

_Stamp = tuple[int, int, int]


class _Damaged(Exception):
    """A file cannot be used; the sentence says which and why."""


class _Known(Struct, frozen=True):
    stamp: _Stamp
    digest: str


class Library:
    """HAMi-core in HAMi's folder ``vgpu``. ``source``: where it is installed from; None = somebody else does that."""

    def __init__(self, home: Path, source: Path | None = None) -> None:
        self._home = home
        self._source = source
        self._digests: dict[Path, _Known] = {}

    def complaint(self) -> str:
        """Install what is missing or not as it should be; say why containers could not be limited, empty = they can."""
        try:
            if self._source is not None:
                self._home.mkdir(parents=True, exist_ok=True)
                for path in self._offered(self._source):
                    self._install(path)
                self._preload()
            self._check_installed()
        except _Damaged as e:
            return str(e)
        except OSError as e:
            return f"HAMi-core cannot be installed or read: {e}"
        return ""

    # What is installed

    def _offered(self, source: Path) -> Iterator[Path]:
        """Yield the files to install, each found to be what its checksum file says, where it has one."""
        files = sorted(path for path in source.iterdir() if path.is_file())
        if not any(path.name.startswith(LIBRARY) and path.suffix != CHECKSUM for path in files):
            raise _Damaged(f"{source} holds no {LIBRARY}: give HAMI_LIBRARY_DIR the folder that HAMi-core is in")
        for path in files:
            if path.name == PRELOAD or path.suffix == CHECKSUM:
                continue
            self._check_sum(path)
            if path.name.startswith(LIBRARY):
                _check_elf(path)
            yield path

    def _check_sum(self, path: Path) -> None:
        said = path.with_name(path.name + CHECKSUM)
        if not said.is_file():
            return
        wanted = said.read_text().split()[:1]
        if wanted != [self._digest(path)]:
            raise _Damaged(f"{path} is damaged: its SHA-256 is not the one in {said.name}")

    def _install(self, path: Path) -> None:
        target, wanted = self._home / path.name, self._digest(path)
        if target.is_file() and self._digest(target) == wanted:
            return
        new = self._home / f".{path.name}.new"
        new.write_bytes(path.read_bytes())
        new.chmod(0o755)
        if hashlib.sha256(new.read_bytes()).hexdigest() != wanted:
            raise _Damaged(f"{path} changed while it was installed")
        _sync(new)
        new.replace(target)
        log.info("installed %s, SHA-256 %s", target, wanted)

    def _preload(self) -> None:
        """Have containers load the library: one line, the path that it is mounted at."""
        target, text = self._home / PRELOAD, f"{self._home / LIBRARY}\n"
        if target.is_file() and target.read_text() == text:
            return
        new = self._home / f".{PRELOAD}.new"
        new.write_text(text)
        new.chmod(0o644)
        new.replace(target)

    # What is there

    def _check_installed(self) -> None:
        library = newest(self._home)
        if not library.is_file():
            raise _Damaged(
                f"{library} is not there: containers would run without limits; put HAMi-core there, or name its folder "
                "with HAMI_LIBRARY_DIR"
            )
        _check_elf(library)
        preload = self._home / PRELOAD
        if not preload.is_file() or str(self._home / LIBRARY) not in preload.read_text().split():
            raise _Damaged(f"{preload} does not name {self._home / LIBRARY}: containers would run without limits")

    def _digest(self, path: Path) -> str:
        """Return the SHA-256 of a file, counted again when it is another."""
        found = path.stat()
        stamp = (found.st_ino, found.st_mtime_ns, found.st_size)
        known = self._digests.get(path)
        if known is None or known.stamp != stamp:
            known = self._digests[path] = _Known(stamp, hashlib.sha256(path.read_bytes()).hexdigest())
        return known.digest


def newest(home: Path) -> Path:
    """Return the library on the host: the newest with a version in its name, where the installer left one."""
    versions = [path for path in home.glob(f"{LIBRARY}.*") if path.suffix != CHECKSUM]
    return max(versions, key=_age, default=home / LIBRARY)


def _age(library: Path) -> tuple[list[int], bool, list[int]]:
    """Order libraries by version as numbers, 2.10 above 2.9; a release stands above its candidates."""
    release, _, candidate = library.name.removeprefix(f"{LIBRARY}.").partition("-")
    return _numbers(release), not candidate, _numbers(candidate)


def _numbers(text: str) -> list[int]:
    return [int(number) for number in re.findall(r"[0-9]+", text)]


def _check_elf(path: Path) -> None:
    """Refuse what the loader of a container would refuse: it would start without limits."""
    with path.open("rb") as file:
        head = file.read(20)
    machine = _MACHINES.get(platform.machine())
    is_library = head[:5] == b"\x7fELF\x02" and head[16:18] == b"\x03\x00"
    if not is_library or (machine is not None and int.from_bytes(head[18:20], "little") != machine):
        raise _Damaged(f"{path} is no shared library for {platform.machine()}: it is damaged, or of another machine")


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
