"""The demo's result as data: who got what, why the others wait, and each pod's trace."""

import asyncio
from collections.abc import Callable, Sequence

from hami_kit import traces
from hami_kit.telemetry import TRACEPARENT_ANNOTATION
from hami_kit.traces import Branch, TraceUnavailable
from hami_model.allocation import Allocation
from hami_model.bus.messages import Explanation, NodeVerdict
from msgspec import Struct

from hami_testkit.demo_cluster import DemoCluster, Json, is_running
from hami_testkit.demo_takeover import LeaderChange

SETTLE = 30.0
"""Seconds that the last spans of a pod may take to arrive."""

WAY = frozenset({"webhook", "filter", "bind", "confirm"})
"""The spans of every pod's way; where our agent serves the node, one ``Allocate`` for each device container too."""


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


class PlacedPod(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A pod that runs, with everything it got."""

    name: str
    namespace: str
    node: str
    devices: list[Slice]
    env: dict[str, dict[str, str]]
    """By container."""
    trace: TraceTree | None
    files: dict[str, list[str]] = {}
    """Device files, by container; absent where nobody got any."""


class RefusedPod(Struct, frozen=True, kw_only=True):
    """A pod that no node takes: node -> card -> why; the card ``*`` stands for a node without such cards."""

    name: str
    nodes: dict[str, dict[str, str]]


class Report(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The whole demo; ``leader_change`` is there where one of several allocators was killed."""

    placed: list[PlacedPod]
    refused: list[RefusedPod]
    seconds: float
    leader_change: LeaderChange | None = None


async def collect(cluster: DemoCluster, pods: Sequence[Json], *, seconds: Callable[[], float]) -> Report:
    """Read everything about the pods from where users would, about all of them at once."""
    bookings = {b.allocation.pod.uid: b.allocation for b in (await cluster.snapshot()).bookings}
    running = [pod for pod in pods if is_running(pod)]
    waiting = [pod for pod in pods if not is_running(pod)]
    placed = await asyncio.gather(*(_placed(cluster, pod, bookings.get(pod["metadata"]["uid"])) for pod in running))
    refused = await asyncio.gather(*(_refused(cluster, pod) for pod in waiting))
    return Report(placed=placed, refused=refused, seconds=round(seconds(), 2))


async def _placed(cluster: DemoCluster, pod: Json, allocation: Allocation | None) -> PlacedPod:
    devices = [
        Slice(container.name, grant.uuid, grant.memory, grant.cores)
        for container in (allocation.containers if allocation else ())
        for grant in container.grants
    ]
    ours = pod["spec"]["nodeName"] in {agent.node for agent in cluster.system.plan.agents}
    given = await cluster.given(pod)
    return PlacedPod(
        name=pod["metadata"]["name"],
        namespace=pod["metadata"]["namespace"],
        node=pod["spec"]["nodeName"],
        devices=devices,
        env={container: gift.envs for container, gift in given.items() if gift.envs},
        files={container: [d.container for d in gift.devices] for container, gift in given.items() if gift.devices},
        trace=await _trace(cluster, pod, served=len({d.container for d in devices}) if ours else 0),
    )


async def _refused(cluster: DemoCluster, pod: Json) -> RefusedPod:
    return RefusedPod(name=pod["metadata"]["name"], nodes=_reasons(await cluster.explain(pod)))


def _reasons(why: Explanation | None) -> dict[str, dict[str, str]]:
    return {verdict.node: _cards(verdict) for verdict in (why.nodes if why else [])}


def _cards(verdict: NodeVerdict) -> dict[str, str]:
    if not verdict.cards:
        return {"*": verdict.text}
    return {
        card.device: f"{card.reason}: wanted {card.wanted}, had {card.had}" if card.wanted else card.reason
        for card in verdict.cards
    }


async def _trace(cluster: DemoCluster, pod: Json, served: int) -> TraceTree | None:
    """Return the pod's trace, once its way has arrived with ``served`` Allocates, or what there is after a while."""
    parent = (pod["metadata"].get("annotations") or {}).get(TRACEPARENT_ANNOTATION, "")
    if not parent:
        return None
    tree: TraceTree | None = None
    try:
        async with asyncio.timeout(SETTLE):
            while not _is_whole(tree := await _read(cluster, parent.split("-")[1]), served):
                await asyncio.sleep(0.2)
    except TimeoutError:
        return tree
    return tree


def _is_whole(tree: TraceTree | None, served: int) -> bool:
    found = names(tree) if tree is not None else []
    return set(found) >= WAY and found.count("Allocate") >= served


async def _read(cluster: DemoCluster, trace_id: str) -> TraceTree | None:
    try:
        roots = traces.tree(await traces.fetch(cluster.system.at.traces, trace_id))
    except TraceUnavailable:
        return None
    return _plain(roots[0]) if roots else None


def _plain(branch: Branch) -> TraceTree:
    return TraceTree(branch.name, round(branch.ms, 2), [_plain(child) for child in branch.children])


def names(tree: TraceTree) -> list[str]:
    """Return the names of all spans of a tree."""
    return [tree.name, *(name for child in tree.children for name in names(child))]
