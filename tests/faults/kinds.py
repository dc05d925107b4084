"""The faults of a storm, a function each; it returns when what it broke is whole again.

One rule: a fault happens to a process or on the network, never inside one of ours.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Literal

from hami_testkit.cluster.faults import Fault
from hami_testkit.cluster.proxy import Passage
from msgspec import Struct

from tests.faults.bad_lines import LossyBus
from tests.faults.fleet import FleetNode, Kind
from tests.faults.grounds import Ground
from tests.faults.user import User

BINDING = "pods/binding"
LEADS_WITHIN = 60.0
"""Seconds in which somebody leads again, whatever else is broken at the moment."""


BINDS_WITHIN = 10.0
"""Seconds in which a leader that is not disturbed sends a Binding."""


class Lengths(Struct, frozen=True, kw_only=True):
    """How long things stay broken, in seconds."""

    stopped: float = 25
    nats: float = 20
    stale: float = 10
    silent: float = 125
    refused: float = 5
    cut_off: float = 20
    lost: float = 10


SHORT = Lengths(stopped=17, nats=7, stale=3, silent=4, refused=3, cut_off=14, lost=4)
"""Just long enough to matter: the Lease changes hands within 15 s, and NATS counts as gone after 5."""


class Weather(Struct, kw_only=True):
    """What faults work on, and what they write down."""

    ground: Ground
    nodes: list[FleetNode]
    user: User
    bus: LossyBus
    rng: random.Random
    lengths: Lengths
    findings: list[str]
    deaths: list[float] = []
    """When a leader died or stopped."""
    landed: list[str] = []
    """What became of the Bindings that were on their way while their sender stood still."""

    async def leader(self) -> str:
        """Return who leads, once somebody does."""
        return await self.ground.system.wait_leader(deadline=LEADS_WITHIN)


async def leader_stopped(w: Weather) -> None:
    """The leader stands still for longer than its Lease lasts, while a Binding of its is on its way."""
    async with asyncio.timeout(LEADS_WITHIN):
        name, held = await _hold_a_binding(w)
    process = w.ground.system.process(name)
    process.pause()
    w.deaths.append(time.monotonic())
    next_one = asyncio.create_task(_note_leader(w, other_than=name))
    try:
        await asyncio.sleep(w.lengths.stopped)
    finally:
        process.resume()
    async with asyncio.timeout(LEADS_WITHIN):
        while not held.answered:
            await asyncio.sleep(0.1)
    next_one.cancel()
    took_over = (await asyncio.gather(next_one, return_exceptions=True))[0]
    w.landed.append(f"{held.call.name}: {held.code}")
    if isinstance(took_over, float) and took_over < held.sent and held.code == 201:
        w.findings.append(f"a Binding of {held.call.name} landed {held.sent - took_over:.1f} s after another led")


async def _hold_a_binding(w: Weather) -> tuple[str, Passage]:
    """Return who leads, and a Binding of its that is now held, until about when it wakes up again."""
    seconds = w.lengths.stopped + w.rng.uniform(-2, 3)
    while True:  # another fault may make another lead meanwhile
        name = await w.leader()
        passages, switches = w.ground.passages[name], w.ground.proxies[name].faults
        began = len(passages)
        switches.set(Fault(kind="delay", resource=BINDING, seconds=seconds, times=1))
        await w.user.stir()
        try:
            async with asyncio.timeout(BINDS_WITHIN):
                return name, await _held(passages, began)
        except TimeoutError:
            switches.turn_back("delay")


async def _held(passages: Sequence[Passage], began: int) -> Passage:
    while True:
        for passage in passages[began:]:
            if passage.call.resource == BINDING and not passage.sent:
                return passage
        await asyncio.sleep(0.01)


async def _note_leader(w: Weather, *, other_than: str) -> float:
    await w.ground.system.wait_leader(other_than=other_than, deadline=LEADS_WITHIN)
    return time.monotonic()


async def leader_killed(w: Weather) -> None:
    """The leader crashes and is back within a second."""
    name = await w.leader()
    await w.user.stir()
    await w.ground.system.kill(name)
    w.deaths.append(time.monotonic())
    await asyncio.sleep(w.rng.uniform(0, 0.8))
    await w.ground.system.start(name)


async def follower_killed(w: Weather) -> None:
    """Who follows crashes, and is back."""
    leader = await w.leader()
    name = next(name for name in w.ground.proxies if name != leader)
    await w.ground.system.kill(name)
    await w.ground.system.start(name)


async def leader_cut_off(w: Weather) -> None:
    """The leader reaches NATS and not the API server."""
    name = await w.leader()
    await w.user.stir()
    switches = w.ground.proxies[name].faults
    switches.set(Fault(kind="pause"))
    switches.set(Fault(kind="hold"))
    w.deaths.append(time.monotonic())
    await asyncio.sleep(w.lengths.cut_off)
    switches.set(Fault(kind="resume"))
    switches.set(Fault(kind="release"))


async def answers_dropped(w: Weather) -> None:
    """Some Bindings and patches are carried out, and nobody is told."""
    for proxy in w.ground.proxies.values():
        proxy.faults.set(Fault(kind="drop", resource=BINDING, times=3))
        proxy.faults.set(Fault(kind="drop", verb="patch", times=3))
    await w.user.stir()
    await asyncio.sleep(w.lengths.lost)
    for proxy in w.ground.proxies.values():
        proxy.faults.turn_back("drop")


async def writes_refused(w: Weather) -> None:
    """The API server answers 503, 500 or 429 to what the allocators write."""
    code = w.rng.choice((503, 500, 429))
    for proxy in w.ground.proxies.values():
        for verb in ("create", "patch"):
            proxy.faults.set(Fault(kind="refuse", verb=verb, resource="pods*", code=code, times=6))
    await w.user.stir()
    await asyncio.sleep(w.lengths.refused)
    for proxy in w.ground.proxies.values():
        proxy.faults.turn_back("refuse")


def _watches(kind: Literal["gone", "end"]) -> Callable[[Weather], Awaitable[None]]:
    async def turn(w: Weather) -> None:
        await w.user.recreate(2)
        for proxy in w.ground.proxies.values():
            proxy.faults.set(Fault(kind=kind))

    return turn


async def watches_stale(w: Weather) -> None:
    """Watches fall behind while pods come and go; lists stay fresh."""
    for proxy in w.ground.proxies.values():
        proxy.faults.set(Fault(kind="hold", resource="pods"))
    await w.user.recreate(3)
    await w.user.stir()
    await asyncio.sleep(w.lengths.stale)
    for proxy in w.ground.proxies.values():
        proxy.faults.set(Fault(kind="release", resource="pods"))


async def watches_silent(w: Weather) -> None:
    """Open watches say nothing any more, as over a half-open connection."""
    for proxy in w.ground.proxies.values():
        proxy.faults.set(Fault(kind="silence"))
    streams = [stream for proxy in w.ground.proxies.values() for stream in proxy.faults.streams]
    await w.user.recreate(2)
    await w.user.stir()
    await asyncio.sleep(w.lengths.silent)
    for stream in streams:
        stream.end()  # the machine between gives up at last


async def nats_paused(w: Weather) -> None:
    """NATS stands still; connections stay open."""
    process = w.ground.system.process("nats")
    process.pause()
    try:
        await asyncio.sleep(w.lengths.nats)
    finally:
        process.resume()


async def nats_killed(w: Weather) -> None:
    """NATS crashes and is back."""
    await w.ground.system.kill("nats")
    await asyncio.sleep(w.rng.uniform(0, 2))
    await w.ground.system.start("nats")


async def api_restarted(w: Weather) -> None:
    """The API server crashes and comes back with what it held."""
    await w.user.stir()
    if w.ground.restart_api is not None:
        await w.ground.restart_api()


async def confirmations_lost(w: Weather) -> None:
    """Agents' confirmations, or the answers, are lost; real agents crash."""
    w.bus.loses = True
    await w.user.stir()
    for node in [node for node in w.nodes if node.kind is Kind.AGENT]:
        await w.ground.system.kill(f"agent-{node.name}")
        await w.ground.system.start(f"agent-{node.name}")
    await asyncio.sleep(w.lengths.lost)
    w.bus.loses = False


async def extender_killed(w: Weather) -> None:
    """The extender crashes and is back."""
    await w.user.stir()
    await w.ground.system.kill("extender")
    await w.ground.system.start("extender")


async def scheduler_restarted(w: Weather) -> None:
    """kube-scheduler crashes while pods wait and Bindings are on their way; the next one knows of neither."""
    await w.user.stir()
    await w.ground.restart_scheduler()


KINDS: dict[str, Callable[[Weather], Awaitable[None]]] = {
    "leader stopped with a Binding in flight": leader_stopped,
    "leader killed and restarted within 1 s": leader_killed,
    "leader cut off from the API server": leader_cut_off,
    "follower killed": follower_killed,
    "answers dropped after commit": answers_dropped,
    "writes refused": writes_refused,
    "watches end with 410": _watches("gone"),
    "watches cut": _watches("end"),
    "watches stale": watches_stale,
    "watches silent": watches_silent,
    "NATS paused": nats_paused,
    "NATS killed": nats_killed,
    "API server restarted": api_restarted,
    "confirmations lost": confirmations_lost,
    "extender killed": extender_killed,
    "kube-scheduler restarted": scheduler_restarted,
}
