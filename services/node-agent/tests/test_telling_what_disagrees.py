"""Our table, the kubelet's account and the processes on the cards: what disagrees lasts two looks, and is told once."""

import asyncio
import json
from pathlib import Path

import pytest
from hami_model.allocation import Allocation, ContainerGrants, Grant
from hami_model.bus.messages import Drift
from hami_model.objects import Meta, Pod, PodRef, PodStatus
from hami_model.request import Role
from hami_node_agent.drift import lookout
from hami_node_agent.drift.lookout import Lookout
from hami_node_agent.drift.owners import Owners, pod_of
from hami_node_agent.inventory import Inventory
from hami_node_agent.kubelet import KubeletUnreachable, ListedPod
from hami_node_agent.pods import NodePods
from hami_node_agent.probes import SimulatedProbe
from hami_node_agent.table import Entry, Table

GPU, NODE = "nvidia.com/gpu", "n1"
UID, OTHER = "5a3adca3-5c4a-4488-9482-2a8f4f5b12c4", "0f86c1d2-93c1-4d7a-b2e4-57d9a1c0e801"
TRAIN, SERVE = PodRef("team-a", "train", UID), PodRef("team-a", "serve", OTHER)
SLICE = f"pod{UID.replace('-', '_')}.slice"
IN_TRAIN = f"0::/kubepods.slice/kubepods-{SLICE}/cri-containerd-1f.scope\n"
IN_SERVE = f"4:memory:/kubepods/burstable/pod{OTHER}/9c\n"


class Room:
    """A node with two cards, who runs on them, and what the kubelet has written down."""

    def __init__(self, folder: Path) -> None:
        self.proc, self.plugins, self._cards = folder / "proc", folder / "plugins", folder / "cards.yaml"
        self.plugins.mkdir()
        self.stored: dict[str, Allocation] = {}
        self.pods = NodePods(NODE, lambda pod: self.stored.get(pod.metadata.uid))
        self.table = Table()
        self.shown: dict[str, ListedPod] = {}
        self.asked: list[str] = []
        self.is_down = False
        self.told: list[tuple[str, Drift]] = []
        self._counted: list[dict[str, object]] = []
        self._on: dict[str, list[int] | None] = {"GPU-a": [], "GPU-b": []}
        self.inventory = Inventory(SimulatedProbe(self._cards))
        self.lookout = Lookout(
            table=self.table, pods=self.pods, kubelet=self, plugins=self.plugins, resources=[GPU],
            inventory=self.inventory, owners=Owners(self.proc), tell=lambda *told: self.told.append(told),
        )  # fmt: skip

    # who is there

    def serve(self, pod: PodRef, *cards: str, role: Role = Role.APP, is_counted: bool = True) -> None:
        """Give a living pod cards, as the kubelet counts them too."""
        self.pods.see(Pod(metadata=Meta(name=pod.name, namespace=pod.namespace, uid=pod.uid)))
        grants = tuple(Grant(uuid=card, vendor="NVIDIA", memory=3000, cores=30) for card in cards)
        ids = tuple(f"{card}-0" for card in cards)
        self.table.put(
            Entry(pod=pod, container="c", position=0, role=role, resource=GPU, ids=ids, grants=grants, served=True)
        )
        if is_counted:
            self.count(pod, *ids)

    def count(self, pod: PodRef, *ids: str) -> None:
        """Have the kubelet write a container's IDs down."""
        entry = {"PodUID": pod.uid, "ContainerName": "c", "ResourceName": GPU, "DeviceIDs": {"-1": list(ids)}}
        self._counted.append(entry)
        self.write_checkpoint(json.dumps({"Data": {"PodDeviceEntries": self._counted}}))

    def write_checkpoint(self, text: str) -> None:
        (self.plugins / "kubelet_internal_checkpoint").write_text(text)

    def run(self, pid: int, *cards: str, groups: str = "0::/init.scope\n", command: str = "python3") -> None:
        """Let a process use cards; without a group it is not to be seen."""
        for card in cards:
            self._on[card] = [*(self._on[card] or []), pid]
        if groups:
            folder = self.proc / str(pid)
            folder.mkdir(parents=True)
            (folder / "cgroup").write_text(groups)
            (folder / "comm").write_text(f"{command}\n")

    def end(self, pid: int) -> None:
        self._on = {card: [p for p in pids or [] if p != pid] for card, pids in self._on.items()}

    def blind(self, card: str) -> None:
        """Have the driver not tell who runs on a card."""
        self._on[card] = None

    # the kubelet

    async def list_pods(self) -> tuple[ListedPod, ...]:
        raise AssertionError("a List outside of GetPreferredAllocation")

    async def get_pod(self, namespace: str, name: str) -> ListedPod | None:
        self.asked.append(name)
        if self.is_down:
            raise KubeletUnreachable("the kubelet is down")
        return self.shown.get(name)

    # looking

    async def look(self, times: int = 1) -> None:
        rows = [
            {"id": card, "vendor": "NVIDIA", "index": at, "count": 4, "devmem": 10000, "type": "NVIDIA A40"}
            | ({} if pids is None else {"processes": [{"pid": pid, "memory": 300} for pid in pids]})
            for at, (card, pids) in enumerate(self._on.items())
        ]
        self._cards.write_text(json.dumps(rows))
        await self.inventory.look()
        for _ in range(times):
            await self.lookout.look()

    @property
    def says(self) -> list[str]:
        return [drift.says for drift in self.lookout.findings]


