"""The user of a storm: wants pods by name, makes those that are missing, and replaces those that have ended.

One rule: like a ReplicaSet it looks at what is there and mends that, so no lost answer and no restart leads it astray.
"""

import asyncio
import random
from collections.abc import Iterator

from hami_testkit.cluster.client import ApiClient
from hami_testkit.cluster.status import ApiError

from tests.faults.bad_lines import insist
from tests.faults.fleet import Json, pod
from tests.faults.witness import PODS, Witness, is_over

LOOK_EVERY = 0.3
EXCUSED = ("no healthy devices present", "Cannot connect to host", "Server disconnected", "Connection reset by peer")
"""How a kubelet says that the plugin was away, and a vendor's plugin that the API server was: nobody's doing."""


class User:
    """Pods wanted, by name."""

    def __init__(self, api: ApiClient, witness: Witness, arrivals: Iterator[Json], rng: random.Random) -> None:
        self.recreated = 0
        self.replaced = 0
        self.failed: list[str] = []
        self._api = api
        self._witness = witness
        self._arrivals = arrivals
        self._rng = rng
        self._wanted: dict[str, Json] = {}
        self._deleting: dict[str, str] = {}

    async def run(self) -> None:
        """Mend until cancelled."""
        while True:
            there = {found["metadata"]["name"]: found for found in self._witness.pods.values()}
            for name, wanted in list(self._wanted.items()):
                found = there.get(name)
                if found is None:
                    await insist(lambda wanted=wanted: self._api.create(PODS, wanted))  # type: ignore[misc]
                elif is_over(found):
                    self._replace(name, found)
            await asyncio.sleep(LOOK_EVERY)

    def _replace(self, name: str, ended: Json) -> None:
        """Want a successor without end."""
        if ended["status"]["phase"] == "Failed":
            text = f"{name}: {ended['status'].get('message', '')}"
            (self.failed if any(words in text for words in EXCUSED) else self._witness.findings).append(text)
        limits = [c["resources"]["limits"] for c in self._wanted.pop(name)["spec"]["containers"]]
        self._wanted[f"{name}x"] = pod(f"{name}x", limits)
        self.replaced += 1

    def arrive(self, count: int) -> bool:
        """Want some pods more; say whether there were any left to come."""
        before = len(self._wanted)
        for _, wanted in zip(range(count), self._arrivals, strict=False):
            self._wanted[wanted["metadata"]["name"]] = wanted
        return len(self._wanted) > before

    async def recreate(self, count: int) -> None:
        """Delete some running pods; they come again under their names."""
        runs = [p for p in self._witness.pods.values() if p["metadata"]["name"] in self._wanted and is_content(p)]
        for found in self._rng.sample(runs, min(count, len(runs))):
            self.recreated += 1
            name, uid = found["metadata"]["name"], found["metadata"]["uid"]
            await self._delete(name, uid)

    async def _delete(self, name: str, uid: str) -> None:
        try:
            body = {"preconditions": {"uid": uid}, "gracePeriodSeconds": 1}
            await insist(lambda: self._api.delete(f"{PODS}/{name}", body))
        except ApiError as refusal:
            self._witness.findings.append(f"pod {name} cannot be deleted: {refusal}")

    async def stir(self) -> None:
        """See to it that something waits to be bound."""
        if not self.arrive(3):
            await self.recreate(3)

    def waiting(self) -> list[str]:
        """Return the names of the wanted pods that do not run with their cards yet."""
        content = {p["metadata"]["name"] for p in self._witness.pods.values() if is_content(p)}
        return [name for name in self._wanted if name not in content]


def is_content(found: Json) -> bool:
    """Say whether a pod is bound, runs, and is marked as served."""
    meta, notes = found["metadata"], found["metadata"].get("annotations") or {}
    served = notes.get("hami.io/bind-phase") == "success" or notes.get("CAMBRICON_DSMLU_ASSIGNED") == "true"
    return found.get("status", {}).get("phase") == "Running" and served and not meta.get("deletionTimestamp")
