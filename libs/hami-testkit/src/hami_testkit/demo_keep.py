"""``make demo KEEP=1``: what is left running, how to talk to it, and how to stop it again.

One rule: what was kept is remembered in the demo's own folder, so that nothing is written anywhere else, and each
checkout finds its own.
"""

import contextlib
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
from msgspec import Struct
from rich.console import Console

from hami_testkit.processes import BIN
from hami_testkit.stack import Stack

PREFIX = "hami-"
STATE = "kept.json"
GRACE = 8.0
"""Seconds between the polite and the impolite signal."""

LONGEST = 40
"""Characters of a temporary folder below which the kubelets' sockets still have paths of less than 108."""


class _Process(Struct, frozen=True):
    """A process left running; its beginning tells it from a later one of the same number."""

    pid: int
    began: str
    ground: bool


class _Kept(Struct, frozen=True):
    """What one demo left running."""

    environment: str
    processes: list[_Process]


def make_folder() -> Path:
    """Make the folder of one demo."""
    return Path(tempfile.mkdtemp(prefix=PREFIX, dir=_base()))


def _base() -> Path:
    base = tempfile.gettempdir()
    return Path(base if len(base) <= LONGEST else "/tmp")  # noqa: S108


def keep(console: Console, system: Stack) -> None:
    """Remember what runs, and say how to talk to it."""
    folder = system.plan.folder
    running = [_Process(p.pid, _began(p.pid), p.spec.ground) for p in system.started.running]
    (folder / STATE).write_bytes(msgspec.json.encode(_Kept(str(BIN), running)))
    exports = "\n".join(f"  export {name}={value}" for name, value in system.environment().items())
    lines = [
        "",
        "[bold]Everything runs on.[/] Talk to it:",
        exports,
        f"  export PATH={BIN}:$PATH",
        "  hamictl nodes; hamictl pods; hamictl explain never-fits; hamictl trace whole-card; hamictl events -f",
        f"  nats --server {system.at.nats} sub 'hami.>'      (where the NATS command line is installed)",
    ]
    if shutil.which("kubectl"):
        lines += [
            f"  kubectl --kubeconfig {system.at.kubeconfig} get pods -o wide",
            f"  kubectl --kubeconfig {system.at.kubeconfig} apply -f POD.yaml",
            f"  kubectl --kubeconfig {system.at.kubeconfig} delete pod whole-card",
        ]
    lines += [f"Logs stand in {folder}. Stop it with:  make demo STOP=1", ""]
    console.print("\n".join(lines), highlight=False, soft_wrap=True)


def is_left_running() -> bool:
    """Say whether anything of an earlier demo still runs."""
    return any(_is_alive(process) for _, kept in _kept() for process in kept.processes)


def stop(console: Console) -> None:
    """Stop what an earlier demo left running; only processes that it started itself."""
    found = list(_kept())
    alive = [process for _, kept in found for process in kept.processes if _is_alive(process)]
    # as Processes.stop_all does: what others stand on is stopped after them
    for wave in (False, True):
        _end([process for process in alive if process.ground is wave])
    for folder, _ in found:
        remove(folder)
    console.print(f"stopped {len(alive)} processes" if found else "no demo was left running", highlight=False)


def _kept() -> Iterator[tuple[Path, _Kept]]:
    """Yield what demos of this environment have left, with their folders."""
    for file in _base().glob(f"{PREFIX}*/{STATE}"):
        with contextlib.suppress(OSError, msgspec.DecodeError):
            kept = msgspec.json.decode(file.read_bytes(), type=_Kept)
            if file.stat().st_uid == os.getuid() and kept.environment == str(BIN):
                yield file.parent, kept


def _end(processes: Sequence[_Process]) -> None:
    """Ask processes to stop, then make them."""
    for process in processes:
        _signal(process, signal.SIGTERM)
    deadline = time.monotonic() + GRACE
    while any(map(_is_alive, processes)) and time.monotonic() < deadline:
        time.sleep(0.05)
    for process in processes:
        _signal(process, signal.SIGKILL)


def _signal(process: _Process, number: signal.Signals) -> None:
    if _is_alive(process):
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, number)


def _is_alive(process: _Process) -> bool:
    return bool(process.began) and _began(process.pid) == process.began


def _began(pid: int) -> str:
    """Return when a living process of this number began, in the kernel's ticks; empty where there is none."""
    try:
        # the name in brackets may hold anything; after it come the state and, as the 22nd field of all, the beginning
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]


def remove(folder: Path) -> None:
    """Remove the demo's folder."""
    shutil.rmtree(folder, ignore_errors=True)
