"""The desk, asked as a kubelet asks: container after container, IDs only."""

import asyncio
import random
from pathlib import Path

import pytest
from hami_kit.clock import SystemClock
from hami_kit.errors import BusUnavailable
from hami_kit.telemetry import Telemetry
from hami_model.allocation import Allocation, ContainerGrants, Grant
from hami_model.bus.messages import Confirm, PushAllocation, Refuse, Withdraw
from hami_model.device import Device
from hami_model.objects import Container, Meta, Pod, PodRef, PodSpec, PodStatus, Resources
from hami_model.request import Role
from hami_node_agent.desk import Desk, Office, Refusal, Resource
from hami_node_agent.edits import Edits
from hami_node_agent.identity import Offer
from hami_node_agent.inventory import Inventory, card_of, replica_ids
from hami_node_agent.kubelet import CheckpointEntry, KubeletUnreachable, ListedPod
from hami_node_agent.limits import HamiCore, hami_core
from hami_node_agent.mig.cutter import Cutter
from hami_node_agent.pods import NodePods
from hami_node_agent.probes import SimulatedProbe
from hami_node_agent.rebuild import doubt
from hami_node_agent.releases import Releases
from hami_node_agent.report import Reports
from hami_node_agent.table import Table, TableFile
from hami_node_agent.witness import Witness
from msgspec import structs

GPU = "nvidia.com/gpu"
NODE = "n1"
CARDS = tuple(
    Device(id=f"GPU-{name}", vendor="NVIDIA", index=i, slots=4, memory=10_000, cores=100, model="NVIDIA-A")
    for i, name in enumerate("ab")
)
ALL_IDS = tuple(device_id for card in CARDS for device_id in replica_ids(card))


class DeafBus:
    """A bus without a connection: nothing the desk does may depend on it."""

    async def request(self, subject: str, *_args: object, **_options: object) -> object:
        raise BusUnavailable(f"{subject}: no connection")


class FakeKubelet:
    """One node's kubelet: it shows pods, hands IDs on from init containers, and asks the desk."""

    def __init__(self) -> None:
        self.desk: Desk
        self.shown: dict[tuple[str, str], dict[str, frozenset[str]]] = {}
        self.in_use: dict[str, set[str]] = {}
        self.written: dict[tuple[str, str], frozenset[str]] = {}
        self.is_down = False
        self.random_ids = False

    async def list_pods(self) -> tuple[ListedPod, ...]:
        return tuple([self._listed(name) for name in self.shown])

    async def get_pod(self, namespace: str, name: str) -> ListedPod | None:
        if self.is_down:
            raise KubeletUnreachable("the kubelet is down")
        return self._listed((namespace, name)) if (namespace, name) in self.shown else None

    async def admit(self, pod: Pod, *, known: int = 0, dies_after: int = 99) -> dict[str, Edits]:
        """Ask for every container of the pod in order; what each was given, by name.

        The first ``known`` containers a kubelet before this one has written down; ``dies_after`` so many it ends.
        """
        shown = self.shown.setdefault((pod.metadata.namespace, pod.metadata.name), {})
        used = self.in_use.setdefault(pod.metadata.uid, set())
        given: dict[str, Edits] = {}
        reusable: set[str] = set()
        for position, container in enumerate(pod.all_containers[:dies_after]):
            is_init = container in pod.init_containers
            size = int((container.resources.limits or {}).get(GPU, 0)) if container.resources else 0
            if not is_init:
                shown.setdefault(container.name, frozenset())
            if size == 0:
                continue
            if position < known:
                ids = sorted(self.written[pod.metadata.uid, container.name])
            else:
                ids = await self._ids(size, reusable)
                given[container.name] = await self.desk.allocate(ids)
            used.update(ids)
            self.written[pod.metadata.uid, container.name] = frozenset(ids)
            reusable = reusable | set(ids) if is_init else reusable - set(ids)
            if not is_init:
                shown[container.name] = frozenset(ids)
        return given

    def die(self, pod: Pod, *, wrote: int) -> list[CheckpointEntry]:
        """End while the pod is admitted; return the checkpoint, which has its first ``wrote`` containers."""
        self.forget(pod)
        names = [c.name for c in pod.all_containers[:wrote]]
        held = {name: sorted(self.written[pod.metadata.uid, name]) for name in names}
        return [
            CheckpointEntry(pod_uid=pod.metadata.uid, container_name=n, resource_name=GPU, device_ids={"-1": ids})
            for n, ids in held.items()
        ]

    def forget(self, pod: Pod) -> None:
        """Free the pod's IDs, as at its end and at force deletion."""
        self.shown.pop((pod.metadata.namespace, pod.metadata.name), None)
        self.in_use.pop(pod.metadata.uid, None)

    async def _ids(self, size: int, reusable: set[str]) -> list[str]:
        if len(reusable) >= size:
            return sorted(reusable)[:size]
        taken = {i for ids in self.in_use.values() for i in ids} - reusable
        free = [i for i in ALL_IDS if i not in taken]
        if self.random_ids:
            return [*sorted(reusable), *(i for i in reversed(free) if i not in reusable)][:size]
        offer = Offer(available=tuple(free), must_include=tuple(sorted(reusable)), size=size)
        preferred = await self.desk.prefer(offer)
        return list(preferred) if len(preferred) == size else free[-size:]

    def _listed(self, name: tuple[str, str]) -> ListedPod:
        containers = {container: {GPU: ids} for container, ids in self.shown[name].items()}
        return ListedPod(namespace=name[0], name=name[1], containers=containers)


