"""``make demo KEEP=1``: what is left running, how to talk to it, and how to stop it again."""

import contextlib
import json
import os
import shutil
import signal
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from hami_testkit.processes import BIN
from hami_testkit.stack import Stack

STATE = Path(os.environ.get("XDG_STATE_HOME", Path.home() / ".local" / "state")) / "hami-demo.json"
GRACE = 8.0
"""Seconds between the polite and the impolite signal."""


def keep(console: Console, system: Stack) -> None:
    """Remember what runs, and say how to talk to it."""
    folder = system.plan.folder
    pids = [[process.pid, process.spec.name, process.spec.ground] for process in system.started.running]
    STATE.parent.mkdir(parents=True, exist_ok=True)
    STATE.write_text(json.dumps({"folder": str(folder), "pids": pids}))
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
            f"  kubectl --kubeconfig {system.at.kubeconfig} create --validate=false -f POD.yaml",
            f"  kubectl --kubeconfig {system.at.kubeconfig} delete pod whole-card",
        ]
    lines += [f"Logs stand in {folder}. Stop it with:  make demo STOP=1", ""]
    console.print("\n".join(lines), highlight=False, soft_wrap=True)


def is_left_running() -> bool:
    """Say whether anything of an earlier demo still runs."""
    return STATE.exists() and any(_is_ours(pid) for pid, *_ in json.loads(STATE.read_text())["pids"])


def stop(console: Console) -> None:
    """Stop what an earlier demo left running; only processes that it started itself."""
    if not STATE.exists():
        console.print("no demo was left running")
        return
    state = json.loads(STATE.read_text())
    ours = [(pid, ground) for pid, _, ground in state["pids"] if _is_ours(pid)]
    # as Processes.stop_all does: what others stand on is stopped after them
    for wave in (False, True):
        _end([pid for pid, ground in ours if ground is wave])
    remove(Path(state["folder"]))
    STATE.unlink()
    console.print(f"stopped {len(ours)} processes", highlight=False)


def _end(pids: Sequence[int]) -> None:
    """Ask processes to stop, then make them."""
    for pid in pids:
        _signal(pid, signal.SIGTERM)
    deadline = time.monotonic() + GRACE
    while any(_is_ours(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.05)
    for pid in pids:
        _signal(pid, signal.SIGKILL)


def _signal(pid: int, number: signal.Signals) -> None:
    if _is_ours(pid):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def _is_ours(pid: int) -> bool:
    """Say whether a living process of this number was started from this environment."""
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
    return str(BIN).encode() in command


def remove(folder: Path) -> None:
    """Remove the demo's folder."""
    shutil.rmtree(folder, ignore_errors=True)
