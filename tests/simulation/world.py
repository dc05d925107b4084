"""One run: a cluster, two or three allocators, pods, and everything that goes wrong; then calm, and an account.

One rule: the seed decides everything. Whatever is drawn is drawn here or handed on from here.
"""

import gc
import random
from collections.abc import Callable
from random import Random
from typing import Any

import msgspec
from msgspec import Struct

from tests.simulation import cluster
from tests.simulation.account import unsettled
from tests.simulation.agents import Agent
from tests.simulation.allocators import Allocator
from tests.simulation.api import Api
from tests.simulation.bus import Nats, SimBus
from tests.simulation.incidents import Incidents
from tests.simulation.kubelets import Kubelet
from tests.simulation.plugins import Plugin
from tests.simulation.referee import QUOTA_KEY, Referee
from tests.simulation.scheduler import Scheduler
from tests.simulation.store import Change, Key
from tests.simulation.story import short, what_happened
from tests.simulation.virtual_time import START, Deadlock, VirtualLoop
from tests.simulation.weather import Weather

PATIENCE = 150.0
"""Seconds of calm within which every pod must be bound and every book be right; a silent watch costs 120 of them."""
STORY = 60
"""Steps that a failure shows."""


class Outcome(Struct, frozen=True):
    """How a run ended. ``failure`` is empty when all held; ``story`` is what happened, a line each."""

    seed: int
    failure: str
    story: list[str]
    bound: int
    seconds: float
    """Virtual seconds that the run took."""