class Node:
    """A node with two cards, everything the desk stands on, and who feeds it."""

    def __init__(self, folder: Path, *, cards: tuple[Device, ...] = CARDS, cutter: Cutter | None = None) -> None:
        self.cards = cards
        self.cutter = cutter
        self.kubelet = FakeKubelet()
        self.stored: dict[str, Allocation] = {}
        self.api: dict[tuple[str, str], Pod] = {}
        self.file = TableFile(folder / "table.json")
        self.folder = folder
        self.pods = NodePods(NODE, lambda pod: self.stored.get(pod.metadata.uid))
        self.start_agent()

    def start_agent(self) -> None:
        """Start the agent's part anew, from what it wrote down."""
        self.table = Table(self.file.read(), on_change=self.file.write)
        self.reports = Reports(
            DeafBus(),  # type: ignore[arg-type]
            node=NODE,
            telemetry=Telemetry(),
            is_complete=lambda ref: self.witness.is_served(ref.uid),
            jitter=lambda seconds: seconds,
            instances=lambda uid: self.cutter.book.of_pod(uid) if self.cutter is not None else (),
        )
        self.releases = Releases(
            table=self.table,
            pods=self.pods,
            kubelet=self.kubelet,
            pods_folder=self.folder / "pods",
            clock=SystemClock(),
            on_release=lambda pod, _entries: self.reports.forget(pod),
            made=self.cutter,
        )
        self.witness = Witness(
            resource=GPU, vendor="NVIDIA", table=self.table, pods=self.pods, kubelet=self.kubelet, reader=self
        )
        limiter = hami_core(lambda: HamiCore(hook_path=self.folder))
        office = Office(
            inventory=Inventory(SimulatedProbe(""), self.cards),
            table=self.table,
            pods=self.pods,
            reader=self,
            releases=self.releases,
            reports=self.reports,
            telemetry=Telemetry(),
            clock=SystemClock(),
            turn=asyncio.Lock(),
            cutter=self.cutter,
            patience=0.5,
        )
        resource = Resource(name=GPU, vendor="NVIDIA", limiter=limiter)
        self.desk = self.kubelet.desk = Desk(resource, office=office, witness=self.witness)

    async def read(self, namespace: str, name: str) -> None:
        """Read a pod from the API server that this node has beside its watch."""
        if (namespace, name) in self.api:
            self.pods.read(self.api[namespace, name])

    def bind(self, pod: Pod, *grants: tuple[str, str, int]) -> Pod:
        """Let the API server have the pod bound here, with these (container, card, memory)."""
        self.stored[pod.metadata.uid] = an_allocation(pod, *grants)
        self.pods.see(pod)
        return pod

    @property
    def confirmed(self) -> list[tuple[str, str, list[str], bool]]:
        """Return what the allocator will hear was served."""
        said = [m for m in self.reports.waiting if isinstance(m, Confirm)]
        return [(m.pod.name, m.container, m.devices, m.complete) for m in said]

    @property
    def refused(self) -> list[str]:
        """Return what the allocator will hear was refused."""
        return [message.why for message in self.reports.waiting if isinstance(message, Refuse)]


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


