"""The group of control groups in which all of a real node runs, so that nothing of it can be left unseen.

One rule: nothing outside the group is touched; both versions of control groups are known.
"""

import asyncio
import time
from pathlib import Path

from hami_testkit.processes import ProcessFailedError

CGROUPS = Path("/sys/fs/cgroup")


def roots() -> list[Path]:
    """Return the roots of the hierarchies: one for each controller, or the one that is for all."""
    if (CGROUPS / "cgroup.controllers").exists():
        return [CGROUPS]
    return sorted({path.resolve() for path in CGROUPS.glob("*/") if (path / "tasks").exists()})


def make(group: str) -> None:
    """Make the group, and one named node in it for what is no container, in every hierarchy."""
    for root in roots():
        (root / group / "node").mkdir(parents=True)
        for path in (root / group, root / group / "node"):
            for file in ("cpuset.cpus", "cpuset.mems"):
                if (path / "tasks").exists() and (path / file).exists():
                    (path / file).write_text((path.parent / file).read_text())


async def remove(group: str, *, within: float) -> None:
    """Remove the group with all below it, as soon as its last process is gone."""
    deadline = time.monotonic() + within
    for root in [CGROUPS, *CGROUPS.glob("*/")]:
        while (root / group).exists():
            try:
                for path in sorted((root / group).glob("**/"), reverse=True):
                    path.rmdir()
            except OSError as e:
                if time.monotonic() > deadline:
                    raise ProcessFailedError(f"processes of the node are left in {root / group}") from e
                await asyncio.sleep(0.05)
