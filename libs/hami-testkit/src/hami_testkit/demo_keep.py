"""``make demo KEEP=1``: what is left running, how to talk to it, and how to stop it again."""

import json
import os
import shutil
import signal
import time
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
    pids = [[process.pid, process.spec.name] for process in system.started.running]
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


def stop(console: Console) -> None:
    """Stop what an earlier demo left running; only processes that it started itself."""
    if not STATE.exists():
        console.print("no demo was left running")
        return
    state = json.loads(STATE.read_text())
    ours = [pid for pid, _ in reversed(state["pids"]) if _is_ours(pid)]
    for pid in ours:
        os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + GRACE
    while any(_is_ours(pid) for pid in ours) and time.monotonic() < deadline:
        time.sleep(0.05)
    for pid in ours:
        if _is_ours(pid):
            os.kill(pid, signal.SIGKILL)
    remove(Path(state["folder"]))
    STATE.unlink()
    console.print(f"stopped {len(ours)} processes")


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