def a_container(name: str, gpu: int = 0) -> Container:
    return Container(name=name, resources=Resources(limits={GPU: str(gpu)} if gpu else None))


def a_pod(name: str, *containers: Container, init: tuple[Container, ...] = (), uid: str = "") -> Pod:
    return Pod(
        metadata=Meta(name=name, namespace="default", uid=uid or f"uid-{name}"),
        spec=PodSpec(containers=list(containers), init_containers=list(init), node_name=NODE),
        status=PodStatus(phase="Pending"),
    )


def an_allocation(pod: Pod, *grants: tuple[str, str, int]) -> Allocation:
    containers = []
    for container in pod.all_containers:
        given = tuple(
            Grant(uuid=card, vendor="NVIDIA", memory=memory, cores=0)
            for name, card, memory in grants
            if name == container.name
        )
        role = Role.INIT if container in pod.init_containers else Role.APP
        containers.append(ContainerGrants(name=container.name, role=role, grants=given))
    return Allocation(pod=PodRef.of(pod), node=NODE, containers=tuple(containers))


def cards_in(given: Edits) -> str:
    return given.env["NVIDIA_VISIBLE_DEVICES"]


async def test_each_container_gets_the_cards_of_its_own_part(node: Node) -> None:
    """Two device containers in one pod, each on another card; the allocator hears of both, the last one completes."""
    pod = node.bind(
        a_pod("p", a_container("one", 1), a_container("two", 1)), ("one", "GPU-a", 3000), ("two", "GPU-b", 5000)
    )

    given = await node.kubelet.admit(pod)

    assert (cards_in(given["one"]), given["one"].env["CUDA_DEVICE_MEMORY_LIMIT_0"]) == ("GPU-a", "3000m")
    assert (cards_in(given["two"]), given["two"].env["CUDA_DEVICE_MEMORY_LIMIT_0"]) == ("GPU-b", "5000m")
    assert node.confirmed == [("p", "one", ["GPU-a"], False), ("p", "two", ["GPU-b"], True)]


async def test_the_kubelet_counts_ids_of_the_allocated_cards(node: Node) -> None:
    """What is answered as preferred are IDs of the very cards."""
    pod = node.bind(a_pod("p", a_container("c", 2)), ("c", "GPU-b", 100), ("c", "GPU-a", 100))

    given = await node.kubelet.admit(pod)

    assert {card_of(i) for i in node.kubelet.in_use["uid-p"]} == {"GPU-a", "GPU-b"}
    assert cards_in(given["c"]) == "GPU-b,GPU-a"


async def test_an_init_containers_ids_pass_on_and_the_next_one_gets_its_own_cards(node: Node) -> None:
    """The kubelet asks no preference for the second container; its IDs name card a, its allocation card b."""
    pod = node.bind(
        a_pod("p", a_container("app", 1), init=(a_container("prepare", 1),)),
        ("prepare", "GPU-a", 9000),
        ("app", "GPU-b", 9000),
    )

    given = await node.kubelet.admit(pod)

    assert cards_in(given["prepare"]) == "GPU-a"
    assert cards_in(given["app"]) == "GPU-b"
    assert {card_of(i) for i in node.kubelet.in_use["uid-p"]} == {"GPU-a"}


async def test_an_init_containers_ids_are_included_where_more_are_asked_for(node: Node) -> None:
    """Init wants one, the container two: one of them must be the init container's."""
    pod = node.bind(
        a_pod("p", a_container("app", 2), init=(a_container("prepare", 1),)),
        ("prepare", "GPU-a", 100),
        ("app", "GPU-a", 100),
        ("app", "GPU-b", 100),
    )

    given = await node.kubelet.admit(pod)

    assert cards_in(given["app"]) == "GPU-a,GPU-b"
    assert len(node.kubelet.in_use["uid-p"]) == 2


