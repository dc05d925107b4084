"""Reading a whole cluster for the checker.

One rule: pods are listed before nodes, so that a card is there before the pod that holds it; and what a cluster at work
breaks for moments counts only when two looks find it.
"""

import asyncio
from collections.abc import Iterable, Iterator
from typing import TypeVar

import msgspec
from hami_model.catalog import Catalog
from hami_model.inspection import RULES, Finding, Sight, inspect
from hami_model.objects import Node, Pod
from msgspec import Struct, field

from hami_kit.clock import Clock, SystemClock
from hami_kit.kube.client import NODES, PODS, Kube
from hami_kit.kube.server import about

T = TypeVar("T")

BETWEEN_LOOKS = 2.0
"""Seconds between two looks: a confirmation and the end of a node lock are one second apart at most."""

SCHEDULER = "hami-scheduler"

_PASSING = frozenset(rule.name for rule in RULES if rule.passes)


class _Condition(Struct, frozen=True):
    type: str = ""


class _Status(Struct, frozen=True):
    conditions: list[_Condition] | None = None


class _Tried(Struct, frozen=True):
    """Of a pod, only whether any scheduler has said something."""

    status: _Status = field(default_factory=_Status)

    def __bool__(self) -> bool:
        return any(condition.type == "PodScheduled" for condition in self.status.conditions or ())


_POD = msgspec.json.Decoder(Pod)
_NODE = msgspec.json.Decoder(Node)
_TRIED = msgspec.json.Decoder(_Tried)


async def see(kube: Kube, *, scheduler: str = SCHEDULER, clock: Clock | None = None) -> Sight:
    """Read all pods and nodes; what cannot be read is named in the sight."""
    unread: list[str] = []
    pods: list[Pod] = []
    untried: set[str] = set()
    async for page in kube.pages(PODS, {}):
        for raw, pod in _read(_POD, page.items, "a pod", unread):
            pods.append(pod)
            if not pod.spec.node_name and not _TRIED.decode(raw):
                untried.add(pod.metadata.uid)
    nodes: list[Node] = []
    async for page in kube.pages(NODES, {}):
        nodes += [node for _, node in _read(_NODE, page.items, "a node", unread)]
    server = await about(kube, clock or SystemClock())
    return Sight(
        nodes=nodes, pods=pods, now=server.time, scheduler=scheduler, untried=frozenset(untried), unread=tuple(unread)
    )


def _read(
    decoder: "msgspec.json.Decoder[T]", items: Iterable[msgspec.Raw], what: str, unread: list[str]
) -> Iterator[tuple[msgspec.Raw, T]]:
    for raw in items:
        try:
            yield raw, decoder.decode(raw)
        except msgspec.DecodeError as e:
            unread.append(f"{what}: {e}")


async def inspect_cluster(
    kube: Kube, catalog: Catalog, *, scheduler: str = SCHEDULER, clock: Clock | None = None
) -> tuple[Finding, ...]:
    """Return everything that is wrong with nodes and pods, by what the API server shows."""
    first = inspect(await see(kube, scheduler=scheduler, clock=clock), catalog)
    if not any(finding.rule in _PASSING for finding in first):
        return first
    await asyncio.sleep(BETWEEN_LOOKS)
    seen = {_key(finding) for finding in first}
    second = inspect(await see(kube, scheduler=scheduler, clock=clock), catalog)
    return tuple(finding for finding in second if finding.rule not in _PASSING or _key(finding) in seen)


def _key(finding: Finding) -> tuple[str, str, str, str]:
    return finding.rule, finding.node, finding.card, finding.pod
