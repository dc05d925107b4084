"""A crowd of short pods on one node: they come, end, are deleted and forced out while others are admitted.

One rule: it believes the containers. What each of them told of itself is held against the annotation that the Binding
wrote and against what the manifest asked for; a device ID belongs to whose processes run, whatever anybody's books say.
"""

import asyncio
import itertools
import json
import random
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from hami_testkit.cluster.client import Informer
from msgspec import Struct, field

from tests.e2e.ground import DEADLINE, OVER, PODS, Ground, Json
from tests.e2e.pods import a_container, a_pod, asked, booked, given

LOOK_EVERY = 0.1
"""Seconds between two looks at who holds which IDs."""


class Account(Struct):
    """What was seen of a crowd."""

    right: int = 0
    """Containers that saw exactly the cards and the memory of their part of the annotation."""
    findings: list[str] = field(default_factory=list)
    """What must never be, in sentences."""
    refused: list[str] = field(default_factory=list)
    """What the kubelet said of pods that it rejected."""
    broken: list[str] = field(default_factory=list)
    """How containers ended that did not do what they were told."""
    ends: Counter[str] = field(default_factory=Counter)
    looks: int = 0
    """How often it was looked whether an ID is in two running pods."""
    seconds: float = 0.0

    def __str__(self) -> str:
        how = ", ".join(f"{count} {word}" for word, count in sorted(self.ends.items()))
        return (
            f"{self.ends.total()} pods in {self.seconds:.0f} s ({how}): {self.right} containers saw their own cards, "
            f"{len(self.findings)} findings, {len(self.refused)} pods refused, {len(self.broken)} broken; "
            f"IDs looked at {self.looks} times"
        )