async def test_pods_queued_behind_each_other_are_told_apart(node: Node) -> None:
    """Five pods are bound at once; the kubelet admits them one by one, in another order."""
    pods = [
        node.bind(a_pod(f"p{i}", a_container("c", 1)), ("c", "GPU-a" if i % 2 else "GPU-b", 1000 + i)) for i in range(5)
    ]

    for i in (3, 0, 4, 1, 2):
        given = await node.kubelet.admit(pods[i])
        assert given["c"].env["CUDA_DEVICE_MEMORY_LIMIT_0"] == f"{1000 + i}m"


async def test_random_ids_are_matched_by_asking_for_each_bound_pod(node: Node) -> None:
    """A kubelet that asked for no preference: only one of the bound pods was admitted."""
    node.kubelet.random_ids = True
    node.bind(a_pod("queued", a_container("c", 1)), ("c", "GPU-b", 7000))
    pod = node.bind(a_pod("p", a_container("c", 1)), ("c", "GPU-a", 3000))

    given = await node.kubelet.admit(pod)

    assert given["c"].env["CUDA_DEVICE_MEMORY_LIMIT_0"] == "3000m"


async def test_ids_that_could_be_anybodys_are_refused(node: Node) -> None:
    """Two admitted pods look alike: an error is terminal for one pod, a wrong guess would be wrong for two."""
    for name in ("x", "y"):
        pod = node.bind(a_pod(name, a_container("c", 1)), ("c", "GPU-a", 100))
        node.kubelet.shown["default", pod.metadata.name] = {"c": frozenset()}

    with pytest.raises(Refusal, match="no one pod of this node can be told"):
        await node.desk.allocate(["GPU-a-0"])


async def test_a_push_suffices_before_the_watch_shows_the_pod(node: Node) -> None:
    """The allocation is pushed before the binding is sent; the watch may be behind."""
    pod = a_pod("p", a_container("c", 1))
    node.pods.push(PushAllocation(allocation=an_allocation(pod, ("c", "GPU-a", 3000)), term="t"))

    given = await node.kubelet.admit(pod)

    assert given["c"].env["CUDA_DEVICE_MEMORY_LIMIT_0"] == "3000m"


async def test_allocate_waits_for_a_push_that_is_on_its_way(node: Node) -> None:
    """The kubelet was faster than the bus."""
    pod = a_pod("p", a_container("c", 1))
    node.pods.see(pod)
    message = PushAllocation(allocation=an_allocation(pod, ("c", "GPU-a", 3000)), term="t")
    asyncio.get_running_loop().call_later(0.05, node.pods.push, message)

    given = await node.kubelet.admit(pod)

    assert given["c"].env["CUDA_DEVICE_MEMORY_LIMIT_0"] == "3000m"


async def test_a_pod_unknown_to_the_watch_is_read_once(node: Node) -> None:
    """NATS is down and the watch behind: the API server knows."""
    pod = a_pod("p", a_container("c", 1))
    node.stored[pod.metadata.uid] = an_allocation(pod, ("c", "GPU-b", 2000))
    node.api["default", "p"] = pod

    assert cards_in((await node.kubelet.admit(pod))["c"]) == "GPU-b"


async def test_a_device_pod_without_an_allocation_is_refused(node: Node) -> None:
    """Whoever bound it, it was not our allocator."""
    pod = a_pod("p", a_container("c", 1))
    node.pods.see(pod)

    with pytest.raises(Refusal, match="was bound without an allocation") as refused:
        await node.kubelet.admit(pod)

    node.desk.refuse(refused.value)
    assert refused.value.pod == PodRef.of(pod)
    assert node.refused == [str(refused.value)]


async def test_a_withdrawn_push_is_void(node: Node) -> None:
    """The binding failed; the pod came here without us."""
    pod = a_pod("p", a_container("c", 1))
    node.pods.push(PushAllocation(allocation=an_allocation(pod, ("c", "GPU-a", 3000)), term="t"))
    node.pods.withdraw(Withdraw(pod=PodRef.of(pod), node=NODE))
    node.pods.see(pod)

    with pytest.raises(Refusal, match="without an allocation"):
        await node.kubelet.admit(pod)


async def test_what_the_api_server_stored_wins_over_what_was_pushed(node: Node) -> None:
    """A deposed leader's push for another card arrived; the binding says which one it is."""
    pod = node.bind(a_pod("p", a_container("c", 1)), ("c", "GPU-b", 2000))
    node.pods.push(PushAllocation(allocation=an_allocation(pod, ("c", "GPU-a", 3000)), term="old"))

    assert cards_in((await node.kubelet.admit(pod))["c"]) == "GPU-b"


