"""The end of every fault test: does the API show anything wrong?

One rule: it looks at the API server alone, as ``hamictl doctor`` does; nothing that our services say counts.
"""

import asyncio
import time
from pathlib import Path

from hami_kit.kube import Kube
from hami_kit.kube.sight import inspect_cluster
from hami_model.inspection import Finding

from hami_testkit.builders import a_catalog

SETTLE = 20.0
"""Seconds within which what a fault left behind has to be cleared away."""

BETWEEN = 0.5
FOREVER = frozenset({"over-memory", "over-cores", "over-slots", "not-alone"})
"""Rules that no moment excuses: whoever breaks one has given a card twice."""


async def check_cluster(kubeconfig: Path | str) -> list[Finding]:
    """Return everything that is wrong with nodes and pods now."""
    async with Kube.connect(str(kubeconfig)) as kube:
        return list(await inspect_cluster(kube, a_catalog()))


async def check_settled(kubeconfig: Path | str, *, within: float = SETTLE) -> list[Finding]:
    """Return what is still wrong after a while: nothing as soon as all is well, a card given twice at once."""
    deadline = time.monotonic() + within
    while found := await check_cluster(kubeconfig):
        if any(finding.rule in FOREVER for finding in found) or time.monotonic() > deadline:
            return found
        await asyncio.sleep(BETWEEN)
    return []


async def assert_nothing_wrong(kubeconfig: Path | str, *, within: float = SETTLE) -> None:
    """Fail with every finding unless the cluster becomes right in time."""
    if found := await check_settled(kubeconfig, within=within):
        raise AssertionError("the checker found:\n" + "\n".join(f"  {finding}" for finding in found))
