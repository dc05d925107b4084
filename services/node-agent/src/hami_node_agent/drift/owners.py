"""Whose a process is: its cgroup names the pod's uid, in each kubelet's and runtime's own spelling.

One rule: a process that cannot be seen has no owner; that is not the same as one that belongs to no pod.
"""

import re
from pathlib import Path

from msgspec import Struct

_POD = re.compile(
    r"(?:^|[/-])pod([0-9a-f]{8}(?:[-_][0-9a-f]{4}){3}[-_][0-9a-f]{12}|[0-9a-f]{32})(?:\.slice)?(?:/|$)", re.MULTILINE
)
"""``/kubepods/burstable/pod<uid>/…`` (cgroupfs) or ``…-pod<uid with _>.slice/…`` (systemd), under whatever is above it;
a static pod's uid has no dashes."""


class Owner(Struct, frozen=True, kw_only=True):
    """Who a process is: its command, and the uid of its pod; empty = it belongs to none."""

    command: str
    pod: str = ""


class Owners:
    """Looks processes up in the host's ``/proc``."""

    def __init__(self, proc: Path) -> None:
        self._proc = proc

    def of(self, pid: int) -> Owner | None:
        """Return whose a process is, or None where it is not to be seen."""
        folder = self._proc / str(pid)
        try:
            groups = (folder / "cgroup").read_text(errors="replace")
            command = (folder / "comm").read_text(errors="replace").strip()
        except OSError:
            return None
        return Owner(command=command, pod=pod_of(groups))


def pod_of(groups: str) -> str:
    """Return the uid of the pod that ``/proc/<pid>/cgroup`` names, in any hierarchy; empty = none."""
    found = _POD.search(groups)
    return found[1].replace("_", "-") if found is not None else ""