@pytest.fixture
def room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Room:
    monkeypatch.setattr(lookout, "GET_PAUSE", 0)
    return Room(tmp_path)


@pytest.mark.parametrize(
    ("groups", "pod"),
    [
        (IN_TRAIN, UID),
        (IN_SERVE, OTHER),
        (f"12:pids:/\n11:cpu:/kubepods/pod{UID}/1f\n0::/x\n", UID),
        (f"0::/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-besteffort-{SLICE}", UID),
        (f"0::/../../../kubepods-burstable.slice/kubepods-burstable-{SLICE}/crio-1f.scope", UID),
        (f"0::/../../pod{UID}/1f/nested/deeper\n", UID),
        ("0::/kubepods/besteffort/podd41d8cd98f00b204e9800998ecf8427e/1f\n", "d41d8cd98f00b204e9800998ecf8427e"),
        ("0::/user.slice/user-1000.slice/session-3.scope\n", ""),
        ("0::/system.slice/podman-1f.scope\n", ""),
        ("", ""),
    ],
    ids=["v2 systemd", "v1 cgroupfs", "v1 several", "v2 kind", "v2 seen from a container",
         "v2 cgroupfs seen from a container", "static pod", "a user's", "a service's", "none"],
)  # fmt: skip
def test_a_processs_cgroup_names_its_pod(groups: str, pod: str) -> None:
    """Each kubelet driver, runtime and version of cgroups spells it otherwise."""
    assert pod == pod_of(groups)


async def test_what_agrees_is_not_told_and_the_kubelet_is_not_asked(room: Room) -> None:
    """Pods with processes on their own cards, one with none yet, cards without anybody."""
    room.serve(TRAIN, "GPU-a", "GPU-b")
    room.serve(SERVE, "GPU-a")
    room.run(100, "GPU-a", "GPU-b", groups=IN_TRAIN)
    await room.look(3)

    assert ([], []) == (room.told, room.asked)


async def test_a_process_of_no_pod_is_a_stranger(room: Room) -> None:
    """Told at the second look, once, with what it is; over when it has ended."""
    room.run(4711, "GPU-b", command="jupyter")
    await room.look()
    at_first = list(room.told)
    await room.look(3)
    stood = room.says
    room.end(4711)
    await room.look(2)

    says = "process 4711 (jupyter, 300 MiB) on card GPU-b, of no pod: end it, or leave the card to it (filterdevices in config.json)"  # noqa: E501
    assert ([], [says]) == (at_first, stood)
    assert [("drift", "stranger", "GPU-b"), ("drift.cleared", "stranger", "GPU-b")] == [
        (kind, drift.kind, drift.device) for kind, drift in room.told
    ]
    assert () == room.lookout.findings


async def test_a_pod_that_holds_nothing_here_is_a_stranger(room: Room) -> None:
    """It reaches cards by its image's environment, or is privileged; known or not."""
    room.pods.see(Pod(metadata=Meta(name="serve", namespace="team-a", uid=OTHER)))
    room.run(1, "GPU-a", groups=IN_SERVE)
    room.run(2, "GPU-b", groups=IN_TRAIN)
    await room.look(2)

    assert [SERVE, None] == [drift.pod for _, drift in room.told]
    assert room.says == [
        "process 1 (python3, 300 MiB) of pod team-a/serve on card GPU-a, and the pod holds no device here: see what "
        "shows it the card",
        f"process 2 (python3, 300 MiB) of pod with uid {UID} on card GPU-b, and the pod holds no device here: see "
        "what shows it the card",
    ]


async def test_a_pods_process_on_a_card_of_others_is_on_the_wrong_card(room: Room) -> None:
    """All its processes there in one sentence."""
    room.serve(TRAIN, "GPU-a")
    for pid in range(100, 107):
        room.run(pid, "GPU-a", "GPU-b", groups=IN_TRAIN)
    await room.look(2)

    (says,) = room.says
    assert says.startswith("processes 100 (python3, 300 MiB), 101 (python3, 300 MiB)")
    assert says.endswith(
        "104 (python3, 300 MiB) and 2 more of pod team-a/train on card GPU-b, which was not given to it: it has GPU-a"
    )
    assert ("wrong-card", TRAIN) == (room.told[0][1].kind, room.told[0][1].pod)


