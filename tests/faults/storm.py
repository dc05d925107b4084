"""A storm: pods come and go on a fleet while everything that the failure rules name goes wrong with real processes.

``python -m tests.faults.storm --seed 7`` stands on the stand-in; ``--real FOLDER`` on a real etcd, kube-apiserver and
kube-scheduler, ``--kubeconfig FILE`` on a server that is there already. Ends with 1 when anything was found. The seed
gives the pods, the order of the faults and what each does; the machine's own timing stays its own.
"""

import argparse
import asyncio
import json
import logging
import random
import re
import sys
import tempfile
import time
import traceback
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import msgspec
from hami_testkit.check import check_settled
from hami_testkit.cluster.client import ApiClient
from hami_testkit.cluster.kubelets import PLUGINS, run_kubelets
from hami_testkit.stack import Agent, Stack
from msgspec import Struct

from tests.faults import fleet as fleets
from tests.faults.bad_lines import LossyBus, insist
from tests.faults.fleet import FleetNode, Kind
from tests.faults.grounds import a_ground
from tests.faults.kinds import KINDS, SHORT, Lengths, Weather
from tests.faults.played import PlayedAgent, PlayedPlugin, a_bus, play, wait_known
from tests.faults.report import Report, report, write
from tests.faults.user import User
from tests.faults.witness import Witness

CALM_WITHIN = 420.0
"""Seconds until every pod runs at the end."""
LOCK_KEYS = ("hami.io/mutex.lock", "cambricon.com/dsmlu.lock")
CRASH = re.compile(r"^Traceback|^\S+ CRITICAL ")
GROUPS = {"leader": "allocators", "follower": "allocators", "NATS": "nats"}
"""Faults that take turns, by their first word."""


class Order(Struct, frozen=True, kw_only=True):
    """One storm to run."""

    seed: int
    pods: int = 300
    nodes: int = 50
    lengths: Lengths = Lengths()
    kinds: tuple[str, ...] = tuple(KINDS)
    binaries: Path | None = None
    kubeconfig: Path | None = None


async def storm(order: Order, folder: Path) -> Report:
    """Run a storm to its end, and say what was seen."""
    began, rng = time.monotonic(), random.Random(order.seed)
    nodes = fleets.fleet(order.nodes)
    async with AsyncExitStack() as stack:
        ground = await stack.enter_async_context(a_ground(folder, binaries=order.binaries, kubeconfig=order.kubeconfig))
        api = await stack.enter_async_context(ApiClient.connect(ground.url))
        bus = await stack.enter_async_context(a_bus(ground.system.at.nats))
        witness = Witness(api, nodes)
        await stack.enter_async_context(_nodes(nodes, api, ground.url, folder / "k"))
        for node in [node for node in nodes if node.kind is Kind.AGENT]:
            await ground.system.add_agent(Agent(node=node.name, cards=_cards_file(node, folder)))
        user = User(api, witness, fleets.pods(nodes, order.pods, rng), rng)
        weather = Weather(
            ground=ground, nodes=nodes, user=user, bus=LossyBus(bus, rng), rng=rng, lengths=order.lengths,
            findings=witness.findings,
        )  # fmt: skip
        async with asyncio.TaskGroup() as tasks:
            players = play(nodes, api, tasks, witness.findings, weather.bus)
            running = [tasks.create_task(work) for work in (witness.run(), players.run())]
            for player in players.nodes.values():
                if isinstance(player, PlayedAgent):
                    running.append(tasks.create_task(player.run()))
                elif isinstance(player, PlayedPlugin):
                    await player.register()
            await wait_known(bus, sum(len(node.cards) for node in nodes))
            log(f"{len(nodes)} nodes are known after {time.monotonic() - began:.0f} s")
            running.append(tasks.create_task(user.run()))
            applied = await _blow(order, weather)
            await _wait_calm(api, user, witness)
            for task in [*running, *(t for p in players.nodes.values() for t in p.living)]:
                task.cancel()
        witness.findings += [str(finding) for finding in await check_settled(ground.system.at.kubeconfig)]
        witness.findings += _crashes(folder, ground.system)
        return report(order.seed, weather, witness, applied, seconds=time.monotonic() - began)