class Crowd:
    """Pods of one test, so many at a time."""

    def __init__(self, ground: Ground, *, seed: int = 7, at_once: int = 12) -> None:
        self.account = Account()
        self.ids = HeldIds(ground.node.root / "device-plugins")
        self._ground = ground
        self._rng = random.Random(seed)
        self._turn = asyncio.Semaphore(at_once)
        self._numbers = itertools.count(1)
        self._pods: dict[str, Json] = {}
        self._gone: dict[str, Json] = {}
        self._judged = 0
        self._informer = Informer(ground.api, PODS, self._see)

    async def run(self, count: int, *beside: Coroutine[Any, Any, None]) -> Account:
        """Let so many pods live to their end while other things happen, and say what was seen."""
        began = time.monotonic()
        async with asyncio.TaskGroup() as tasks:
            watching = [tasks.create_task(self._informer.run()), tasks.create_task(self._look())]
            async with asyncio.TaskGroup() as pods:
                for work in (*beside, *(self._one(next(self._numbers)) for _ in range(count))):
                    pods.create_task(work)
            for task in watching:
                task.cancel()
        self.account.seconds += time.monotonic() - began
        self.account.findings += sorted(self.ids.doubled)
        return self.account

    async def wait_judged(self, count: int) -> None:
        """Wait until so many pods have been judged."""
        async with asyncio.timeout(DEADLINE + count):
            while self._judged < count:
                await asyncio.sleep(LOOK_EVERY)

    # One pod

    async def _one(self, number: int) -> None:
        name = f"p-{number}"
        async with self._turn:
            how = self._rng.choice(("ended", "ended", "deleted", "forced out"))
            self.account.ends[how] += 1
            await self._ground.create(self._manifest(name, number, ends=how == "ended"))
            waited = OVER if how == "ended" else ("Running", *OVER)
            pod = await self._until(name, lambda: self._pods.get(name, {}).get("status", {}).get("phase") in waited)
            if pod["status"]["phase"] == "Running":
                await self._until(name, lambda: self._has_told(pod))
                await asyncio.sleep(self._rng.uniform(0, 0.5))
            self._judge(pod)
            await self._ground.delete(name, grace=0 if how == "forced out" else None)
            await self._until(name, lambda: name in self._gone)

    def _manifest(self, name: str, number: int, *, ends: bool) -> Json:
        """Draw a pod: one or two containers, with or without an init container; sizes that no other pod has."""

        def container(word: str, at: int, *, stays: bool) -> Json:
            seconds = -1 if stays else round(self._rng.uniform(0, 0.6), 2)
            return a_container(word, cards=self._rng.choice((1, 1, 2)), memory=3 * number + at, seconds=seconds)

        init = [container("first", 0, stays=False)] if self._rng.random() < 0.4 else []
        main = [container(word, at, stays=not ends) for at, word in enumerate(self._rng.choice(("a", "ab")), 1)]
        return a_pod(name, *main, init=init, out=self._ground.node.out)

    def _has_told(self, pod: Json) -> bool:
        """Say whether every container has told what it was given: a moment after the pod is said to run."""
        return all(self._ground.told(pod, container["name"]) for container in pod["spec"]["containers"])

    def _judge(self, pod: Json) -> None:
        """Compare what the pod's containers told with what it was given, and with what it asked for."""
        name, status, shares = pod["metadata"]["name"], pod["status"], booked(pod)
        self._judged += 1
        if status["phase"] == "Failed" and "reason" in status:
            self.account.refused.append(f"{name}: {status['reason']}: {status.get('message')}")
            return
        if status["phase"] == "Failed":
            reported = (*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ()))
            self.account.broken.append(f"{name}: {[(c['name'], c['state']) for c in reported]}")
            return
        for container in (*pod["spec"].get("initContainers", ()), *pod["spec"]["containers"]):
            told = [given(one) for one in self._ground.told(pod, container["name"])]
            share, (count, memory) = shares.get(container["name"], []), asked(container)
            if [memory] * count != [mib for _, mib in share]:
                self.account.findings.append(f"{name} {container['name']} asks for {count} x {memory}, booked: {share}")
            elif told != [share]:
                self.account.findings.append(f"{name} {container['name']} is booked {share}, and saw {told}")
            else:
                self.account.right += 1

    # What is told, and who holds what

    def _see(self, old: Json | None, new: Json | None) -> None:
        if new is not None:
            self._pods[new["metadata"]["name"]] = new
        elif old is not None:
            self._gone[old["metadata"]["name"]] = old

    async def _until(self, name: str, is_so: Callable[[], bool]) -> Json:
        """Wait for something about a pod; return it as it was last seen."""
        try:
            async with asyncio.timeout(DEADLINE):
                while not is_so():
                    await asyncio.sleep(0.05)
        except TimeoutError as e:
            raise AssertionError(f"{name} is not where it should be: {json.dumps(self._pods.get(name))}") from e
        return self._pods[name]

    async def _look(self) -> None:
        while True:
            await asyncio.to_thread(lambda: self.ids.look(self._ground.node.alive()))
            self.account.looks += 1
            await asyncio.sleep(LOOK_EVERY)


class HeldIds:
    """Which IDs the kubelet gave to whom, by its checkpoint, held against whose processes run."""

    def __init__(self, folder: Path) -> None:
        self.doubled: set[str] = set()
        self._file = folder / "kubelet_internal_checkpoint"
        self._given: dict[str, set[str]] = defaultdict(set)
        """Pod uid -> IDs: also of pods that a later checkpoint has forgotten."""

    def look(self, alive: set[str]) -> dict[str, list[str]]:
        """Remember what the checkpoint says, find IDs that two running pods hold; return who of them holds what."""
        if self._file.exists():
            for entry in json.loads(self._file.read_text())["Data"]["PodDeviceEntries"] or []:
                self._given[entry["PodUID"]].update(i for ids in entry["DeviceIDs"].values() for i in ids)
        holders = defaultdict(list)
        for uid in alive:
            for device_id in self._given.get(uid, ()):
                holders[device_id].append(uid)
        self.doubled |= {f"ID {i} is in the running pods {uids}" for i, uids in holders.items() if len(uids) > 1}
        return holders
