"""``/metrics``: the fleet's page, made aside from a copy and kept for 15 seconds, and the process' own metrics.

One rule: reading the page never holds up deciding, however often it is asked for.
"""

import asyncio
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import chain

import msgspec
from hami_kit import build
from hami_kit.clock import Clock
from hami_kit.pages import Packed
from hami_kit.telemetry import Metrics
from hami_model.allocation import State
from hami_model.bus.messages import Booking, NodeUse
from hami_model.fleet import Fleet
from hami_model.life import Entry
from hami_model.quota import Quotas
from hami_model.vendor import Vendor
from msgspec import Struct
from prometheus_client import Gauge

from hami_allocator.answers import node_use
from hami_allocator.in_percent import InPercent
from hami_allocator.metrics_page import (
    MigInstance,
    QuotaUse,
    Sample,
    container_samples,
    mig_samples,
    node_samples,
    page,
    quota_samples,
)
from hami_allocator.reconcile import Reconcile
from hami_allocator.world import World
from hami_allocator.writer import Writer

KEPT = 15.0
UNCONFIRMED_AFTER = 300.0
"""Seconds after which a bound pod that nobody has served is worth an event and counts here."""
MIG_KEY = "hami.io/vgpu-mig-allocations"


class Copy(Struct, frozen=True):
    """What the page is made of."""

    fleet: Fleet
    quotas: Quotas
    entries: tuple[Entry, ...]
    names: tuple[str, ...]


class FleetPage:
    """The page of all cards, quotas and containers."""

    def __init__(self, world: World, writer: Writer, clock: Clock, *, legacy: bool) -> None:
        self._world = world
        self._writer = writer
        self._clock = clock
        self._legacy = legacy
        self._page = Packed()
        self._made: float | None = None
        self._making = asyncio.Lock()

    async def page(self) -> Packed:
        """Return the page, at most 15 seconds old."""
        async with self._making:
            now = self._clock.monotonic()
            if self._made is None or now - self._made >= KEPT:
                copy = await self._writer.ask(self._copy)
                self._page = await asyncio.to_thread(self._render, copy)
                self._made = now
            return self._page

    def _copy(self) -> Copy:
        world = self._world
        return Copy(world.fleet.snapshot(), world.quotas.snapshot(), world.ledger.entries, world.fleet.nodes)

    def _render(self, copy: Copy) -> Packed:
        vendors = self._world.catalog.vendors
        percent = InPercent.of(vendors)
        uses = (percent.node(self._use(copy, name)) for name in copy.names)
        held = (Booking(allocation=e.allocation, state=e.state) for e in copy.entries)
        bookings = (percent.booking(booking, copy.fleet.devices) for booking in held)
        samples = chain(
            node_samples(uses, legacy=self._legacy),
            self._mig(copy),
            quota_samples(quota_uses(copy.quotas, vendors), legacy=self._legacy),
            container_samples(bookings, legacy=self._legacy),
            own_samples(copy, self._clock.monotonic()),
        )
        return page(samples, before=build_info())

    def _use(self, copy: Copy, node: str) -> NodeUse:
        return node_use(copy.fleet, self._world.nodes, node)

    def _mig(self, copy: Copy) -> Iterator[Sample]:
        names = set(copy.names)
        for entry in copy.entries:
            text = entry.pod.annotations.get(MIG_KEY)
            if text and entry.node in names:
                try:
                    instances = msgspec.json.decode(text, type=list[MigInstance])
                except (msgspec.DecodeError, RecursionError):  # the latter: nested without end
                    continue
                yield from mig_samples(self._use(copy, entry.node), instances, legacy=self._legacy)


def own_samples(copy: Copy, now: float) -> Iterator[Sample]:
    """Return what HAMi does not count: allocations whose card is not there, and pods that nobody has served."""
    drifting = sum(len(copy.fleet.drift(node)) for node in {entry.node for entry in copy.entries})
    waiting = (e for e in copy.entries if e.state is State.BOUND and now - e.since >= UNCONFIRMED_AFTER)
    yield Sample("hami_allocator_drifting_devices", "", drifting)
    yield Sample("hami_allocator_unconfirmed_pods", "", sum(1 for _ in waiting))


def quota_uses(quotas: Quotas, vendors: Iterable[Vendor]) -> tuple[QuotaUse, ...]:
    """Return every limit and use of every namespace, in the limit's own unit as it stands in the ResourceQuota."""
    uses = []
    for namespace in quotas.namespaces:
        for vendor in vendors:
            memory, cores = quotas.used(namespace, vendor.word)
            amounts = (
                (vendor.resources.memory, memory // max(vendor.resources.memory_factor, 1)),
                (vendor.resources.cores, cores),
            )
            for name, used in amounts:
                limit = quotas.limit(namespace, name) if name else None
                if name and (used or limit is not None):
                    uses.append(QuotaUse(namespace=namespace, name=name, used=used, limit=limit))
    return tuple(uses)


def build_info() -> str:
    """Return HAMi's build metric with what a Python build can say."""
    text = ",".join(f'{key}="{value}"' for key, value in build.build_labels("hami-allocator").items())
    return f"# HELP {build.NAME} {build.HELP}\n# TYPE {build.NAME} gauge\n{build.NAME}{{{text}}} 1\n"


class OwnMetrics:
    """Gauges that are read when the page is."""

    def __init__(self, metrics: Metrics, world: World, writer: Writer, reconcile: Reconcile) -> None:
        leads = Gauge("hami_allocator_leading", "1 while this process leads", registry=metrics)
        self.leading = leads
        Gauge("hami_allocator_letters", "Letters not opened yet", registry=metrics).set_function(lambda: writer.waiting)
        Gauge(
            "hami_allocator_unaccounted", "Bound pods whose devices are unknown or doubted", registry=metrics
        ).set_function(lambda: len(reconcile.complaints))
        allocations = Gauge("hami_allocator_allocations", "Allocations by state", ["state"], registry=metrics)
        for state in (State.RESERVED, State.BINDING, State.BOUND, State.ACTIVE):
            allocations.labels(state).set_function(partial(_count, world, state))


def _count(world: World, state: State) -> int:
    return sum(entry.state is state for entry in world.ledger.entries)