class World:
    """Everything of one run."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.rng = Random(seed)
        self.loop = VirtualLoop()
        self.story: list[tuple[float, str, str]] = []
        self.failure = ""
        self.is_over = False
        self.weather = Weather(self.rng)
        self.api = Api(self.loop, self.rng, self.weather)
        self.store = self.api.store
        self.nats = Nats(self.loop, self.rng)
        self.nats.slow = self.rng.choice((0.0, 0.0, 0.05))
        self.sites = cluster.sites(self.rng)
        self.referee = Referee(self.store, cluster.capacity(self.sites), self.blame)
        self.kubelets: dict[str, Kubelet] = {}
        self.allocators: dict[str, Allocator] = {}
        """By the name of their place; a new process takes the place of a dead one."""
        self.scheduler = Scheduler(self.loop, self.store, SimBus(self.nats, "scheduler"), self.rng)
        self.store.on_change.append(self._note)
        self.api.sent.append(self._sent)
        self.api.landed.append(self.referee.arrives)
        self._uids = 0
        self._starts = 0
        self._ends: dict[str, float] = {}

    def tell(self, who: str, what: str) -> None:
        """Add a line to the story."""
        self.story.append((self.loop.now - START, who, what))

    def blame(self, what: str) -> None:
        """Note that something does not hold; the first one counts."""
        if not self.failure and not self.is_over:
            self.tell("referee", f"*** {what}")
            self.failure = what
            self.loop.stop()

    # The beginning

    def begin(self) -> None:
        """Set everything up."""
        for site in self.sites:
            self._set_up(site)
        if self.rng.random() < 0.3:
            limit = self.rng.choice((9000, 14000))
            self.referee.quota["team-a"] = limit
            meta = {"name": "gpus", "namespace": "team-a", "uid": "uid-gpus"}
            quota = {"metadata": meta, "spec": {"hard": {QUOTA_KEY: str(limit)}}}
            self.store.create("resourcequotas", quota, sender="admin")
        self.api.settle()
        for number in range(self.rng.choice((2, 2, 3))):
            self.start_allocator(f"allocator-{number + 1}")
        self.loop.create_task(self.scheduler.run())
        self._every(0.5, self._look)
        self._every(self.rng.uniform(5, 20), self.api.bookmarks)

    def _set_up(self, site: cluster.Site) -> None:
        self.store.create("nodes", msgspec.json.decode(cluster.node_of(site)), sender="admin")
        servers: dict[str, Agent | Plugin] = {}
        if site.is_ours:
            agent = Agent(self.loop, self.store, self.nats, self.rng, site.name, cluster.cards_of(site))
            servers = dict.fromkeys(site.words, agent)
            self.loop.create_task(agent.run())
        else:
            servers = {word: Plugin(self.store, self.rng, site.name, word) for word in site.words}
        kubelet = Kubelet(self.loop, self.store, self.rng, site.name, servers)
        kubelet.on_given = self._given
        self.kubelets[site.name] = self.referee.kubelets[site.name] = kubelet
        self.loop.create_task(kubelet.run())

    def start_allocator(self, place: str) -> None:
        """Start a process in a place."""
        self._starts += 1
        identity = f"{place}.{self._starts}"
        allocator = Allocator(self.loop, self.api, self.nats, identity, skew=self.rng.uniform(-3, 3))
        allocator.bus.said.append(self.referee.published)
        self.allocators[place] = self.referee.allocators[identity] = allocator
        self.tell(identity, "starts")

    def leader(self) -> Allocator | None:
        """Return who leads, if anybody does."""
        return next((one for one in self.allocators.values() if one.leads), None)

    # Pods

    def create_pod(self, name: str = "") -> None:
        """Let somebody create a pod."""
        self._uids += 1
        uid = f"uid-{self._uids}"
        words = [word for site in self.sites for word in site.words]
        namespace = self.rng.choice(("team-a", "team-b"))
        if name:
            namespace, _, name = name.partition("/")
        demand = cluster.a_demand(self.rng, words)
        while _asked(demand) > self.referee.quota.get(namespace, 1_000_000):
            demand = cluster.a_demand(self.rng, words)
        pod = cluster.a_pod(name or f"pod-{self._uids}", namespace, uid, demand)
        self.store.create("pods", pod, sender="user")
        if self.rng.random() < 0.5:
            self._ends[uid] = self.rng.uniform(3, 60)

    def pods(self, *, is_bound: bool | None = None) -> list[Key]:
        """Return the pods that have not ended: all, those bound, or those that wait."""
        return [
            key
            for key, obj in self.store.objects["pods"].items()
            if obj["status"]["phase"] not in ("Succeeded", "Failed")
            and (is_bound is None or bool(obj["spec"].get("nodeName")) is is_bound)
        ]

    def end_pod(self, key: Key, uid: str, phase: str = "Succeeded") -> None:
        """Let a pod end by itself."""
        obj = self.store.find("pods", key)
        if obj is not None and obj["metadata"]["uid"] == uid and (node := obj["spec"].get("nodeName")):
            self.kubelets[node].end(key, uid, phase)

    def delete_pod(self, key: Key) -> None:
        """Let somebody delete a pod; one on a node takes a while."""
        obj = self.store.get("pods", key)
        if obj["spec"].get("nodeName"):
            if "deletionTimestamp" not in obj["metadata"]:
                self.store.mark_deleted(key, "2026-01-01T00:00:00Z", sender="user")
        else:
            self.store.remove("pods", key, sender="user")

    # What is looked at

    def _sent(self, sender: str, method: str, path: str, body: Any) -> Any:
        if method != "GET" and not path.endswith(("/events", "/hami-allocator", "/leases")):
            self.tell(sender, f"sends {method} {path.removeprefix('/api/v1/')} {short(body)}")
        return self.referee.sent(sender, method, path, body)

    def _note(self, change: Change) -> None:
        if change.kind == "leases":
            old, new = (obj["spec"].get("holderIdentity") if obj else "" for obj in (change.old, change.new))
            if old != new:
                self.tell("api", f"the Lease goes from {old or 'nobody'} to {new or 'nobody'}")
            return
        self.tell("api", f"{change.revision} {what_happened(change)} by {change.sender}")
        if change.kind == "pods" and change.new is not None and change.old is not None:
            uid, phases = change.new["metadata"]["uid"], (change.old["status"]["phase"], change.new["status"]["phase"])
            if phases == ("Pending", "Running") and uid in self._ends:
                self.loop.after(self._ends[uid], self.end_pod, change.key, uid)

    def _given(self, kubelet: Kubelet, uid: str) -> None:
        given = kubelet.given[uid]
        self.tell(kubelet.name, f"gives {uid} {sorted(given.grants) or given.refused} as of {given.whose}")
        self.referee.served(kubelet, uid)

    def _look(self) -> None:
        self.referee.look()
        if self.loop.accidents:
            self.blame(f"nobody took an exception: {self.loop.accidents[0]}")
        for allocator in self.allocators.values():
            if allocator.main.done() and not allocator.main.cancelled() and (error := allocator.main.exception()):
                self.blame(f"{allocator.identity} crashed: {error!r} {getattr(error, 'exceptions', '')}")

    def _every(self, seconds: float, work: Callable[[], None]) -> None:
        def again() -> None:
            if self.is_over:
                return
            work()
            self.loop.after(seconds, again)

        self.loop.after(seconds, again)

    # The way of a run

    def run(self) -> Outcome:
        """Tell the story to its end."""
        try:
            self.begin()
            incidents = Incidents(self)
            calm = incidents.plan()
            self.loop.after(calm, self._calm_down, incidents)
            self.loop.run_forever()
        except Deadlock as error:
            self.blame(str(error))
        seconds = self.loop.now - START
        self.is_over = self.api.is_down = True
        story = self.lines()
        self.loop.wind_up([one.gate for one in self.referee.allocators.values()])
        return Outcome(self.seed, self.failure, story, self.referee.landed, seconds)

    def _calm_down(self, incidents: Incidents) -> None:
        self.tell("world", "calm from here on")
        incidents.end_all()
        self._patience = self.loop.now + PATIENCE
        self._quiet = 0
        self._every(1.0, self._settle)
        self._every(4.0, self._make_room)

    def _make_room(self) -> None:
        """Let the oldest running pod end while others wait."""
        running = [
            key for key in self.pods(is_bound=True) if self.store.get("pods", key)["status"]["phase"] == "Running"
        ]
        if self.pods(is_bound=False) and running:
            self.end_pod(running[0], self.store.get("pods", running[0])["metadata"]["uid"])

    def _settle(self) -> None:
        for place, allocator in list(self.allocators.items()):
            if not allocator.is_alive:
                self.start_allocator(place)
        why = unsettled(self)
        self._quiet = 0 if why else self._quiet + 1
        if self._quiet >= 3:
            self.loop.stop()
        elif self.loop.now > self._patience:
            self.blame(f"after {PATIENCE:g} s of calm {why}")

    def lines(self) -> list[str]:
        """Write the story."""
        return [f"{at:9.3f} {who:<16} {what}" for at, who, what in self.story]


def _asked(demand: dict[str, str]) -> int:
    return int(demand.get("nvidia.com/gpumem", 0)) * int(demand.get("nvidia.com/gpu", 1))


def run(seed: int) -> Outcome:
    """Run one seed."""
    random.seed(seed)
    was_on = gc.isenabled()
    gc.disable()  # when garbage is found must not depend on earlier runs
    try:
        return World(seed).run()
    finally:
        if was_on:
            gc.enable()