async def test_a_card_is_never_overfilled(node: Node) -> None:
    """Whatever the allocator says: the second pod would take more than is left."""
    await node.kubelet.admit(node.bind(a_pod("x", a_container("c", 1)), ("c", "GPU-a", 6000)))

    with pytest.raises(Refusal, match="card GPU-a would hold 11000 MiB of 10000 MiB"):
        await node.kubelet.admit(node.bind(a_pod("y", a_container("c", 1)), ("c", "GPU-a", 5000)))


async def test_a_pod_on_its_way_out_makes_room(node: Node) -> None:
    """The allocator has seen the first pod end a moment before us: the second waits for that, it is not refused."""
    first = node.bind(a_pod("x", a_container("c", 1)), ("c", "GPU-a", 6000))
    await node.kubelet.admit(first)

    def end() -> None:
        node.kubelet.forget(first)
        node.pods.lose(first)

    asyncio.get_running_loop().call_later(0.1, end)
    given = await node.kubelet.admit(node.bind(a_pod("y", a_container("c", 1)), ("c", "GPU-a", 5000)))

    assert cards_in(given["c"]) == "GPU-a"
    assert [pod.name for pod in node.table.pods] == ["y"]


async def test_a_force_deleted_pods_ids_are_held_while_its_folder_stands(node: Node) -> None:
    """The kubelet and the API server have forgotten it; its containers run on for a moment."""
    first = node.bind(a_pod("x", a_container("c", 1)), ("c", "GPU-a", 1000))
    await node.kubelet.admit(first)
    held = node.kubelet.in_use["uid-x"]
    (node.folder / "pods" / "uid-x").mkdir(parents=True)
    node.kubelet.forget(first)
    node.pods.lose(first)
    await node.releases.sweep()

    await node.kubelet.admit(node.bind(a_pod("y", a_container("c", 1)), ("c", "GPU-a", 1000)))
    assert not held & node.kubelet.in_use["uid-y"]

    (node.folder / "pods" / "uid-x").rmdir()
    await node.releases.sweep()
    assert [pod.name for pod in node.table.pods] == ["y"]


async def test_nothing_is_freed_while_the_kubelet_does_not_answer(node: Node) -> None:
    """Whether the containers are gone cannot be told."""
    pod = node.bind(a_pod("x", a_container("c", 1)), ("c", "GPU-a", 1000))
    await node.kubelet.admit(pod)
    node.pods.lose(pod)
    node.kubelet.is_down = True
    await node.releases.sweep()

    assert [pod.name for pod in node.table.pods] == ["x"]


async def test_a_namesake_made_later_is_another_pod(node: Node) -> None:
    """A stateful pod was deleted and made again under its name; PodResources has no uid to tell them apart."""
    old = node.bind(a_pod("db-0", a_container("c", 1), uid="old"), ("c", "GPU-a", 1000))
    await node.kubelet.admit(old)
    node.kubelet.forget(old)
    node.pods.lose(old)

    new = node.bind(a_pod("db-0", a_container("c", 1), uid="new"), ("c", "GPU-b", 2000))
    given = await node.kubelet.admit(new)

    assert cards_in(given["c"]) == "GPU-b"
    assert node.confirmed[-1] == ("db-0", "c", ["GPU-b"], True)


async def test_the_agent_restarts_between_preference_and_allocate(node: Node) -> None:
    """What was answered is on disk: the IDs still lead to the container."""
    pod = node.bind(a_pod("p", a_container("c", 1)), ("c", "GPU-a", 3000))
    node.kubelet.shown["default", "p"] = {"c": frozenset()}
    ids = await node.desk.prefer(Offer(available=ALL_IDS, must_include=(), size=1))

    node.start_agent()
    given = await node.desk.allocate(ids)

    assert cards_in(given) == "GPU-a"
    assert pod.metadata.uid == node.table.pods[0].uid


