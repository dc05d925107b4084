"""Every part of the system as processes on this machine, wired as a chart would wire them.

One rule: services are started by the console commands and the environment that users have; nothing reaches into them.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

import httpx
from msgspec import structs

from hami_testkit import parts
from hami_testkit.parts import Addresses, Agent, Plan, scheduler_config
from hami_testkit.processes import Processes, Running, Spec, processes

__all__ = ["READY_DEADLINE", "Addresses", "Agent", "Plan", "Stack", "scheduler_config", "stack", "start"]

READY_DEADLINE = 45.0
"""Seconds for one process to get ready on a busy two-core machine."""


class Stack:
    """The running system."""

    def __init__(self, plan: Plan, started: Processes, addresses: Addresses) -> None:
        self.plan = plan
        self.at = addresses
        self.started = started

    def environment(self) -> dict[str, str]:
        """Return what ``hamictl`` and other programs need to talk to this system."""
        return self.at.environment()

    async def fetch_gifts(self, node: str) -> None:
        """Bring what a node's containers were given to where the demo reads it: it is there."""

    # Processes, by names such as nats, standin, allocator, allocator-2, agent-gpu-a

    def process(self, name: str) -> Running:
        """Return a running process, which can be paused and resumed."""
        return self.started.find(name)

    async def stop(self, name: str) -> None:
        """Stop a process as a user would."""
        await self.started.stop(name)

    async def kill(self, name: str) -> None:
        """End a process as a crash would."""
        await self.started.kill(name)

    async def start(self, name: str) -> Running:
        """Start a process again that was stopped or killed, at the same address, and wait until it is ready."""
        running = await self.started.start_again(name)
        await running.wait_ready(READY_DEADLINE)
        return running

    async def add_agent(self, agent: Agent) -> Running:
        """Start one more node-agent, and wait until its kubelet knows it."""
        running = await self.started.start(parts.agent(self.plan, self.at, agent))
        await running.wait_ready(READY_DEADLINE)
        return running

    async def restart_services(self, environment: Mapping[str, str]) -> None:
        """Stop webhook, extender and allocators, and start them with other settings at the same addresses."""
        self.plan = structs.replace(self.plan, environment=environment)
        specs = [*parts.allocators(self.plan, self.at), *_first(self.plan, self.at)]
        for spec in specs:
            await self.started.stop(spec.name)
        await _wait_ready([await self.started.start(spec) for spec in specs])

    # Who leads

    async def leader(self) -> str:
        """Return the name of the allocator that leads and answers, empty for none."""
        async with httpx.AsyncClient(timeout=1, trust_env=False) as http:
            leads = await asyncio.gather(*(_leads(http, url) for url in self.at.allocators.values()))
        return next((name for name, led in zip(self.at.allocators, leads, strict=True) if led), "")

    async def wait_leader(self, *, other_than: str = "", deadline: float = READY_DEADLINE) -> str:
        """Return the name of the allocator that leads, once one does that is not ``other_than``."""
        async with asyncio.timeout(deadline):
            while (found := await self.leader()) in ("", other_than):
                await asyncio.sleep(0.05)
            return found


async def _leads(http: httpx.AsyncClient, url: str) -> bool:
    try:
        # not ready is answered with 503 and the same body
        checks = (await http.get(f"{url}/readyz")).json()["checks"]
    except httpx.HTTPError:
        return False
    return bool(checks["leader"].get("leading"))


@asynccontextmanager
async def stack(plan: Plan) -> AsyncIterator[Stack]:
    """Run the system for the length of a block; return when every part is ready."""
    plan.folder.mkdir(parents=True, exist_ok=True)
    async with processes(plan.folder) as started:
        yield await start(plan, started)


async def start(plan: Plan, started: Processes) -> Stack:
    """Start every part and wait until it is ready; whoever holds ``started`` stops them."""
    at = Addresses.of(plan)
    running = Stack(plan, started, at)
    ground = [await started.start(spec) for spec in parts.ground(plan, at)]
    # webhook and extender need the bus alone, and wait for it by themselves; the others read the kubeconfig
    first = [await started.start(spec) for spec in _first(plan, at)]
    await _wait_ready(ground)
    rest = [*parts.allocators(plan, at), *(parts.agent(plan, at, agent) for agent in plan.agents)]
    await _wait_ready([*first, *[await started.start(spec) for spec in rest]])
    return running


def _first(plan: Plan, at: Addresses) -> list[Spec]:
    return [parts.webhook(plan, at), parts.extender(plan, at)]


async def _wait_ready(waiting: Sequence[Running]) -> None:
    for process in waiting:
        await process.wait_ready(READY_DEADLINE)
