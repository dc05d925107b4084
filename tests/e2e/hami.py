"""HAMi 2.10's scheduler, played: what it reads of nodes and pods, and what it writes when it places one.

One rule: it shares no code with ours. It reads as strictly as Go does, so that what it cannot read HAMi could not
either; where to place a pod it decides in the simplest way, since that is not what anybody looks at here.
"""

import time
from datetime import UTC, datetime
from typing import Any

import msgspec
from hami_testkit.cluster.client import ApiClient
from msgspec import Struct

Json = dict[str, Any]
PODS = "/api/v1/namespaces/default/pods"
LOCK, HANDSHAKE, REGISTER = "hami.io/mutex.lock", "hami.io/node-handshake", "hami.io/node-nvidia-register"
NODE, PHASE = "hami.io/vgpu-node", "hami.io/bind-phase"
TO_ALLOCATE, ALLOCATED = "hami.io/vgpu-devices-to-allocate", "hami.io/vgpu-devices-allocated"
OVER = ("Succeeded", "Failed")


class Card(Struct, frozen=True):
    """A card in a node's register annotation; Go leaves out what is zero."""

    id: str
    count: int
    devmem: int
    devcore: int
    type: str
    index: int = 0
    numa: int = 0
    mode: str = ""
    health: bool = False


class Share(Struct, frozen=True):
    """One card of one container."""

    uuid: str
    memory: int
    cores: int


class Use(Struct, frozen=True):
    """What is used of a card."""

    slots: int = 0
    memory: int = 0
    cores: int = 0


Uses = dict[str, Use]


def decode_node(text: str) -> list[Card]:
    """Read a register annotation (``UnMarshalNodeDevices``)."""
    return msgspec.json.decode(text, type=list[Card])


def decode_pod(text: str) -> list[list[Share]]:
    """Read a pod's annotation (``DecodePodDevices``): a group for each container, empty ones too."""
    return [[_share(entry) for entry in group.split(":") if entry] for group in text.split(";")]


def _share(entry: str) -> Share:
    uuid, _word, memory, cores, *_ = entry.split(",")
    return Share(uuid, int(memory), int(cores))


def collapse(pod: Json) -> Uses:
    """Say what a pod takes of each card: the largest init container, or all others together."""
    groups = decode_pod(pod["metadata"]["annotations"].get(ALLOCATED, ""))
    count = len(pod["spec"].get("initContainers") or ())
    init = [share for group in groups[:count] for share in group]
    main = [share for group in groups[count:] for share in group]
    return {uuid: _taken(uuid, init, main) for uuid in {share.uuid for share in (*init, *main)}}


def _taken(uuid: str, init: list[Share], main: list[Share]) -> Use:
    first, rest = ([share for share in shares if share.uuid == uuid] for shares in (init, main))
    return Use(
        slots=max(1, len(rest)),
        memory=max(max((s.memory for s in first), default=0), sum(s.memory for s in rest)),
        cores=max(max((s.cores for s in first), default=0), sum(s.cores for s in rest)),
    )


class Hami:
    """The scheduler, as it sees a cluster."""

    def __init__(self, api: ApiClient) -> None:
        self.api = api

    # What it sees

    async def cards(self) -> dict[str, list[Card]]:
        """Return the cards of every node that has registered some."""
        nodes = (await self.api.get("/api/v1/nodes"))["items"]
        texts = {n["metadata"]["name"]: (n["metadata"].get("annotations") or {}).get(REGISTER) for n in nodes}
        return {name: decode_node(text) for name, text in texts.items() if text}

    async def use(self) -> Uses:
        """Return what is used of each card, by the pods' annotations alone."""
        used: dict[str, Use] = {}
        for pod in (await self.api.get("/api/v1/pods"))["items"]:
            is_over = pod["status"].get("phase") in OVER
            if is_over or NODE not in (pod["metadata"].get("annotations") or {}):
                continue
            for uuid, use in collapse(pod).items():
                had = used.get(uuid, Use())
                used[uuid] = Use(had.slots + use.slots, had.memory + use.memory, had.cores + use.cores)
        return used

    async def locks(self) -> dict[str, str]:
        """Return who holds which node."""
        nodes = (await self.api.get("/api/v1/nodes"))["items"]
        found = {n["metadata"]["name"]: (n["metadata"].get("annotations") or {}).get(LOCK) for n in nodes}
        return {name: text for name, text in found.items() if text}

    # What it does

    async def ask(self) -> None:
        """Ask every node's plugin whether it lives, as each cycle does; the NVIDIA one never answers."""
        for name in await self.cards():
            await self._annotate(f"/api/v1/nodes/{name}", {HANDSHAKE: f"Requesting_{datetime.now():%Y-%m-%d %H:%M:%S}"})

    async def schedule(self, name: str, *, node: str) -> None:
        """Place a pod on a node from its filter to its Binding."""
        await self.begin(name, node=node)
        target = {"apiVersion": "v1", "kind": "Node", "name": node}
        body = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": name}, "target": target}
        await self.api.create(f"{PODS}/{name}/binding", body)

    async def begin(self, name: str, *, node: str) -> None:
        """Do everything but the Binding: filter's annotations and label, the lock, the phase."""
        pod = await self.api.get(f"{PODS}/{name}")
        now = str(int(time.time()))
        text = "".join(f"{group};" for group in await self._groups(pod, node) if group)  # 2.10 drops empty ones
        notes = {NODE: node, "hami.io/vgpu-time": now, TO_ALLOCATE: text, ALLOCATED: text}
        await self.api.patch(f"{PODS}/{name}", {"metadata": {"annotations": notes, "labels": {NODE: node}}})
        await self.lock(name, node=node)
        await self._annotate(f"{PODS}/{name}", {PHASE: "allocating", "hami.io/bind-time": now})

    async def lock(self, name: str, *, node: str) -> None:
        """Let a pod have a node for itself."""
        if held := (await self.locks()).get(node):
            raise AssertionError(f"node {node} is locked: {held}")
        stamp = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        await self._annotate(f"/api/v1/nodes/{node}", {LOCK: f"{stamp},default,{name}"})

    async def _groups(self, pod: Json, node: str) -> list[str]:
        """Choose for each container the cards that have most left."""
        cards = {card.id: card for card in (await self.cards())[node]}
        used = {uuid: use.memory for uuid, use in (await self.use()).items()}
        groups = []
        for container in (*(pod["spec"].get("initContainers") or ()), *pod["spec"]["containers"]):
            count, memory, cores = (_asked(container, name) for name in ("gpu", "gpumem", "gpucores"))
            left = sorted(cards, key=lambda uuid: used.get(uuid, 0))[:count]
            used |= {uuid: used.get(uuid, 0) + memory for uuid in left}
            if any(used[uuid] > cards[uuid].devmem for uuid in left):
                raise AssertionError(f"{pod['metadata']['name']} does not fit on {node}")
            groups.append("".join(f"{uuid},NVIDIA,{memory},{cores}:" for uuid in left))
        return groups

    async def _annotate(self, path: str, notes: dict[str, str]) -> None:
        await self.api.patch(path, {"metadata": {"annotations": notes}})


def _asked(container: Json, name: str) -> int:
    text = str((container["resources"].get("limits") or {}).get(f"nvidia.com/{name}", 0))
    return int(text.replace("k", "000"))