async def test_the_agent_restarts_and_remembers_whom_it_served(node: Node) -> None:
    """After a lost checkpoint the kubelet offers every ID again; one held by a running pod goes to nobody."""
    running = node.bind(a_pod("x", a_container("c", 1)), ("c", "GPU-a", 6000))
    await node.kubelet.admit(running)
    held = node.kubelet.in_use.pop("uid-x")
    node.kubelet.shown["default", "x"] = {"c": frozenset()}
    node.start_agent()

    given = await node.kubelet.admit(node.bind(a_pod("y", a_container("c", 1)), ("c", "GPU-a", 3000)))

    assert given["c"].env["CUDA_DEVICE_MEMORY_LIMIT_0"] == "3000m"
    assert not held & node.kubelet.in_use["uid-y"]


@pytest.mark.parametrize(
    ("answered", "wrote"), [(1, 0), (2, 0), (2, 1), (3, 0), (3, 1), (3, 2), (4, 0), (4, 3), (2, 2)]
)
async def test_a_kubelet_that_dies_before_it_writes_our_answer_down_asks_again(
    node: Node, answered: int, wrote: int
) -> None:
    """Its successor goes on after the last container that it remembers; each gets its own cards all the same."""
    pod = a_pod("p", a_container("a", 1), a_container("b", 1), a_container("c", 1), init=(a_container("prepare", 1),))
    sizes = {"prepare": 1001, "a": 1002, "b": 1003, "c": 1004}
    node.bind(pod, *((name, "GPU-a" if size % 2 else "GPU-b", size) for name, size in sizes.items()))
    first = await node.kubelet.admit(pod, dies_after=answered)

    doubt(node.table, resource=GPU, pod=node.pods.get, checkpoint=node.kubelet.die(pod, wrote=wrote))
    second = await node.kubelet.admit(pod, known=wrote)

    given = {**first, **second}
    assert {n: f"{size}m" for n, size in sizes.items()} == {
        name: edits.env["CUDA_DEVICE_MEMORY_LIMIT_0"] for name, edits in given.items()
    }
    assert list(sizes)[wrote:] == list(second)


async def test_what_runs_is_served_though_the_kubelet_forgot_it(node: Node) -> None:
    """After a lost checkpoint its IDs stay its own, and the allocator is not told that it waits."""
    pod = node.bind(a_pod("p", a_container("c", 1)), ("c", "GPU-a", 6000))
    await node.kubelet.admit(pod)
    node.pods.see(structs.replace(pod, status=PodStatus(phase="Running", start_time="2026-01-01T00:00:00Z")))

    doubt(node.table, resource=GPU, pod=node.pods.get, checkpoint=[])

    assert node.witness.is_served("uid-p")


async def test_the_kubelet_asks_for_another_number_than_was_allocated(node: Node) -> None:
    """An allocation that does not match the pod is refused before anything is prepared."""
    pod = node.bind(a_pod("p", a_container("c", 2)), ("c", "GPU-a", 100))

    with pytest.raises(Refusal, match=r"gives container c 1 of nvidia\.com/gpu, the kubelet asks for 2"):
        await node.kubelet.admit(pod)


@pytest.mark.parametrize("seed", range(8))
async def test_many_pods_come_and_go_and_each_gets_its_own(node: Node, seed: int) -> None:
    """Pods of one or two containers, some with an init container; half of them end while others are admitted."""
    alive: list[Pod] = []
    for i in random.Random(seed).sample(range(12), 12):
        init = (a_container("prepare", 1),) if i % 3 == 0 else ()
        containers = [a_container("one", 1), *([a_container("two", 1)] if i % 2 else [])]
        pod = a_pod(f"p{seed}-{i}", *containers, init=init)
        grants = [(c.name, f"GPU-{'ab'[(i + at) % 2]}", 100 + 10 * i + at) for at, c in enumerate(pod.all_containers)]
        node.bind(pod, *grants)
        given = await node.kubelet.admit(pod)
        for name, card, memory in grants:
            assert (cards_in(given[name]), given[name].env["CUDA_DEVICE_MEMORY_LIMIT_0"]) == (card, f"{memory}m")
        alive.append(pod)
        if len(alive) > 2:
            over = alive.pop(0)
            node.kubelet.forget(over)
            node.pods.lose(over)
            await node.releases.sweep()
    held = [i for entry in node.table.entries for i in set(entry.ids)]
    assert len(node.table.pods) == len(alive)
    assert set(held) == {i for pod in alive for i in node.kubelet.in_use[pod.metadata.uid]}
