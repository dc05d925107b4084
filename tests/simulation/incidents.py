"""What goes wrong and when: drawn from the seed, and over before the calm begins.

One rule: each incident is something that really happens to clusters, and it is told in the story.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from hami_model.vendor import MUTEX_LOCK

from tests.simulation import cluster
from tests.simulation.allocators import Allocator
from tests.simulation.plugins import Plugin

if TYPE_CHECKING:
    from tests.simulation.world import World

LIES = ("rubbish;", "GPU-x,NVIDIA,0,0:;", "node-1-0,NVIDIA,100,0:;", "")


class Incidents:
    """Draws and does them."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self._rng = world.rng
        self._undo: list[Callable[[], None]] = []
        self._kinds: tuple[tuple[int, Callable[[], None]], ...] = (
            (6, self.a_binding_dawdles),
            (4, self.the_leader_pauses),
            (3, self.the_leader_is_killed),
            (2, self.the_leader_stops),
            (1, self.the_leader_is_suspended),
            (2, self.the_leader_loses_nats),
            (2, self.a_follower_is_killed),
            (2, self.a_server_falls_behind),
            (1, self.the_servers_restart),
            (2, self.watches_break),
            (1, self.watches_fall_silent),
            (2, self.the_past_is_forgotten),
            (3, self.a_pod_is_deleted),
            (4, self.a_pod_is_replaced_by_a_namesake),
            (2, self.a_pod_is_deleted_while_its_node_is_locked),
            (2, self.somebody_lies),
            (1, self.a_node_is_made_again),
            (1, self.cards_change),
            (2, self.a_node_is_slow),
            (1, self.an_agent_falls_silent),
            (2, self.the_scheduler_is_late),
            (2, self.the_scheduler_restarts_under_a_binding),
        )

    def plan(self) -> float:
        """Set the time of everything; return when the calm begins, in seconds from now."""
        rng, after = self._rng, self._world.loop.after
        length = rng.uniform(40, 90)
        for _ in range(rng.randint(4, 10)):
            after(rng.uniform(1, length * 0.8), self._world.create_pod)
        drawn = rng.choices([do for _, do in self._kinds], [weight for weight, _ in self._kinds], k=rng.randint(2, 9))
        for incident in drawn:
            after(rng.uniform(5, length), incident)
        return length

    def end_all(self) -> None:
        """Let nothing be wrong any more."""
        world = self._world
        world.weather.calm_down()
        world.nats.slow = 0.0
        for undo in self._undo:
            undo()
        for server in world.api.servers:
            server.lag = 0.0
        for watch in world.api.watches:
            if watch.is_silent:
                watch.end()
        for kubelet in world.kubelets.values():
            kubelet.slowness = 0.0
        for place, allocator in list(world.allocators.items()):
            allocator.bus.mend() if allocator.is_alive else world.start_allocator(place)

    def _leader(self) -> Allocator | None:
        return self._world.leader()

    def _place_of(self, allocator: Allocator) -> str:
        return next(place for place, one in self._world.allocators.items() if one is allocator)

    # Bindings

    def a_binding_dawdles(self) -> None:
        """The next Binding lands very late, or its answer is lost; its sender may stand still meanwhile."""
        weather, kind = self._world.weather, self._rng.random()
        if kind < 0.5:
            self._world.tell("incident", "the next Binding will land very late")
            weather.late_bindings += 1
        elif kind < 0.75:
            self._world.tell("incident", "the answer of the next Binding will be lost")
            weather.lost_answers += 1
        else:
            self._world.tell("incident", "the connections of the next Bindings will break")
            weather.broken += 2
            return
        if self._rng.random() < 0.6:
            self._world.api.sent.append(self._pause_or_kill_the_sender)

    def _pause_or_kill_the_sender(self, sender: str, _method: str, path: str, _body: object) -> None:
        world = self._world
        if not path.endswith("/binding"):
            return
        world.api.sent.remove(self._pause_or_kill_the_sender)
        found = next((one for one in world.allocators.values() if one.identity == sender), None)
        if found is None:
            return
        do = self._kill if self._rng.random() < 0.4 else self._pause
        world.loop.after(self._rng.uniform(0, 0.005), do, found)

    def the_scheduler_restarts_under_a_binding(self) -> None:
        """Then it has forgotten the bind, and asks for the pod anew while nobody knows what became of it."""
        self._world.weather.late_bindings += 1
        self._world.api.sent.append(self._restart_the_scheduler)

    def _restart_the_scheduler(self, _sender: str, _method: str, path: str, _body: object) -> None:
        if path.endswith("/binding"):
            self._world.api.sent.remove(self._restart_the_scheduler)
            self._world.loop.after(self._rng.uniform(0.05, 3), self._world.scheduler.restart)

    # Allocators

    def _pause(self, allocator: Allocator) -> None:
        if allocator.is_alive:
            seconds = self._rng.uniform(5, 30)
            self._world.tell("incident", f"{allocator.identity} stands still for {seconds:.1f} s")
            allocator.pause(seconds)

    def _kill(self, allocator: Allocator) -> None:
        if allocator.is_alive:
            self._world.tell("incident", f"{allocator.identity} is killed")
            allocator.kill()
            self._world.loop.after(self._rng.uniform(0.5, 15), self._restart, self._place_of(allocator))

    def _restart(self, place: str) -> None:
        if not self._world.allocators[place].is_alive:
            self._world.start_allocator(place)

    def the_leader_pauses(self) -> None:
        if (leader := self._leader()) is not None:
            self._pause(leader)

    def the_leader_is_killed(self) -> None:
        if (leader := self._leader()) is not None:
            self._kill(leader)

    def the_leader_stops(self) -> None:
        """A rolling update: SIGTERM, and a new process a little later; others may see what it wrote much later."""
        if self._rng.random() < 0.5:
            self.a_server_falls_behind()
            self._world.create_pod()
        self._world.loop.after(self._rng.uniform(0.1, 1.5), self._stop_the_leader)

    def _stop_the_leader(self) -> None:
        if (leader := self._leader()) is not None:
            self._world.tell("incident", f"{leader.identity} is told to stop")
            leader.stop_asked.set()
            self._world.loop.after(self._rng.uniform(10, 20), self._restart, self._place_of(leader))

    def the_leader_is_suspended(self) -> None:
        if (leader := self._leader()) is not None:
            seconds = self._rng.uniform(5, 40)
            self._world.tell("incident", f"the machine of {leader.identity} is suspended for {seconds:.1f} s")
            leader.suspend(seconds)

    def the_leader_loses_nats(self) -> None:
        if (leader := self._leader()) is not None:
            seconds = self._rng.uniform(2, 25)
            self._world.tell("incident", f"{leader.identity} is cut off from NATS for {seconds:.1f} s")
            leader.bus.cut()
            self._world.loop.after(seconds, leader.bus.mend)

    def a_follower_is_killed(self) -> None:
        followers = [one for one in self._world.allocators.values() if one.is_alive and not one.leads]
        if followers:
            self._kill(self._rng.choice(followers))

    # The API server

    def a_server_falls_behind(self) -> None:
        server, seconds = self._rng.choice(self._world.api.servers), self._rng.uniform(5, 30)
        server.lag = self._rng.uniform(1, 15)
        self._world.tell("incident", f"{server.name} is {server.lag:.1f} s behind for {seconds:.1f} s")
        self._world.loop.after(seconds, setattr, server, "lag", 0.0)

    def the_servers_restart(self) -> None:
        seconds = self._rng.uniform(1, 6)
        self._world.tell("incident", f"the API servers are away for {seconds:.1f} s")
        self._world.api.restart(seconds)

    def watches_break(self) -> None:
        self._world.tell("incident", "all watches break")
        for watch in self._world.api.watches:
            watch.end()

    def watches_fall_silent(self) -> None:
        self._world.tell("incident", "some watches fall silent")
        for watch in self._world.api.watches:
            watch.is_silent = self._rng.random() < 0.5

    def the_past_is_forgotten(self) -> None:
        self._world.tell("incident", "all watches end with 410")
        self._world.api.expire()

    # Pods

    def a_pod_is_deleted(self) -> None:
        if pods := self._world.pods():
            self._world.delete_pod(self._rng.choice(pods))

    def a_pod_is_replaced_by_a_namesake(self) -> None:
        """Most telling while its Binding is on the way."""
        if pods := self._world.pods(is_bound=False):
            key = self._rng.choice(pods)
            self._world.delete_pod(key)
            self._world.loop.after(self._rng.uniform(0.001, 2), self._namesake, "/".join(key))

    def _namesake(self, name: str) -> None:
        if self._world.store.find("pods", tuple(name.split("/"))) is None:  # type: ignore[arg-type]
            self._world.create_pod(name)

    def a_pod_is_deleted_while_its_node_is_locked(self) -> None:
        """Others wait in line for the node, whose kubelet writes to it all the while."""
        for _ in range(3):
            self._world.create_pod()
        self._world.api.sent.append(self._delete_the_owner)

    def _delete_the_owner(self, _sender: str, method: str, path: str, body: object) -> None:
        world = self._world
        lock = str(_annotations(body).get(MUTEX_LOCK.key) or "").split(",")
        if method != "PATCH" or "/nodes/" not in path or len(lock) != 3:
            return
        world.api.sent.remove(self._delete_the_owner)
        node = path.rpartition("/")[2]
        for number in range(40):
            world.loop.after(number * 0.004, self._touch, node, number)
        world.loop.after(self._rng.uniform(0.01, 0.1), self._delete_if_there, (lock[1], lock[2]))

    def _touch(self, node: str, number: int) -> None:
        if self._world.store.find("nodes", ("", node)) is not None:
            meta = {"annotations": {"kubelet/touched": str(number)}}
            self._world.store.patch_meta("nodes", ("", node), meta, sender=f"kubelet {node}")

    def _delete_if_there(self, key: tuple[str, str]) -> None:
        if self._world.store.find("pods", key) is not None:
            self._world.delete_pod(key)

    def somebody_lies(self) -> None:
        """Anybody may write anything on a pod that waits."""
        if pods := self._world.pods(is_bound=False):
            lies = {"hami.io/vgpu-devices-allocated": self._rng.choice(LIES), "hami.io/bind-phase": "success"}
            notes = {"annotations": {**lies, "hami.io/vgpu-node": "node-1"}}
            self._world.store.patch_meta("pods", self._rng.choice(pods), notes, sender="user")

    # Nodes

    def a_node_is_made_again(self) -> None:
        """An admin deletes a Node object; its kubelet makes it anew, without what others had written on it."""
        there = {name for _, name in self._world.store.objects["nodes"]}
        sites = [site for site in self._world.sites if site.is_ours and site.name in there]
        if sites:
            site = self._rng.choice(sites)
            self._world.store.remove("nodes", ("", site.name), sender="admin")
            self._world.loop.after(self._rng.uniform(0.1, 5), self._make_node, site)

    def _make_node(self, site: cluster.Site) -> None:
        if self._world.store.find("nodes", ("", site.name)) is None:
            bare = cluster.Site(site.name, site.words, site.is_ours, is_known=False)
            self._world.store.create("nodes", cluster.decoded(bare), sender=f"kubelet {site.name}")

    def cards_change(self) -> None:
        """A plugin publishes smaller cards, or rubbish, and thinks better of it later."""
        foreign = [site for site in self._world.sites if not site.is_ours and cluster.smaller(site, 1)]
        if not foreign:
            return
        site = self._rng.choice(foreign)
        changed = cluster.smaller(site, 4000)
        if self._rng.random() < 0.5:
            changed = dict.fromkeys(changed, "rubbish")
        self._publish(site, changed)
        self._world.loop.after(self._rng.uniform(3, 20), self._publish, site, cluster.smaller(site, cluster.MEMORY))
        self._undo.append(lambda: self._publish(site, cluster.smaller(site, cluster.MEMORY)))

    def _publish(self, site: cluster.Site, annotations: dict[str, str]) -> None:
        if self._world.store.find("nodes", ("", site.name)) is not None:
            meta = {"annotations": annotations}
            self._world.store.patch_meta("nodes", ("", site.name), meta, sender=f"plugin of {site.name}")

    def a_node_is_slow(self) -> None:
        kubelet = self._rng.choice(list(self._world.kubelets.values()))
        kubelet.slowness = self._rng.uniform(1, 20)
        self._world.tell("incident", f"{kubelet.name} is slow by {kubelet.slowness:.1f} s")
        for server in kubelet.servers.values():
            if isinstance(server, Plugin) and server.word != "MLU" and self._rng.random() < 0.5:
                server.is_forgetful = True
                self._undo.append(lambda server=server: setattr(server, "is_forgetful", False))  # type: ignore[misc]

    def an_agent_falls_silent(self) -> None:
        agents = [kubelet.agent for kubelet in self._world.kubelets.values() if kubelet.agent is not None]
        if not agents:
            return
        agent = self._rng.choice(agents)
        self._world.tell("incident", f"{agent.bus.name} is not heard any more")
        if self._rng.random() < 0.5:
            agent.is_mute = True
            self._undo.append(lambda: setattr(agent, "is_mute", False))
        else:
            agent.bus.cut()
            self._undo.append(agent.bus.mend)

    def the_scheduler_is_late(self) -> None:
        self._world.scheduler.lag = self._rng.uniform(0.5, 5)
        self._undo.append(lambda: setattr(self._world.scheduler, "lag", 0.0))


def _annotations(body: object) -> dict[str, object]:
    meta = body.get("metadata", {}) if isinstance(body, dict) else {}
    return meta.get("annotations") or {}
