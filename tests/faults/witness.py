"""Watches all pods of a storm, and says at every moment whether a card holds more than it has.

One rule: it believes nobody. It reads what the API server tells, event by event, with a reader of its own, and adds up
HAMi's annotations itself; a pod holds its cards from its Binding until it has ended or is gone.
"""

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import aiohttp
from hami_testkit.cluster.client import ApiClient
from hami_testkit.cluster.status import ApiError
from msgspec import Struct

from tests.faults.fleet import Card, FleetNode

Json = dict[str, Any]
PODS = "/api/v1/namespaces/default/pods"
ALLOCATED = "-devices-allocated"
OVER = ("Succeeded", "Failed")
AGAIN = 0.2


class Share(Struct, frozen=True):
    """What one container holds of one card."""

    card: str
    memory: int
    cores: int


def shares(pod: Json) -> tuple[Share, ...]:
    """Read what a pod holds: ``uuid,word,MiB,percent:`` each, ``;`` after each container."""
    notes = pod["metadata"].get("annotations") or {}
    texts = [value for key, value in notes.items() if key.startswith("hami.io/") and key.endswith(ALLOCATED)]
    entries = [entry.split(",") for text in texts for entry in text.replace(";", ":").split(":") if entry]
    return tuple(Share(card, int(memory), int(cores)) for card, _word, memory, cores in entries)


def is_over(pod: Json) -> bool:
    """Say whether a pod has ended."""
    return (pod.get("status") or {}).get("phase") in OVER


class Witness:
    """What was seen so far; ``findings`` are sentences about what must never be."""

    def __init__(self, api: ApiClient, nodes: Sequence[FleetNode]) -> None:
        self.pods: dict[str, Json] = {}
        self.findings: list[str] = []
        self.binds: list[float] = []
        """When each pod was first seen bound, by the monotonic clock."""
        self.changed = asyncio.Condition()
        self._api = api
        self._cards = {(node.name, card.id): card for node in nodes for card in node.cards}
        self._held: dict[tuple[str, str], dict[str, list[Share]]] = defaultdict(dict)
        self._bound: dict[str, tuple[str, tuple[Share, ...]]] = {}
        self.ended: Counter[str] = Counter()

    async def run(self) -> None:
        """Follow until cancelled; after a break everything is listed again."""
        revision = ""
        while True:
            try:
                revision = await self._follow(revision) if revision else await self._list()
            except (aiohttp.ClientError, ApiError, OSError):
                await asyncio.sleep(AGAIN)
                revision = ""

    async def _list(self) -> str:
        found = await self._api.get(PODS)
        listed = {pod["metadata"]["uid"]: pod for pod in found["items"]}
        # ends before beginnings: a list is one moment, and within it no order holds
        for uid in [uid for uid in self.pods if uid not in listed]:
            self._forget(uid)
        for pod in sorted(listed.values(), key=lambda pod: not is_over(pod)):
            self._see(pod)
        await self._tell()
        return str(found["metadata"]["resourceVersion"])

    async def _follow(self, revision: str) -> str:
        query = {"resourceVersion": revision, "allowWatchBookmarks": "true", "timeoutSeconds": 300}
        async for event in self._api.watch(PODS, **query):
            if event["type"] == "ERROR":
                return ""
            revision = event["object"]["metadata"]["resourceVersion"]
            if event["type"] == "DELETED":
                self._forget(event["object"]["metadata"]["uid"])
            elif event["type"] != "BOOKMARK":
                self._see(event["object"])
            await self._tell()
        return revision

    async def _tell(self) -> None:
        async with self.changed:
            self.changed.notify_all()

    # One pod

    def _see(self, pod: Json) -> None:
        uid = pod["metadata"]["uid"]
        self.pods[uid] = pod
        if is_over(pod):
            self._release(uid)
        elif node := pod["spec"].get("nodeName"):
            self._hold(uid, node, pod)

    def _hold(self, uid: str, node: str, pod: Json) -> None:
        name, now = pod["metadata"]["name"], shares(pod)
        if uid in self._bound:
            if self._bound[uid] != (node, now):
                self.findings.append(f"pod {name} holds other cards than it was bound with: {self._bound[uid]}, {now}")
            return
        self._bound[uid] = (node, now)
        self.binds.append(time.monotonic())
        if len(now) < len(pod["spec"]["containers"]):
            self.findings.append(f"pod {name} was bound to {node} with cards for {len(now)} of its containers")
        for share in now:
            self._held[node, share.card].setdefault(uid, []).append(share)
        for key in {(node, share.card) for share in now}:
            self.findings += over(key, self._cards.get(key), self._names(key))

    def _names(self, key: tuple[str, str]) -> dict[str, list[Share]]:
        return {self.pods[uid]["metadata"]["name"]: held for uid, held in self._held[key].items()}

    def _release(self, uid: str) -> None:
        node, held = self._bound.get(uid, ("", ()))
        for share in held:
            self._held[node, share.card].pop(uid, None)

    def _forget(self, uid: str) -> None:
        self._release(uid)
        self.pods.pop(uid, None)

    @property
    def bound(self) -> int:
        """Count the pods that were ever seen bound."""
        return len(self._bound)

    def fullest(self) -> float:
        """Return how full all cards together are now, by memory."""
        held = sum(s.memory for shares_of in self._held.values() for one in shares_of.values() for s in one)
        return held / sum(card.memory for card in self._cards.values())


def over(key: tuple[str, str], card: Card | None, held: dict[str, list[Share]]) -> Iterator[str]:
    """Say what of one card is given twice."""
    if card is None:
        yield f"node {key[0]} has no card {key[1]}, which {', '.join(held)} hold"
        return
    given = [share for one in held.values() for share in one]
    for what, used, there in (
        ("MiB", sum(share.memory for share in given), card.memory),
        ("percent", sum(share.cores for share in given), card.cores),
        ("slots", len(given), card.slots),
    ):
        if used > there:
            yield f"card {key[1]} of {key[0]} gives {used} {what} of {there} to {', '.join(sorted(held))}"
