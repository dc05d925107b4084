"""Every vendor's fleet of the examples on a real control plane, as ``make demo CLUSTER=real`` runs it.

One rule: what nodes and plugins do is played, the rest is real.
"""

import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from hami_testkit.cluster.access import connect
from hami_testkit.cluster.client import ApiClient
from hami_testkit.demo import example_folders, plan
from hami_testkit.demo_real import a_real_fleet
from hami_testkit.stack import Stack
from msgspec import structs

Json = dict[str, Any]
ROOT = Path(__file__).parents[2]
FOLDERS = example_folders(ROOT / "examples")


class Fleet:
    """The cluster, as a user sees it."""

    def __init__(self, api: ApiClient, system: Stack) -> None:
        self.api = api
        self.system = system


@asynccontextmanager
async def a_fleet(binaries: Path, folders: Sequence[Path] = FOLDERS) -> AsyncIterator[Fleet]:
    """Run the nodes of these examples, and all services, until the block is left."""
    with tempfile.TemporaryDirectory(prefix="e2e-") as name:
        planned = structs.replace(plan(Path(name), folders), traces=False)
        async with a_real_fleet(planned, binaries) as system, connect(system.at.kubeconfig) as api:
            yield Fleet(api, system)
