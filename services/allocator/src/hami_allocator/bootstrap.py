"""The wiring, read top to bottom: it is the allocator's architecture.

One rule: nothing is made anywhere else, and whatever runs has its parent here.
"""

import asyncio
import gc
import logging
import socket
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from hami_kit.bus import Bus, BusSettings, connect
from hami_kit.clock import Clock, SystemClock
from hami_kit.kube import Kube
from hami_kit.kube.client import NODES, PODS, QUOTAS
from hami_kit.kube.lease import Election
from hami_kit.kube.reflector import Reflector
from hami_kit.settings import load_device_config
from hami_kit.telemetry import Telemetry, setup
from hami_kit.web import health_routes
from hami_kit.web import serve as serve_web
from hami_model.objects import Node, Pod, ResourceQuota
from hami_model.policies import Policies
from hami_model.vendors import build
from msgspec import Struct
from starlette.applications import Starlette

from hami_allocator.agents import Agents
from hami_allocator.announcer import Announcer
from hami_allocator.answers import Answers
from hami_allocator.desk import Desk
from hami_allocator.facts import Fact
from hami_allocator.fence import Term
from hami_allocator.fleet_metrics import FleetPage, OwnMetrics
from hami_allocator.leading import Office
from hami_allocator.liveness import Hearing
from hami_allocator.lock_keeper import LockKeeper
from hami_allocator.means import Means, only_leading
from hami_allocator.node_locks import NodeLocks
from hami_allocator.nodes import Nodes
from hami_allocator.process import Process, Views
from hami_allocator.reconcile import Reconcile
from hami_allocator.retry import Backoff
from hami_allocator.settings import AllocatorSettings
from hami_allocator.takeover import Takeover
from hami_allocator.world import World
from hami_allocator.writer import Writer

LEASE = "hami-allocator"

log = logging.getLogger(__name__)


async def serve(settings: AllocatorSettings, stop: asyncio.Event) -> None:
    """Run an allocator until told to stop."""
    async with running(settings, stop) as process, asyncio.TaskGroup() as tasks:
        settling = tasks.create_task(settle(process), name="settling")
        await process.wait_ended()
        settling.cancel()


async def settle(process: Process) -> None:
    """Have the collector pass over what the first lists brought: it stays, and to walk it would hold up everybody."""
    await process.wait_settled()
    gc.collect()
    gc.freeze()


@asynccontextmanager
async def running(settings: AllocatorSettings, stop: asyncio.Event) -> AsyncIterator[Process]:
    """Run an allocator for the length of a block, or until ``stop`` is set."""
    clock = SystemClock()
    for remark in settings.remarks:
        log.warning("%s", remark)
    telemetry = setup("hami-allocator", settings)
    writer = Writer()
    world = new_world(settings, clock)
    malformed = MalformedHook(world, writer)
    bus_settings = BusSettings.of(settings)
    try:
        async with (
            Kube.connect(settings.kubeconfig or None) as kube,
            connect(bus_settings, name=LEASE, telemetry=telemetry, clock=clock, on_malformed=malformed) as bus,
        ):
            shell = Shell(
                settings=settings, identity=new_identity(), kube=kube, bus=bus, clock=clock, telemetry=telemetry
            )
            process = new_process(shell, world, writer, malformed)
            health = serve_web(web_app(shell, process), settings.health_listen, variable="HAMI_HEALTH_LISTEN")
            async with health as address, process.running(stop):
                process.address = address
                yield process
    finally:
        await asyncio.to_thread(telemetry.close)


def new_identity() -> str:
    """Return a name that no other process start ever had: the Lease's holder, and the term."""
    return f"{socket.gethostname()}-{uuid.uuid4().hex[:12]}"


def new_world(settings: AllocatorSettings, clock: Clock) -> World:
    """Make the memory: which vendors there are, which policies hold, and what is known (nothing yet)."""
    config = load_device_config(settings.device_config)
    catalog = build(config, ascend=settings.enable_ascend, iluvatar=settings.enable_iluvatar)
    policies = Policies(node=settings.node_scheduler_policy, card=settings.gpu_scheduler_policy)
    return World(catalog, policies, Nodes(catalog, settings.selector, Hearing(clock.monotonic())))


