"""The demo's second act, with two allocators or more: the leader is killed while pods come.

One rule: it tells what somebody who watches the pods would see.
"""

import asyncio
import time

from msgspec import Struct
from rich.console import Console

from hami_testkit.demo_cluster import DEADLINE, DemoCluster, DemoError, Json, is_running
from hami_testkit.stack import Stack

EVERY = 0.5
"""Seconds between two pods."""
BEFORE = 4
"""Pods that run before the leader is killed."""
MEANWHILE = 20
"""Pods that come at most while nobody leads, so that a slow machine does not fill the cards."""
AFTER = 4
"""Pods that come when another leads."""
TAKEOVER_DEADLINE = 60.0
"""Seconds for another to lead: a Lease lasts 10, and the machine may be busy."""


class LeaderChange(Struct, frozen=True, kw_only=True):
    """Who led before and after, seconds in which no pod was bound, and the pods that came meanwhile."""

    before: str
    after: str
    pause: float
    pods: list[str]


async def kill_the_leader(console: Console, cluster: DemoCluster, system: Stack) -> LeaderChange:
    """Kill the leader while pods come, and see all of them run."""
    before = await system.wait_leader()
    followers = [name for name in system.at.allocators if name != before]
    console.print(f"\n[bold]Killing the leader[/] {before} leads, standing by: {', '.join(followers)}", highlight=False)
    pods = _Pods(console, cluster)
    watching = asyncio.create_task(pods.watch())
    try:
        for _ in range(BEFORE):
            await pods.add()
        await pods.wait_running()
        killed = time.monotonic()
        await system.kill(before)
        console.print(f"  [red]killed[/] {before} (SIGKILL); pods keep coming", highlight=False)
        after = await _new_leader(system, pods, before)
        console.print(f"  [green]leads[/]  {after}, {time.monotonic() - killed:.1f} s after the kill", highlight=False)
        for _ in range(AFTER):
            await pods.add()
        await pods.wait_running()
    finally:
        watching.cancel()
    pause = pods.first_after(killed) - killed
    console.print(f"  all {len(pods.names)} pods run; none was bound for {pause:.1f} s after the kill", highlight=False)
    return LeaderChange(before=before, after=after, pause=round(pause, 2), pods=pods.names)


async def _new_leader(system: Stack, pods: "_Pods", before: str) -> str:
    """Return who leads next; until then pods keep coming."""
    leading = asyncio.create_task(system.wait_leader(other_than=before, deadline=TAKEOVER_DEADLINE))
    try:
        for _ in range(MEANWHILE):
            if not leading.done():
                await pods.add()
        return await leading
    except TimeoutError as e:
        raise DemoError(f"no other allocator led within {TAKEOVER_DEADLINE:g} s after {before} was killed") from e
    finally:
        leading.cancel()


class _Pods:
    """Pods that come one after another; ``watch`` tells of each when it runs."""

    def __init__(self, console: Console, cluster: DemoCluster) -> None:
        self._console = console
        self._cluster = cluster
        self._began = time.monotonic()
        self._runs_since: dict[str, float] = {}
        self.names: list[str] = []

    async def add(self) -> None:
        """Create one more and let some time pass."""
        name = f"comes-{len(self.names) + 1}"
        self.names.append(name)
        await self._cluster.create(_a_pod(name))
        await asyncio.sleep(EVERY)

    async def watch(self) -> None:
        """Tell of each pod when it runs, for ever."""
        while True:
            for pod in await self._cluster.pods():
                name = pod["metadata"]["name"]
                if name in self.names and name not in self._runs_since and is_running(pod):
                    self._runs_since[name] = time.monotonic()
                    self._console.print(f"  [green]runs[/]   {name} on {pod['spec']['nodeName']}", highlight=False)
            await asyncio.sleep(0.05)

    async def wait_running(self) -> None:
        """Return when all of them run."""
        try:
            async with asyncio.timeout(DEADLINE):
                while missing := [name for name in self.names if name not in self._runs_since]:
                    await asyncio.sleep(0.05)
        except TimeoutError as e:
            raise DemoError(f"{', '.join(missing)}: not running within {DEADLINE:g} s after another led") from e

    def first_after(self, moment: float) -> float:
        """Return when the first pod was seen running after a moment."""
        return min(since for since in self._runs_since.values() if since > moment)


def _a_pod(name: str) -> Json:
    limits = {"nvidia.com/gpu": "1", "nvidia.com/gpumem": "100"}
    container = {"name": "main", "image": "app", "resources": {"limits": limits}}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {"containers": [container]}}