async def _blow(order: Order, weather: Weather) -> list[str]:
    """Let pods arrive, and every fault happen at least once; some at the same time."""
    names = list(order.kinds)
    weather.rng.shuffle(names)
    locks: Mapping[str, asyncio.Lock] = defaultdict(asyncio.Lock)
    weather.user.arrive(order.pods // 4)
    arriving = asyncio.create_task(_arrive(weather.user, pause=_estimate(order) / order.pods))
    async with asyncio.TaskGroup() as tasks:
        for name in names:
            task = tasks.create_task(_apply(name, weather, locks[GROUPS.get(name.split()[0], name)]))
            overlap = weather.rng.uniform(1, 4) if weather.rng.random() < 0.3 else None
            await asyncio.wait({task}, timeout=overlap)
    arriving.cancel()
    while weather.user.arrive(50):
        pass
    return names


def _estimate(order: Order) -> float:
    lengths = [getattr(order.lengths, field) for field in order.lengths.__struct_fields__]
    return 0.7 * (sum(lengths) + 5 * len(order.kinds))


async def _apply(name: str, weather: Weather, turn: asyncio.Lock) -> None:
    async with turn:
        began = time.monotonic()
        log(f"{name} …")
        try:
            await KINDS[name](weather)
        except TimeoutError:
            weather.findings.append(f"{name}: what it waits for did not come in time")
        log(f"{name}: over after {time.monotonic() - began:.1f} s; {len(weather.user.waiting())} pods wait")


async def _arrive(user: User, *, pause: float) -> None:
    while user.arrive(1):
        await asyncio.sleep(pause)


async def _wait_calm(api: ApiClient, user: User, witness: Witness) -> None:
    """Wait until every wanted pod runs and every lock is open."""
    log(f"calm again; {len(user.waiting())} pods wait")
    try:
        async with asyncio.timeout(CALM_WITHIN):
            while user.waiting():
                await asyncio.sleep(0.2)
            while await _locked(api):
                await asyncio.sleep(0.5)
    except TimeoutError:
        waiting = user.waiting()
        left = ", ".join(f"{node} ({lock})" for node, lock in (await _locked(api)).items())
        witness.findings.append(
            f"{len(waiting)} pods wait for ever: {', '.join(waiting)}; locks left: {left or 'none'}"
        )


async def _locked(api: ApiClient) -> dict[str, str]:
    nodes = (await api.get("/api/v1/nodes"))["items"]
    notes = {node["metadata"]["name"]: node["metadata"].get("annotations") or {} for node in nodes}
    return {name: note[key] for name, note in notes.items() for key in LOCK_KEYS if key in note}


def _crashes(folder: Path, system: Stack) -> list[str]:
    """Return which services ended by themselves, and what they logged that no service may."""
    dead = [f"{process.spec.name} ended by itself" for process in system.started.running if not process.is_alive]
    logs = [(file.stem, file.read_text(errors="replace").splitlines()) for file in folder.glob("*.log")]
    return dead + [f"{name}: {line}" for name, lines in logs for line in lines if CRASH.search(line)]


# The fleet


@asynccontextmanager
async def _nodes(nodes: list[FleetNode], api: ApiClient, url: str, root: Path) -> AsyncIterator[None]:
    """Register the nodes, and run the kubelets of those that have one, with their vendors' plugins."""
    for node in nodes:
        await insist(lambda node=node: api.create("/api/v1/nodes", node.object))  # type: ignore[misc]
    wanted = {
        Kind.NPU: {PLUGINS: json.dumps([{"vendor": fleets.NPU, "cards": 1}])},
        Kind.MLU: {PLUGINS: json.dumps([{"vendor": "MLU", "cards": 1, "memory": fleets.MLU_MEMORY}])},
    }
    async with run_kubelets(url, {n.name: wanted.get(n.kind, {}) for n in nodes if n.has_kubelet}, root):
        yield


def _cards_file(node: FleetNode, folder: Path) -> Path:
    cards = [
        {"vendor": "NVIDIA", "id": c.id, "index": i, "count": c.slots, "devmem": c.memory, "devcore": c.cores,
         "type": "A40", "mode": "hami-core"}
        for i, c in enumerate(node.cards)
    ]  # fmt: skip
    file = folder / f"{node.name}.yaml"
    file.write_text(json.dumps(cards))
    return file


# The program


def log(text: str) -> None:
    """Say what goes on, with the time."""
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


def _say_why(broken: BaseExceptionGroup[BaseException]) -> None:
    """Print what broke first, without the groups around it: they are deeper than Python prints."""
    for error in broken.exceptions:
        if isinstance(error, BaseExceptionGroup):
            _say_why(error)
        else:
            traceback.print_exception(error)


def main() -> None:
    """Run one storm."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.storm", description=(__doc__ or "").split("\n")[0])
    add = parser.add_argument
    add("--seed", type=int, default=random.randrange(10**6), help="what to draw everything from")
    add("--pods", type=int, default=300)
    add("--nodes", type=int, default=50)
    add("--short", action="store_true", help="let things stay broken only as long as they must to matter")
    add("--only", action="append", choices=list(KINDS), help="this fault alone (may be repeated)")
    add("--real", type=Path, dest="binaries", help="the folder of etcd, kube-apiserver and kube-scheduler")
    add("--kubeconfig", type=Path, help="a cluster that is there already; its API server is not restarted")
    add("--report", type=Path, help="write the result as JSON to this file too")
    add("--logs", type=Path, help="keep the services' logs in this folder")
    options = parser.parse_args()
    order = Order(
        seed=options.seed, pods=options.pods, nodes=options.nodes, lengths=SHORT if options.short else Lengths(),
        kinds=tuple(options.only or KINDS), binaries=options.binaries, kubeconfig=options.kubeconfig,
    )  # fmt: skip
    logging.getLogger().setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory(prefix="storm-", ignore_cleanup_errors=True) as name:
        folder = options.logs or Path(name)
        folder.mkdir(parents=True, exist_ok=True)
        try:
            seen = asyncio.run(storm(order, folder))
        except BaseExceptionGroup as broken:
            _say_why(broken)
            raise SystemExit(1) from None
    write(seen, log=log)
    if options.report:
        options.report.write_bytes(msgspec.json.format(msgspec.json.encode(seen), indent=1))
    sys.exit(1 if seen.findings else 0)


if __name__ == "__main__":
    main()