class MalformedHook:
    """Tells of whatever a watch or the bus brings that cannot be read; nothing else is affected."""

    def __init__(self, world: World, writer: Writer) -> None:
        self._world = world
        self._writer = writer

    def __call__(self, what: str, sentence: str) -> None:
        """Take one such thing."""
        fact = Fact(kind="malformed", subject=what, data={"error": sentence})
        self._writer.tell(lambda: self._world.duty.tell(fact))


class Shell(Struct, frozen=True, kw_only=True):
    """What connects the process to the outside."""

    settings: AllocatorSettings
    identity: str
    """Who this process is, in the Lease and in the marks on pods; new for each process start."""
    kube: Kube
    bus: Bus
    clock: Clock
    telemetry: Telemetry


def new_process(shell: Shell, world: World, writer: Writer, malformed: MalformedHook) -> Process:
    """Wire the parts of one allocator."""
    settings, identity, kube, clock = shell.settings, shell.identity, shell.kube, shell.clock
    election = Election(kube, namespace=settings.lease_namespace, name=LEASE, identity=identity, clock=clock)
    leaders = kube.guarded(only_leading(election))
    agents = Agents(world, clock)
    reconcile = Reconcile(world, writer, agents, clock)
    views = new_views(kube, reconcile, malformed)
    announcer = Announcer(
        kube=kube,
        bus=shell.bus,
        clock=clock,
        identity=identity,
        component=settings.scheduler_name,
        metrics=shell.telemetry.metrics,
        is_busy=writer.is_busy,
    )
    backoff = Backoff()
    locks = NodeLocks(timeout=settings.node_lock_timeout)
    means = Means(
        world=world,
        writer=writer,
        desk=Desk(world, clock),
        kube=leaders,
        bus=shell.bus,
        locks=LockKeeper(locks, leaders, clock, backoff, world.nodes.node),
        lease=election,
        term=Term(identity),
        clock=clock,
        telemetry=shell.telemetry,
        backoff=backoff,
        bind_timeout=settings.bind_timeout,
    )
    office = Office(
        means=means,
        agents=agents,
        reconcile=reconcile,
        takeover=Takeover(kube=leaders, world=world, writer=writer, backoff=backoff),
        announcer=announcer,
        own=OwnMetrics(shell.telemetry.metrics, world, writer, reconcile),
        pods=views.pods,
        reservation_timeout=settings.reservation_timeout,
    )
    answers = Answers(world, writer, leader=lambda: election.holder, is_synced=lambda: views.synced)
    return Process(office=office, election=election, views=views, answers=answers)


def new_views(kube: Kube, reconcile: Reconcile, malformed: MalformedHook) -> Views:
    """Wire the watches to the books."""
    return Views(
        nodes=Reflector(
            kube,
            NODES,
            Node,
            on_list=reconcile.nodes_listed,
            on_change=reconcile.node_changed,
            on_malformed=malformed,
        ),
        pods=Reflector(
            kube,
            PODS,
            Pod,
            on_list=reconcile.pods_listed,
            on_change=reconcile.pod_changed,
            keep=reconcile.concerns,
            on_malformed=malformed,
        ),
        quotas=Reflector(
            kube,
            QUOTAS,
            ResourceQuota,
            on_list=reconcile.quotas_listed,
            on_change=reconcile.quota_changed,
            on_malformed=malformed,
        ),
    )


def web_app(shell: Shell, process: Process) -> Starlette:
    """Return /healthz, /readyz and /metrics."""
    means = process.office.means
    page = FleetPage(means.world, means.writer, shell.clock, legacy=shell.settings.legacy_metrics)
    checks = {"synced": process.check_synced, "bus": process.check_bus, "leader": process.check_leader}
    return Starlette(routes=health_routes(checks, shell.telemetry.metrics, page=page.page))