async def test_cards_that_only_the_allocation_names_are_given(room: Room) -> None:
    """A table rebuilt from the kubelet's account knows IDs and no cards; where nothing says which, nobody is wrong."""
    room.serve(TRAIN)
    room.serve(SERVE)
    grant = Grant(uuid="GPU-a", vendor="NVIDIA", memory=1, cores=0)
    containers = (ContainerGrants(name="c", role=Role.APP, grants=(grant,)),)
    room.stored[UID] = Allocation(pod=TRAIN, node=NODE, containers=containers)
    pod = room.pods.live[0]
    room.pods.see(Pod(metadata=pod.metadata, spec=type(pod.spec)(node_name=NODE)))
    room.run(1, "GPU-a", "GPU-b", groups=IN_TRAIN)
    room.run(2, "GPU-a", "GPU-b", groups=IN_SERVE)
    await room.look(2)

    assert [("wrong-card", "GPU-b", TRAIN)] == [(drift.kind, drift.device, drift.pod) for _, drift in room.told]


async def test_a_new_process_in_the_place_of_another_has_not_lasted(room: Room) -> None:
    """Somebody runs a short program now and then: each is gone before anybody could act."""
    for pid in (1, 2, 3):
        room.run(pid, "GPU-a")
        await room.look()
        room.end(pid)

    assert [] == room.told


async def test_processes_that_are_not_to_be_seen_are_told_as_that(room: Room) -> None:
    """The agent has not the host's process numbers: it cannot say whose they are, and says so."""
    room.run(1, "GPU-a", groups="")
    await room.look(2)

    assert room.says == [
        "process 1 (300 MiB) on card GPU-a cannot be looked up: run the agent with the host's process numbers "
        "(hostPID: true), and name the host's /proc with HAMI_PROC_ROOT where it is elsewhere"
    ]


async def test_devices_that_neither_the_kubelet_nor_a_process_knows_are_a_ghost(room: Room) -> None:
    """The kubelet is asked for that pod alone, by Get."""
    room.serve(SERVE, "GPU-b")
    room.serve(TRAIN, "GPU-a", is_counted=False)
    await room.look(2)

    assert room.says == [
        "container c of pod team-a/train holds GPU-a-0 here, and neither the kubelet nor a process on a card knows of "
        "it: delete the pod"
    ]
    assert ["train", "train"] == room.asked


@pytest.mark.parametrize("known_by", ["Get", "a process", "its end", "being an init container"])
async def test_a_container_that_somebody_knows_is_no_ghost(room: Room, known_by: str) -> None:
    """Any of them is enough, and a pod on its way out has its own time."""
    role = Role.INIT if known_by == "being an init container" else Role.APP
    room.serve(TRAIN, "GPU-a", is_counted=False, role=role)
    if known_by == "Get":
        containers = {"c": {GPU: frozenset({"GPU-a-0"})}}
        room.shown["train"] = ListedPod(namespace="team-a", name="train", containers=containers)
    elif known_by == "a process":
        room.run(1, "GPU-a", groups=IN_TRAIN)
    elif known_by == "its end":
        room.pods.see(Pod(metadata=room.pods.live[0].metadata, status=PodStatus(phase="Succeeded")))
    await room.look(2)

    assert [] == room.told


async def test_devices_that_the_kubelet_counts_and_we_do_not_are_a_ghost(room: Room) -> None:
    """Of pods that live here; what it has not forgotten yet of others is its own affair."""
    room.serve(TRAIN, "GPU-a")
    room.count(TRAIN, "GPU-b-3")
    room.count(SERVE, "GPU-b-1")
    await room.look(2)

    assert room.says == [
        "the kubelet counts GPU-b-3 for container c of pod team-a/train, and our table does not: restart the agent, "
        "which takes it over, or delete the pod"
    ]


@pytest.mark.parametrize("trouble", ["the kubelet is away", "the checkpoint is damaged", "the card does not answer"])
async def test_what_cannot_be_looked_at_leaves_things_as_they_stood(room: Room, trouble: str) -> None:
    """A view that is missing is no proof that something is over."""
    room.serve(TRAIN, "GPU-a", is_counted=False)
    room.run(4711, "GPU-b")
    await room.look(2)
    before = room.says
    room.end(4711)
    if trouble == "the kubelet is away":
        room.is_down = True
    elif trouble == "the checkpoint is damaged":
        room.write_checkpoint("{")
    else:
        room.blind("GPU-b")
    await room.look(2)

    assert 2 == len(before)
    assert before == room.says


async def test_it_looks_again_and_again(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until it is cancelled."""
    told = asyncio.Event()
    room.lookout = Lookout(
        table=room.table, pods=room.pods, kubelet=room, plugins=room.plugins, resources=[GPU], every=0.01,
        inventory=room.inventory, owners=Owners(room.proc), tell=lambda _kind, _drift: told.set(),
    )  # fmt: skip
    room.run(4711, "GPU-b")
    await room.look()
    running = asyncio.create_task(room.lookout.run())
    async with asyncio.timeout(10):
        await told.wait()
    running.cancel()

    assert ["stranger"] == [drift.kind for drift in room.lookout.findings]
