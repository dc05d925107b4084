"""The demo's result as data: who got what, why the others wait, and each pod's trace."""

import asyncio
from collections.abc import Callable, Sequence

from hami_kit import traces
from hami_kit.telemetry import TRACEPARENT_ANNOTATION
from hami_kit.traces import Branch, TraceUnavailable
from hami_model.bus.messages import Explanation, NodeVerdict
from msgspec import Struct

from hami_testkit.demo_cluster import DemoCluster, Json, is_running

SETTLE = 5.0
"""Seconds that the last spans of a pod may take to arrive."""

LAST_SPAN = "Allocate"


class Slice(Struct, frozen=True):
    """One card's slice for one container; memory in MiB, cores in percent."""

    container: str
    id: str
    memory_mib: int
    cores: int


class TraceTree(Struct, frozen=True):
    """A span and those it caused."""

    name: str
    ms: float
    children: list["TraceTree"]


class PlacedPod(Struct, frozen=True, kw_only=True):
    """A pod that runs, with everything it got."""

    name: str
    namespace: str
    node: str
    devices: list[Slice]
    env: dict[str, dict[str, str]]
    trace: TraceTree | None


class RefusedPod(Struct, frozen=True, kw_only=True):
    """A pod that no node takes: node -> card -> why; the card ``*`` stands for a node without such cards."""

    name: str
    nodes: dict[str, dict[str, str]]


class Report(Struct, frozen=True, kw_only=True):
    """The whole demo."""

    placed: list[PlacedPod]
    refused: list[RefusedPod]
    seconds: float


async def collect(cluster: DemoCluster, pods: Sequence[Json], *, seconds: Callable[[], float]) -> Report:
    """Read everything about the pods from where users would."""
    bookings = {b.allocation.pod.uid: b.allocation for b in (await cluster.snapshot()).bookings}
    placed, refused = [], []
    for pod in pods:
        meta = pod["metadata"]
        if not is_running(pod):
            why = await cluster.explain(pod)
            refused.append(RefusedPod(name=meta["name"], nodes=_reasons(why)))
            continue
        allocation = bookings.get(meta["uid"])
        devices = [
            Slice(container.name, grant.uuid, grant.memory, grant.cores)
            for container in (allocation.containers if allocation else ())
            for grant in container.grants
        ]
        placed.append(
            PlacedPod(
                name=meta["name"],
                namespace=meta["namespace"],
                node=pod["spec"]["nodeName"],
                devices=devices,
                env=cluster.environment(pod),
                trace=await _trace(cluster, pod),
            )
        )
    return Report(placed=placed, refused=refused, seconds=round(seconds(), 2))


def _reasons(why: Explanation | None) -> dict[str, dict[str, str]]:
    return {verdict.node: _cards(verdict) for verdict in (why.nodes if why else [])}


def _cards(verdict: NodeVerdict) -> dict[str, str]:
    if not verdict.cards:
        return {"*": verdict.text}
    return {
        card.device: f"{card.reason}: wanted {card.wanted}, had {card.had}" if card.wanted else card.reason
        for card in verdict.cards
    }


async def _trace(cluster: DemoCluster, pod: Json) -> TraceTree | None:
    """Return the pod's trace, once the device plugin's part of it has arrived where our agent serves the node."""
    parent = (pod["metadata"].get("annotations") or {}).get(TRACEPARENT_ANNOTATION, "")
    if not parent:
        return None
    served = pod["spec"]["nodeName"] in {agent.node for agent in cluster.system.plan.agents}
    tree: TraceTree | None = None
    try:
        async with asyncio.timeout(SETTLE):
            while tree is None or (served and LAST_SPAN not in names(tree)):
                tree = await _read(cluster, parent.split("-")[1])
                await asyncio.sleep(0.05)
    except TimeoutError:
        return tree
    return tree


async def _read(cluster: DemoCluster, trace_id: str) -> TraceTree | None:
    try:
        roots = traces.tree(await traces.fetch(cluster.system.at.traces, trace_id))
    except TraceUnavailable:
        return None
    return _plain(roots[0]) if roots else None


def _plain(branch: Branch) -> TraceTree:
    return TraceTree(branch.name, round(branch.ms, 2), [_plain(child) for child in branch.children])


def names(tree: TraceTree) -> set[str]:
    """Return the names of all spans of a tree."""
    return {tree.name}.union(*(names(child) for child in tree.children))
